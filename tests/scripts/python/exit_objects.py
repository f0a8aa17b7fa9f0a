"""What happens to objects at the end of a script."""
import weakref


class Noisy:
    def __init__(self, name):
        self.name = name

    def __del__(self):
        print("gone:", self.name)


print("Content-Type: text/plain\n")
_private = Noisy("private")
public = Noisy("public")
held = Noisy("finalized")
weakref.finalize(held, print, "finalizer")
print("end")
