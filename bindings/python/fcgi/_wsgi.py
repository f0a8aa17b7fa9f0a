"""What applications by the rules of WSGI are given beside the native parts."""


class FileWrapper:
    """An iterable over a file that sends it without loading it whole (PEP 3333, "Optional Platform-Specific File
    Handling")."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if data:
            return data
        raise StopIteration
