"""What `os` says of its functions holds for those that a script finds."""
import os

print("Content-Type: text/plain\n")
for name in ("supports_dir_fd", "supports_effective_ids", "supports_fd", "supports_follow_symlinks"):
    print(name, sorted(n for n in dir(os) if callable(getattr(os, n)) and getattr(os, n) in getattr(os, name)))
