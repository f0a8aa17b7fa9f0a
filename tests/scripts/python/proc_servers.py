"""Processes that serve those of multiprocessing, and a daemon, end with the script."""
import multiprocessing
import time


def square(number):
    return number * number


def wait():
    time.sleep(30)
    print("never", flush=True)


if __name__ == "__main__":
    print("Content-Type: text/plain\n", flush=True)
    context = multiprocessing.get_context("forkserver")
    with context.Pool(1) as pool:
        print(pool.map(square, [2, 3]), flush=True)
    daemon = multiprocessing.get_context("fork").Process(target=wait, daemon=True)
    daemon.start()
    print(daemon.name.rpartition("-")[0], flush=True)
