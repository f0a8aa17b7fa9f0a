"""The standard streams: real ones, on descriptors 0 to 2. They last from request to request as long as nobody changes
them, so a log handler of a module that stays writes to the request that runs."""
import _io
import sys

from fcgi._notes import noted

FileIO, BufferedReader, BufferedWriter = _io.FileIO, _io.BufferedReader, _io.BufferedWriter
TextIOWrapper = _io.TextIOWrapper
# Encodings that begin each text alike.
STATELESS = frozenset(("utf-8", "ascii", "latin-1", "iso-8859-1", "cp1252"))


class Streams:
    """The standard streams of one interpreter."""

    def __init__(self, stdio):
        self.stdio = stdio
        streams = [s or sys.__stderr__ for s in (sys.__stdin__, sys.__stdout__, sys.__stderr__)]
        self.default = [(s.encoding, s.errors) for s in streams]
        self.unbuffered = bool(sys.__stdout__ and sys.__stdout__.write_through)
        self.ignore_environment = sys.flags.ignore_environment
        self.made = [None, None, None]
        self.encodings = None
        self.changed = [False, False, False]

    def encodings_of(self, environment):
        """How `python3` would read and write text: as this interpreter was started, unless the request's variables say
        otherwise."""
        wanted = environment.get(b"PYTHONIOENCODING")
        if wanted is None or self.ignore_environment:
            return self.default
        encoding, _, errors = wanted.decode("ascii", "replace").partition(":")
        found = []
        for number, (own, own_errors) in enumerate(self.default):
            # Standard error always shows what it cannot encode.
            chosen = "backslashreplace" if number == 2 else errors or ("strict" if encoding else own_errors)
            found.append((encoding or own, chosen))
        return found

    def open(self, environment, has_body):
        """Makes the streams of a request."""
        encodings = self.encodings_of(environment)
        made = self.made
        if encodings is not self.encodings:
            self.encodings = encodings
            made[:] = None, None, None
        if made[0] is None or has_body:
            made[0] = self.input(*encodings[0])
        if made[1] is None:
            made[1] = self.output(1, "<stdout>", self.stdio.write, self.stdio.flush, *encodings[1], False)
        if made[2] is None:
            made[2] = self.output(2, "<stderr>", self.stdio.write_error, None, *encodings[2], True)
        if sys.stdin is not made[0] or sys.__stdin__ is not made[0]:
            sys.stdin = sys.__stdin__ = made[0]
        if sys.stdout is not made[1] or sys.__stdout__ is not made[1]:
            sys.stdout = sys.__stdout__ = made[1]
        if sys.stderr is not made[2] or sys.__stderr__ is not made[2]:
            sys.stderr = sys.__stderr__ = made[2]
        self.has_body = has_body

    def input(self, encoding, errors):
        raw = FileIO(0, "rb", closefd=False)
        raw.name = "<stdin>"
        buffer = BufferedReader(raw, self.buffer_size(raw))
        stream = TextIOWrapper(buffer, encoding, errors, "\n", False, self.unbuffered)
        stream.mode = "r"
        self.note_changes(stream, 0)
        return stream

    @staticmethod
    def buffer_size(raw):
        size = raw._blksize
        return size if sys.version_info < (3, 14) else max(min(size, 8 << 20), 128 << 10)

    def output(self, number, name, write, flush, encoding, errors, by_lines):
        raw = FileIO(number, "wb", closefd=False)
        raw.write = write
        raw.name = name
        if self.unbuffered:
            stream = TextIOWrapper(raw, encoding, errors, "\n", by_lines, True)
        else:
            buffer = BufferedWriter(raw, self.buffer_size(raw))
            if flush:
                plain = buffer.flush

                def flush_and_send():
                    plain()
                    flush()

                buffer.flush = flush_and_send
            stream = TextIOWrapper(buffer, encoding, errors, "\n", by_lines)
        stream.mode = "w"
        self.note_changes(stream, number)
        return stream

    def note_changes(self, stream, number):
        """Lets a stream that is changed be replaced by a new one."""
        self.changed[number] = stream.encoding.lower() not in STATELESS

        def has_changed(*_):
            self.changed[number] = True

        def note(object, name):
            setattr(object, name, noted(getattr(object, name), has_changed))

        for name in ("reconfigure", "detach", "close"):
            note(stream, name)
        note(stream.buffer, "close")
        if hasattr(stream.buffer, "raw"):
            note(stream.buffer, "detach")
            note(stream.buffer.raw, "close")

    def close(self, status):
        """Writes out what is left; as `python3`, with status 120 when that cannot be done."""
        self.stdio.end()
        for stream in (sys.stdout, sys.stderr):
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except AttributeError:
                pass
            except BaseException as e:
                if stream is sys.stdout:
                    status = status or 120
                    self.complain(stream, e)
        return status

    @staticmethod
    def complain(stream, exception):
        try:
            sys.stderr.write("Exception ignored in: %r\n" % (stream,))
            sys.__excepthook__(type(exception), exception, None)
        except BaseException:
            pass

    def discard(self):
        """Empties the buffers; what they write goes nowhere, for the request has ended."""
        for stream in (sys.stdout, sys.stderr, *self.made[1:]):
            try:
                stream.flush()
            except BaseException:
                pass

    def forget(self):
        """Forgets the streams that are not as they were."""
        made, changed = self.made, self.changed
        if sys.stdout is not made[1] or sys.stdin is not made[0] or sys.stderr is not made[2]:
            # What has taken their place may close them as it goes.
            sys.stdin, sys.stdout, sys.stderr = made
        if True in changed:
            for number in (0, 1, 2):
                if changed[number]:
                    made[number] = None
                    changed[number] = False
        if self.has_body:
            made[0] = None
