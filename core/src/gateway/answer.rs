//! What web servers get wrong about CGI answers, put right for those that need it. The others get them byte for byte.
//!
//! | server | what it does | what it gets |
//! | --- | --- | --- |
//! | Apache mod_proxy_fcgi, Caddy, H2O | takes `Location` without `Status` for a page | `Status: 302 Found` before it |
//! | H2O, HAProxy | sends on the body of a HEAD, 204 or 304, or fails of it | no body |
//! | HAProxy | fails of a header that comes in pieces | it as a whole |
//! | HAProxy, Caddy | fails of the error stream, or drops it | no error stream: the text is in the program's own log |

use std::borrow::Cow;
use std::io;

use super::PROXY_PREFIX;
use crate::error_lines::ErrorLines;
use crate::protocol::Params;
use crate::response::LONGEST_HEAD;

/// A script that writes on and on for nobody is told so after this many bytes.
const LONGEST_UNSENT: u64 = 16 << 20;

/// Mends the answer of one request.
#[derive(Debug, Default)]
pub(crate) struct Mender {
    needs: Needs,
    is_head: bool,
    state: State,
    errors: Option<ErrorLines>,
}

/// What a server needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Needs {
    status: bool,
    no_body: bool,
    errors_logged: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Everything passes.
    #[default]
    Passing,
    /// The header, as far as it has come.
    Head(Vec<u8>),
    /// The body is dropped; so much of it was.
    Dropping(u64),
}

impl Needs {
    /// As the server's name in `SERVER_SOFTWARE` tells. `SCRIPT_FILENAME` must be as it came: its prefix is how one of Apache's
    /// modules is told from the others.
    fn of(params: &Params) -> Self {
        let software = params.get(b"SERVER_SOFTWARE").unwrap_or_default();
        let none = Self::default();
        match software.first() {
            Some(b'A') if software.starts_with(b"Apache") => {
                let is_proxy = params.get(b"SCRIPT_FILENAME").is_some_and(|name| name.starts_with(PROXY_PREFIX));
                Self { status: is_proxy, ..none }
            }
            Some(b'C') if software.starts_with(b"Caddy") => Self { status: true, errors_logged: true, ..none },
            Some(b'H') if software.starts_with(b"HAProxy") => Self { no_body: true, errors_logged: true, ..none },
            Some(b'h') if software.starts_with(b"h2o/") => Self { status: true, no_body: true, ..none },
            _ => none,
        }
    }
}

impl Mender {
    /// For the answer to a request; its variables are as they came.
    pub(crate) fn new(params: &Params) -> Self {
        let needs = Needs::of(params);
        if needs == Needs::default() {
            return Self::default();
        }
        Self {
            needs,
            is_head: params.get(b"REQUEST_METHOD") == Some(b"HEAD"),
            state: State::Head(Vec::new()),
            errors: needs.errors_logged.then(ErrorLines::default),
        }
    }

    /// Whether output must go through [`pass`](Self::pass).
    pub(crate) fn is_active(&self) -> bool {
        !matches!(self.state, State::Passing)
    }

    /// Takes output; gives what of it is to be sent.
    ///
    /// # Errors
    /// `BrokenPipe` when too much has come that is for nobody.
    pub(crate) fn pass<'a>(&mut self, bytes: &'a [u8]) -> io::Result<Cow<'a, [u8]>> {
        match &mut self.state {
            State::Passing => Ok(bytes.into()),
            State::Dropping(count) => {
                *count += bytes.len() as u64;
                if *count > LONGEST_UNSENT { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(Cow::default()) }
            }
            State::Head(head) => {
                // The end of the header may lie on both sides of the seam.
                let seen = head.len().saturating_sub(3);
                head.extend_from_slice(bytes);
                let Some(end) = head_end(&head[seen..]).map(|end| seen + end) else {
                    // What is so long is no header: the server shall say so.
                    let out = if head.len() > LONGEST_HEAD { self.rest() } else { Vec::new() };
                    return Ok(out.into());
                };
                let mut out = std::mem::take(head);
                self.state = State::Passing;
                let lines = Lines::of(&out[..end]);
                if self.needs.no_body && (self.is_head || lines.has_no_body) {
                    self.state = State::Dropping((out.len() - end) as u64);
                    out.truncate(end);
                }
                if self.needs.status && lines.location && !lines.status {
                    out.splice(..0, *b"Status: 302 Found\r\n");
                }
                Ok(out.into())
            }
        }
    }

    /// What has been kept back, when nothing follows.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        match &mut self.state {
            State::Head(head) => {
                let head = std::mem::take(head);
                self.state = State::Passing;
                head
            }
            _ => Vec::new(),
        }
    }

    /// Forgets what was written, as if nothing had been.
    pub(crate) fn start_again(&mut self) {
        if self.needs != Needs::default() {
            self.state = State::Head(Vec::new());
        }
    }

    /// Takes text of the error stream; false when it is the server's.
    pub(crate) fn log(&mut self, text: &[u8]) -> bool {
        let Some(lines) = &mut self.errors else { return false };
        lines.push(text);
        true
    }
}

