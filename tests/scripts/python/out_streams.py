"""The streams are the real ones."""
import io
import sys

print("Content-Type: text/plain\n")
for stream in sys.stdin, sys.stdout, sys.stderr:
    buffer = stream.buffer
    print(stream, stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.fileno(), stream.isatty())
    print(type(stream) is io.TextIOWrapper, type(buffer), type(buffer.raw), buffer.raw.name, buffer.raw.closefd, buffer.raw.mode)
print(sys.stdout is sys.__stdout__, sys.stdin is sys.__stdin__)
sys.stdout.buffer.write(b"bytes \xff\xfe\n")
print("text after bytes")
sys.stdout.reconfigure(encoding="latin-1", newline="\r\n")
print("Gr\xfc\xdfe")
