"""The standard streams of requests that share a process: new ones for each request, above what it has for descriptors."""
import io
import os
import sys

from fcgi._streams import BufferedReader, BufferedWriter, FileIO, Streams, TextIOWrapper, unbuffered

BUFFER = 8192 if sys.version_info < (3, 14) else 128 << 10


class Raw(io.RawIOBase):
    """The bottom of a stream. It makes no system call: each one lets other threads run."""

    closefd = False

    def __init__(self, channel, number, name, mode):
        self.channel, self.number, self.name, self.mode = channel, number, name, mode

    def fileno(self):
        return self.channel.fileno(self.number)

    def isatty(self):
        return False

    def tell(self):
        return 0

    def __repr__(self):
        return "<_io.FileIO name=%r mode=%r closefd=False>" % (self.name, self.mode)


class Writer(Raw):
    def writable(self):
        return True


class Nothing(Raw):
    """An empty body."""

    def readable(self):
        return True

    def readinto(self, buffer):
        # The script may have put something else behind the descriptor.
        return os.readv(self.fileno(), [buffer]) if self.channel.has_body() else 0


class OwnStreams(Streams):
    """The standard streams of the request that runs in one thread."""

    def open(self, request):
        """Makes the streams of a request."""
        self.stdio = channel = request.channel
        stdin, stdout, stderr = self.encodings_of(request.environment)
        request.streams = self.made = [
            self.input_from(channel, *stdin),
            self.output_to(Writer(channel, 1, "<stdout>", "wb"), channel.write, channel.flush, *stdout, False),
            self.output_to(Writer(channel, 2, "<stderr>", "wb"), channel.write_error, None, *stderr, True),
        ]

    def input_from(self, channel, encoding, errors):
        if channel.has_body():
            raw = FileIO(channel.fileno(0), "rb", closefd=False)
            raw.name = "<stdin>"
            raw.fileno = lambda: channel.fileno(0)
        else:
            raw = Nothing(channel, 0, "<stdin>", "rb")
        stream = TextIOWrapper(BufferedReader(raw, BUFFER), encoding, errors, "\n", False, self.unbuffered)
        stream.mode = "r"
        return stream

    def output_to(self, raw, write, flush, encoding, errors, by_lines):
        raw.write = unbuffered(write, flush) if flush and self.unbuffered else write
        if self.unbuffered:
            stream = TextIOWrapper(raw, encoding, errors, "\n", by_lines, True)
        else:
            buffer = BufferedWriter(raw, BUFFER)
            if flush:
                plain = buffer.flush

                def flush_and_send():
                    plain()
                    flush()

                buffer.flush = flush_and_send
            stream = TextIOWrapper(buffer, encoding, errors, "\n", by_lines)
        stream.mode = "w"
        return stream

    def forget(self):
        # A function that holds the buffer that it belongs to would be garbage.
        for stream in self.made[1:]:
            try:
                stream.buffer.__dict__.pop("flush", None)
            except (AttributeError, ValueError):
                pass
        self.stdio = None
        self.made = [None, None, None]
