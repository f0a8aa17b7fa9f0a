"""Modules that the standard library once had."""
import sys

# The distribution that has each of them now.
REMOVED = {
    "aifc": "standard-aifc", "asynchat": "standard-asynchat", "asyncore": "standard-asyncore",
    "audioop": "audioop-lts", "cgi": "legacy-cgi", "cgitb": "legacy-cgi", "chunk": "standard-chunk",
    "crypt": "crypt-r", "distutils": "setuptools", "imghdr": "standard-imghdr", "imp": "zombie-imp",
    "mailcap": "standard-mailcap", "nntplib": "standard-nntplib", "pipes": "standard-pipes",
    "smtpd": "standard-smtpd", "sndhdr": "standard-sndhdr", "sunau": "standard-sunau", "telnetlib": "standard-telnetlib",
    "uu": "standard-uu", "xdrlib": "standard-xdrlib",
}  # fmt: skip


def hint(exception):
    """Says how such a module comes back."""
    package = REMOVED.get((exception.name or "").partition(".")[0])
    if package:
        print(
            "fcgi-python: Python %d.%d has no module %r any more: pip install %s brings it back"
            % (*sys.version_info[:2], exception.name, package),
            file=sys.stderr,
        )
