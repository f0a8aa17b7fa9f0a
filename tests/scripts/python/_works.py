import queue
import threading

asked, answers = queue.Queue(), queue.Queue()


def serve():
    while True:
        answers.put(asked.get() * 2)


def work(number):
    asked.put(number)
    return answers.get(timeout=30)


threading.Thread(target=serve, daemon=True).start()
