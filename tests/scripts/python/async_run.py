import asyncio

print("Content-Type: text/plain\n")


async def work(n):
    await asyncio.sleep(0.01 * n)
    return n


async def main():
    process = await asyncio.create_subprocess_exec("echo", "from a child", stdout=asyncio.subprocess.PIPE)
    print((await process.communicate())[0])
    return await asyncio.gather(*(work(n) for n in range(4)))


print(asyncio.run(main()))
