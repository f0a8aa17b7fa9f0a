"""Binary files over the streams of a request."""
import io


class Reader(io.RawIOBase):
    """What a buffered reader reads from."""

    def __init__(self, stream):
        self.stream = stream

    def readable(self):
        return True

    def readinto(self, buffer):
        data = self.stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def reader(stream):
    return io.BufferedReader(Reader(stream), 1 << 16)


class Writer(io.BufferedIOBase):
    """What is written is kept by the server until there is enough of it, or `flush` sends it."""

    def __init__(self, stream):
        self.stream = stream

    def writable(self):
        return True

    def write(self, data):
        if self.closed:
            raise ValueError("write to closed file")
        return self.stream.write(data)

    def flush(self):
        # A file that goes is flushed a last time; its request sends by itself.
        if not self.closed:
            self.stream.flush()

    def close(self):
        """Closes this file; the request goes on until it is finished."""
        if not self.closed:
            self.flush = lambda: None
            super().close()

    def __del__(self):
        pass
