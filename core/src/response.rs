//! The head of a CGI response (RFC 3875, section 6), for the web server's side: bytes in, status and headers out; and the
//! response of a program that failed.
//!
//! ```
//! use fcgi_core::response::{HeadParser, Redirect};
//!
//! let mut parser = HeadParser::new();
//! let mut input = &b"Status: 404 Not Found\nContent-Type: text/plain\n\nnothing here"[..];
//! let head = parser.push(&mut input)?.expect("the head is complete");
//! assert_eq!((head.status, &head.reason[..]), (404, &b"Not Found"[..]));
//! assert_eq!(head.get("content-type"), Some(&b"text/plain"[..]));
//! assert_eq!((head.redirect, input), (Redirect::None, &b"nothing here"[..]));
//! # Ok::<(), fcgi_core::response::BadHead>(())
//! ```

/// A CGI response for a request that failed: a page that says its status, such as `404 Not Found`, and below it `details`, if
/// there are any.
pub fn error_page(status: &str, details: &[u8]) -> Vec<u8> {
    let page = format!("Status: {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{status}\n");
    [page.as_bytes(), if details.is_empty() { b"" } else { b"\n" }, details].concat()
}

/// The longest head that is taken, in bytes.
pub const LONGEST_HEAD: usize = 64 << 10;

/// Why an answer is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadHead {
    /// More than [`LONGEST_HEAD`] bytes without an empty line.
    #[error("the header of the answer is longer than {LONGEST_HEAD} bytes")]
    TooLong,
    /// A line that is no `name: value`; here it is, escaped.
    #[error("the header of the answer has a line without a name and a colon: {0}")]
    NoColon(String),
    /// `Status` is no number of three digits; here is its line, escaped.
    #[error("the header of the answer has a wrong status: {0}")]
    BadStatus(String),
    /// The first line is the empty one.
    #[error("the answer has no header")]
    Empty,
}

/// Where the client is to look instead (section 6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Redirect {
    /// Nowhere: this is the answer.
    #[default]
    None,
    /// A path and query of the same server, which answers as if it had been asked for that (section 6.2.2).
    Local(Vec<u8>),
    /// An absolute URL, which the client is told (sections 6.2.3 and 6.2.4).
    Client(Vec<u8>),
}

/// Status and headers of a CGI response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// From `Status`; without it 302 for a client redirect and 200 for all others.
    pub status: u16,
    /// What `Status` says after its number; may be empty.
    pub reason: Vec<u8>,
    /// All headers but `Status`, in order, without white space around names and values. `Location` is among them.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    /// What `Location` asks for.
    pub redirect: Redirect,
}

impl Head {
    /// The first header with this name, in any case of letters.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| &value[..])
    }

    fn from_lines(lines: &[Vec<u8>]) -> Result<Self, BadHead> {
        if lines.is_empty() {
            return Err(BadHead::Empty);
        }
        let mut status = None;
        let mut headers = Vec::with_capacity(lines.len());
        for line in lines {
            let colon = line.iter().position(|&b| b == b':');
            let (name, value) = match colon.map(|at| (line[..at].trim_ascii(), line[at + 1..].trim_ascii())) {
                Some((name, value)) if !name.is_empty() => (name, value),
                _ => return Err(BadHead::NoColon(line.escape_ascii().to_string())),
            };
            if name.eq_ignore_ascii_case(b"status") {
                status = Some(parse_status(value).ok_or_else(|| BadHead::BadStatus(line.escape_ascii().to_string()))?);
            } else {
                headers.push((name.to_vec(), value.to_vec()));
            }
        }
        let mut head = Self { status: 200, reason: Vec::new(), headers, redirect: Redirect::None };
        head.redirect = head.get("location").map_or(Redirect::None, |url| redirect(url, status.is_some()));
        match status {
            Some((number, reason)) => (head.status, head.reason) = (number, reason),
            None if matches!(head.redirect, Redirect::Client(_)) => head.status = 302,
            None => {}
        }
        Ok(head)
    }
}

fn parse_status(value: &[u8]) -> Option<(u16, Vec<u8>)> {
    let (number, reason) = value.split_at(value.iter().position(|b| !b.is_ascii_digit()).unwrap_or(value.len()));
    if number.len() != 3 || !matches!(reason.first(), None | Some(b' ' | b'\t')) {
        return None;
    }
    let number = std::str::from_utf8(number).ok()?.parse().ok().filter(|n| *n >= 100)?;
    Some((number, reason.trim_ascii().to_vec()))
}

/// With a status, a path is what the script wants the client to see, as all web servers take it.
fn redirect(url: &[u8], has_status: bool) -> Redirect {
    // Two slashes begin the name of a host.
    let is_path = url.starts_with(b"/") && !url.starts_with(b"//");
    if is_path && !has_status { Redirect::Local(url.to_vec()) } else { Redirect::Client(url.to_vec()) }
}

/// Reads the head of a response as its bytes come. Lines end with LF or CRLF; one that begins with white space goes on
/// with the line before.
#[derive(Debug, Default)]
pub struct HeadParser {
    lines: Vec<Vec<u8>>,
    /// The line that has not come to its end.
    line: Vec<u8>,
    length: usize,
}

