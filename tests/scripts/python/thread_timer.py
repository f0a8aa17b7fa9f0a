import threading
import time

print("Content-Type: text/plain\n")
threading.Timer(0.05, print, ["timer"]).start()
daemon = threading.Thread(target=lambda: (time.sleep(0.4), print("NEVER", flush=True)), daemon=True)
daemon.start()
print("end")
