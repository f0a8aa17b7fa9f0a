import threading
import time

print("Content-Type: text/plain\n")
threading.Timer(0.25, print, ["timer"]).start()
daemon = threading.Thread(target=lambda: (time.sleep(1.5), print("NEVER", flush=True)), daemon=True)
daemon.start()
print("end")
