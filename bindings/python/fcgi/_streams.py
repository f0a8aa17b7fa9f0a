"""The standard streams: real ones, on descriptors 0 to 2. They are the same objects from request to request, whatever
scripts do to them: a module that stays may keep them, or their buffers, and reads and writes what belongs to the request."""
import _io
import _thread
import sys

from fcgi import _fcgi
from fcgi._notes import noted

FileIO, BufferedReader, BufferedWriter = _io.FileIO, _io.BufferedReader, _io.BufferedWriter
TextIOWrapper = _io.TextIOWrapper
STREAMS = ("stdin", "stdout", "stderr")
NAMES = ("<stdin>", "<stdout>", "<stderr>")
# Encodings that begin each text alike.
STATELESS = frozenset(("utf-8", "ascii", "latin-1", "iso-8859-1", "cp1252"))


def unbuffered(write, flush):
    """Writing as `python3 -u` does: what is written goes to the client at once."""

    def write_and_send(data):
        written = write(data)
        flush()
        return written

    return write_and_send


def is_closed(stream):
    """Whether a stream of ours has been closed; one that has been detached has not."""
    try:
        return stream.closed
    except ValueError:
        return False


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
        # Those that are to begin anew in the next request.
        self.used = [True, True, True]
        self.layers = [None, None, None]

    @staticmethod
    def keep(name, stream):
        """Lets `sys` have a stream."""
        setattr(sys, name, stream)

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
        """Makes the streams of a request; `sys` has those of the one before it."""
        if self.encodings is not self.default or b"PYTHONIOENCODING" in environment:
            encodings = self.encodings_of(environment)
            if encodings != self.encodings:
                self.used[:] = True, True, True
            self.encodings = encodings
        if has_body:
            self.used[0] = True
        if True in self.used:
            self.begin_anew()
            if has_body:
                self.used[0] = True

    def begin_anew(self):
        for number in (0, 1, 2):
            if not self.used[number]:
                continue
            # A thread that was left may be inside of one.
            if self.made[number] is None or _thread._count():
                self.make(number)
            else:
                self.begin(self.made[number], number)
        self.put_back()

    def put_back(self):
        """Takes back what a script has put in the place of its streams."""
        for made, name in zip(self.made, STREAMS):
            for name in (name, "__%s__" % name):
                if getattr(sys, name, None) is not made:
                    self.keep(name, made)

    def make(self, number):
        """Makes a stream, and what it consists of."""
        kind = BufferedWriter if number else BufferedReader
        raw, buffer, stream = (type.__new__(type) for type in (FileIO, kind, TextIOWrapper))
        self.layers[number] = raw, buffer
        self.begin(stream, number)
        self.made[number] = stream
        if number:
            raw.write = self.stdio.write if number == 1 else self.stdio.write_error
        if number == 1 and stream.buffer is raw:
            raw.write = unbuffered(self.stdio.write, self.stdio.flush)
        elif number == 1:
            buffer.flush = _fcgi.Flush(buffer.flush, self.stdio).flush
        self.note_changes(stream, number)

    def begin(self, stream, number):
        """Lets a stream begin, as at the start of a process: nothing was read ahead, and no option is changed."""
        raw, buffer = self.layers[number]
        encoding, errors = self.encodings[number]
        raw.__init__(number, "wb" if number else "rb", closefd=False)
        raw.name = NAMES[number]
        # What a file that was closed is known by, beside its descriptor.
        vars(raw).pop("__IOBase_closed", None)
        below = raw if number and self.unbuffered else buffer
        if below is buffer:
            buffer.__init__(raw, self.buffer_size(raw))
        stream.__init__(below, encoding, errors, "\n", number == 2, self.unbuffered)
        stream.mode = "w" if number else "r"
        self.used[number] = stream.encoding.lower() not in STATELESS

    @staticmethod
    def buffer_size(raw):
        size = raw._blksize
        return size if sys.version_info < (3, 14) else max(min(size, 8 << 20), 128 << 10)

    def note_changes(self, stream, number):
        """Lets a stream begin anew after it was changed or closed."""

        def has_happened(*_):
            self.used[number] = True

        for object in {stream, stream.buffer, self.layers[number][0]}:
            for name in ("reconfigure", "detach", "close"):
                if hasattr(object, name):
                    setattr(object, name, noted(getattr(object, name), has_happened))

    def close(self, status):
        """Writes out what is left; as `python3`, with status 120 when that cannot be done."""
        self.stdio.end()
        _, stdout, stderr = self.made
        try:
            stream = sys.stdout
            if stream is stdout or stream is not None and not stream.closed:
                stream.flush()
        except AttributeError:
            pass
        except BaseException as e:
            status = self.failed(stream, e, status)
        try:
            stream = sys.stderr
            if stream is stderr or stream is not None and not stream.closed:
                stream.flush()
        except BaseException:
            pass
        return status

    def failed(self, stream, exception, status):
        """Standard output cannot be written out; gives the exit status."""
        if stream is self.made[1] and is_closed(stream):
            return status
        self.complain(stream, exception)
        return status or 120

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
        """Empties what is to begin anew."""
        if True not in self.used:
            return
        for number in (1, 2):
            if self.used[number]:
                for stream in (self.made[number], self.layers[number][1]):
                    try:
                        stream.flush()
                    except BaseException:
                        pass