impl HeadParser {
    /// A parser that expects the first line.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes off the front of `input`, up to the end of the head; `None` when more are needed. What is left in
    /// `input` behind the head is the beginning of the body.
    ///
    /// # Errors
    /// [`BadHead`]; the parser is of no use afterwards.
    pub fn push(&mut self, input: &mut &[u8]) -> Result<Option<Head>, BadHead> {
        while let Some(end) = input.iter().position(|&b| b == b'\n') {
            self.extend(&input[..end])?;
            self.length += 1;
            *input = &input[end + 1..];
            if self.line.ends_with(b"\r") {
                self.line.pop();
            }
            let line = std::mem::take(&mut self.line);
            match self.lines.last_mut() {
                _ if line.is_empty() => return Head::from_lines(&self.lines).map(Some),
                Some(last) if line.starts_with(b" ") || line.starts_with(b"\t") => {
                    last.push(b' ');
                    last.extend_from_slice(line.trim_ascii());
                }
                _ => self.lines.push(line),
            }
        }
        self.extend(input)?;
        *input = &[];
        Ok(None)
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), BadHead> {
        self.length += bytes.len();
        if self.length > LONGEST_HEAD {
            return Err(BadHead::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &[u8]) -> Result<Option<(Head, &[u8])>, BadHead> {
        let mut input = text;
        Ok(HeadParser::new().push(&mut input)?.map(|head| (head, input)))
    }

    #[test]
    fn heads() {
        let client = |url: &str| Redirect::Client(url.into());
        for (text, status, reason, headers, redirect) in [
            ("Content-Type: text/html\n\nbody", 200, "", "Content-Type=text/html", Redirect::None),
            ("Content-Type: text/html\r\n\r\nbody", 200, "", "Content-Type=text/html", Redirect::None),
            ("Status: 404 Not Here\nX: 1\r\n\nbody", 404, "Not Here", "X=1", Redirect::None),
            ("status:404\n\nbody", 404, "", "", Redirect::None),
            ("X:a:b \nY:\n\nbody", 200, "", "X=a:b,Y=", Redirect::None),
            ("X: one\n  two\r\n\tthree\n\nbody", 200, "", "X=one two three", Redirect::None),
            ("Location: http://o/\n\nbody", 302, "", "Location=http://o/", client("http://o/")),
            ("Location: //o/\n\nbody", 302, "", "Location=//o/", client("//o/")),
            ("LOCATION: /a?b\n\nbody", 200, "", "LOCATION=/a?b", Redirect::Local("/a?b".into())),
            ("Status: 301\nLocation: /a\n\nbody", 301, "", "Location=/a", client("/a")),
            ("Location: /a\nStatus: 201 Made\n\nbody", 201, "Made", "Location=/a", client("/a")),
        ] {
            let (head, rest) = parse(text.as_bytes()).unwrap().expect("complete");
            let text_of = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
            let shown: Vec<String> =
                head.headers.iter().map(|(n, v)| format!("{}={}", text_of(n), text_of(v))).collect();
            assert_eq!((head.status, &*text_of(&head.reason), &*shown.join(",")), (status, reason, headers), "{text}");
            assert_eq!((head.redirect, rest), (redirect, &b"body"[..]), "{text}");
        }
    }

    #[test]
    fn no_heads() {
        assert_eq!(parse(b"Content-Type: text/html\n"), Ok(None));
        for bad in ["no colon\n\n", ": value\n\n", " folded\n\n", "X: 1\nHTTP/1.1 200 OK\n\n"] {
            assert!(matches!(parse(bad.as_bytes()), Err(BadHead::NoColon(_))), "{bad}");
        }
        for bad in ["many", "", "20", "2000", "099", "200OK", "+20"] {
            let text = format!("Status: {bad}\n\n");
            assert!(matches!(parse(text.as_bytes()), Err(BadHead::BadStatus(_))), "{bad}");
        }
        assert_eq!(parse(b"\nbody"), Err(BadHead::Empty));
        assert_eq!(parse(&vec![b'x'; LONGEST_HEAD]), Ok(None));
        assert_eq!(parse(&vec![b'x'; LONGEST_HEAD + 1]), Err(BadHead::TooLong));
        assert_eq!(parse(&b"X: 1\n".repeat(LONGEST_HEAD / 5 + 1)), Err(BadHead::TooLong));
    }

    proptest! {
        #[test]
        fn any_cut_gives_the_same_head(
            text in "([A-Za-z:]{0,6}[ \t]?[a-z/]{0,4}\r?\n){0,6}\r?\n[a-z\n]{0,5}",
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
        ) {
            let bytes = text.as_bytes();
            let mut at: Vec<usize> = cuts.iter().map(|c| c.index(bytes.len() + 1)).chain([0, bytes.len()]).collect();
            at.sort_unstable();
            let mut parser = HeadParser::new();
            let mut result = Ok(None);
            let mut taken = 0;
            for range in at.windows(2) {
                let mut input = &bytes[range[0]..range[1]];
                result = parser.push(&mut input);
                taken = range[1] - input.len();
                if !matches!(result, Ok(None)) {
                    break;
                }
            }
            let whole = parse(bytes);
            match result {
                Ok(head) => prop_assert_eq!(whole, Ok(head.map(|h| (h, &bytes[taken..])))),
                Err(why) => prop_assert_eq!(whole, Err(why)),
            }
        }
    }
}