/// Where the header ends: behind the first empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = bytes[at..].iter().position(|&b| b == b'\n') {
        at += found + 1;
        match bytes[at..] {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
    None
}

/// What a header has.
#[derive(Debug, Default)]
struct Lines {
    status: bool,
    location: bool,
    has_no_body: bool,
}

impl Lines {
    fn of(head: &[u8]) -> Self {
        let mut found = Self::default();
        for line in head.split(|&b| b == b'\n') {
            let Some(colon) = line.iter().position(|&b| b == b':') else { continue };
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"status") {
                found.status = true;
                found.has_no_body = value.starts_with(b"204") || value.starts_with(b"304");
            }
            found.location |= name.eq_ignore_ascii_case(b"location");
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn params(software: &str, method: &str) -> Params {
        [("SERVER_SOFTWARE", software), ("REQUEST_METHOD", method), ("SCRIPT_FILENAME", "proxy:fcgi://app/x")]
            .into_iter()
            .collect()
    }

    fn mended(params: &Params, pieces: &[&[u8]]) -> Vec<u8> {
        let mut mender = Mender::new(params);
        let mut out = Vec::new();
        for piece in pieces {
            out.extend_from_slice(&mender.pass(piece).unwrap());
        }
        out.extend(mender.rest());
        out
    }

    #[test]
    fn answers() {
        let page = "Content-Type: text/plain\n\nbody\n\n";
        let redirect = "Content-Type: text/plain\nlocation: /x\n\nbody";
        let with_status = "Location: /x\r\nStatus: 301\r\n\r\n";
        let empty = "Status: 204 None\r\n\r\nbody";
        let added = format!("Status: 302 Found\r\n{redirect}");
        for (software, method, text, expected) in [
            ("nginx/1", "HEAD", page, page),
            ("nginx/1", "GET", redirect, redirect),
            ("nginx/1", "GET", empty, empty),
            ("lighttpd/1", "GET", redirect, redirect),
            ("Apache/2.4", "GET", redirect, &added),
            ("Apache/2.4", "HEAD", page, page),
            ("Apache/2.4", "GET", with_status, with_status),
            ("Caddy/v2", "GET", redirect, &added),
            ("h2o/2", "GET", redirect, &added),
            ("h2o/2", "HEAD", page, "Content-Type: text/plain\n\n"),
            ("HAProxy 2.6", "HEAD", page, "Content-Type: text/plain\n\n"),
            ("HAProxy 2.6", "GET", page, page),
            ("HAProxy 2.6", "GET", empty, "Status: 204 None\r\n\r\n"),
            ("HAProxy 2.6", "GET", redirect, redirect),
            ("HAProxy 2.6", "GET", "no end", "no end"),
            ("HAProxy 2.6", "GET", "", ""),
        ] {
            let got = mended(&params(software, method), &[text.as_bytes()]);
            assert_eq!(String::from_utf8(got).unwrap(), expected, "{software} {method} {text}");
        }
        let mut others = params("Apache/2.4", "GET");
        others.set(b"SCRIPT_FILENAME", b"/srv/x");
        assert_eq!(mended(&others, &[redirect.as_bytes()]), redirect.as_bytes());
    }

    #[test]
    fn what_is_for_nobody_ends() {
        let mut mender = Mender::new(&params("h2o/2", "HEAD"));
        assert_eq!(&*mender.pass(b"A: 1\n\nrest").unwrap(), b"A: 1\n\n");
        let block = vec![b'x'; 1 << 20];
        assert!(mender.pass(&block).unwrap().is_empty());
        assert!((0..17).any(|_| mender.pass(&block).is_err()));
    }

    #[test]
    fn a_head_without_an_end_is_not_kept_for_ever() {
        let line = vec![b'x'; LONGEST_HEAD + 1];
        let mut mender = Mender::new(&params("h2o/2", "GET"));
        assert_eq!(&*mender.pass(&line).unwrap(), &line[..]);
        assert!(!mender.is_active());
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            lines in proptest::collection::vec("(Status: 204|Location: /x|A: b)\r?\n", 0..3),
            end in "\r?\n",
            body in "[ab\r\n]{0,9}",
            software in "(h2o/2|HAProxy|Caddy|Apache)",
            sizes in proptest::collection::vec(1..9_usize, 1..60),
        ) {
            let text = format!("X: 1\n{}{end}{body}", lines.concat()).into_bytes();
            let params = params(&software, "GET");
            let mut rest = &text[..];
            let mut pieces = Vec::new();
            for size in sizes {
                let (piece, later) = rest.split_at(size.min(rest.len()));
                pieces.push(piece);
                rest = later;
            }
            pieces.push(rest);
            prop_assert_eq!(mended(&params, &pieces), mended(&params, &[&text]));
        }
    }
}
