//! The head of a CGI response (RFC 3875, section 6) as the head of an HTTP response.

use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

/// The longest head that is taken.
const LONGEST: usize = 64 << 10;

/// Headers that are between this server and its client, not the script's to say.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Status and headers of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `Location` is a path, and stands alone.
    local: Option<Vec<u8>>,
}

/// Why an answer is none.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    #[error("the header of the answer is longer than {LONGEST} bytes")]
    TooLong,
    #[error("the header of the answer has a line without a colon: {0}")]
    NoColon(String),
    #[error("the header of the answer has a wrong status: {0}")]
    BadStatus(String),
    #[error("the answer has no header")]
    Empty,
}

impl Head {
    /// Reads the head at the beginning of `bytes`, and gives it with its length; `None` when it is not complete.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, BadHead> {
        let Some(length) = length(bytes) else {
            return if bytes.len() > LONGEST { Err(BadHead::TooLong) } else { Ok(None) };
        };
        let mut head = Self { status: StatusCode::OK, headers: Vec::new(), local: None };
        let mut status = None;
        let mut location = None;
        for line in unfolded(&bytes[..length]) {
            let shown = || line.escape_ascii().to_string();
            let colon = line.iter().position(|&b| b == b':').ok_or_else(|| BadHead::NoColon(shown()))?;
            let (name, value) = (line[..colon].trim_ascii(), line[colon + 1..].trim_ascii());
            if name.eq_ignore_ascii_case(b"status") {
                let number = value.split(|&b| b == b' ').next().unwrap_or_default();
                status = Some(StatusCode::from_bytes(number).map_err(|_| BadHead::BadStatus(shown()))?);
                continue;
            }
            if name.eq_ignore_ascii_case(b"location") {
                location = Some(value.to_vec());
            }
            head.add(name, value);
        }
        if head.headers.is_empty() && status.is_none() {
            return Err(BadHead::Empty);
        }
        match (status, location) {
            (Some(status), _) => head.status = status,
            (None, Some(path)) if path.starts_with(b"/") && !path.starts_with(b"//") => head.local = Some(path),
            (None, Some(_)) => head.status = StatusCode::FOUND,
            (None, None) => {}
        }
        Ok(Some((head, length)))
    }

    fn add(&mut self, name: &[u8], value: &[u8]) {
        match (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            (Ok(name), Ok(value)) if !HOP_BY_HOP.contains(&name.as_str()) => self.headers.push((name, value)),
            (Ok(_), Ok(_)) => {}
            _ => tracing::warn!("a header that HTTP does not allow is left out: {}", name.escape_ascii()),
        }
    }

    /// The path that is to be answered instead.
    pub(super) fn local_redirect(&self) -> Option<&[u8]> {
        self.local.as_deref()
    }
}

/// Bytes up to and with the empty line.
fn length(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    while let Some(end) = bytes[start..].iter().position(|&b| b == b'\n') {
        let line = &bytes[start..start + end];
        start += end + 1;
        if line.is_empty() || line == b"\r" {
            return Some(start);
        }
    }
    None
}

/// The lines, without line ends; a line that begins with white space goes on with the one before.
fn unfolded(head: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for line in head.split(|&b| b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match lines.last_mut() {
            Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                last.push(b' ');
                last.extend_from_slice(line.trim_ascii());
            }
            _ if line.is_empty() => {}
            _ => lines.push(line.to_vec()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<(u16, Vec<String>, Option<String>, usize), BadHead> {
        let (head, length) = Head::parse(text.as_bytes())?.expect("complete");
        let shown = head.headers.iter().map(|(n, v)| format!("{n}: {}", v.to_str().unwrap())).collect();
        let local = head.local_redirect().map(|l| String::from_utf8_lossy(l).into_owned());
        Ok((head.status.as_u16(), shown, local, length))
    }

    #[test]
    fn heads() {
        let header = |text: &str| vec![text.to_owned()];
        for (text, status, headers, local) in [
            ("Content-Type: text/html\n\nbody", 200, header("content-type: text/html"), None),
            ("Content-Type: text/html\r\n\r\nbody", 200, header("content-type: text/html"), None),
            ("Status: 404 Not Found\nX: 1\n\n", 404, header("x: 1"), None),
            ("Status: 404\n\n", 404, vec![], None),
            ("Location: http://other/\n\n", 302, header("location: http://other/"), None),
            ("Location: //other/\n\n", 302, header("location: //other/"), None),
            ("Location: /here?x\n\n", 200, header("location: /here?x"), Some("/here?x".to_owned())),
            ("Status: 301\nLocation: /here\n\n", 301, header("location: /here"), None),
            ("X: one\n  two\n\n", 200, header("x: one two"), None),
            ("Transfer-Encoding: chunked\nX: 1\nConnection: close\n\n", 200, header("x: 1"), None),
        ] {
            let (got_status, got_headers, got_local, length) = parse(text).unwrap();
            assert_eq!((got_status, got_headers, got_local), (status, headers, local), "{text}");
            assert!(text.len() - length <= 4, "{text}");
        }
        assert!(matches!(Head::parse(b"Content-Type: text/html\n"), Ok(None)));
        assert!(matches!(parse("no colon here\n\n"), Err(BadHead::NoColon(_))));
        assert!(matches!(parse("Status: many\n\n"), Err(BadHead::BadStatus(_))));
        assert!(matches!(parse("\nbody"), Err(BadHead::Empty)));
        assert!(matches!(Head::parse(&vec![b'x'; LONGEST + 1]), Err(BadHead::TooLong)));
    }
}
