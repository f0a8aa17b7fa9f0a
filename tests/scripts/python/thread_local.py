import concurrent.futures
import threading

print("Content-Type: text/plain\n")
with concurrent.futures.ThreadPoolExecutor(3) as pool:
    print(list(pool.map(lambda n: n * n, range(5))))
pool = concurrent.futures.ThreadPoolExecutor(2)
print(pool.submit(sum, [1, 2]).result(), threading.current_thread() is threading.main_thread())
pool.submit(print, "at the end")
