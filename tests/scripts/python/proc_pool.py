import multiprocessing


def square(n):
    return n * n


print("Content-Type: text/plain\n", flush=True)
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(square, range(5)))
process = multiprocessing.get_context("fork").Process(target=print, args=("in a process",))
process.start()
process.join()
print(process.exitcode)
