//! The head of a CGI response as the head of an HTTP response.

use hyper::StatusCode;
use hyper::ext::ReasonPhrase;
use hyper::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};

use crate::response::{self, Redirect};

/// Headers that are between this server and its client, not the script's to say.
const HOP_BY_HOP: [&str; 7] =
    ["connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"];

/// Status and headers of an answer.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    /// What the script calls its status, where it says so.
    pub(super) reason: Option<ReasonPhrase>,
    pub(super) headers: HeaderMap,
    /// The path that is to be answered instead.
    pub(super) local_redirect: Option<Vec<u8>>,
}

/// Why a head cannot be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadHead {
    #[error(transparent)]
    Unread(#[from] response::BadHead),
    #[error("the answer has status {0}, which cannot be its last")]
    Informational(u16),
    #[error("the header of the answer has a wrong Content-Length: {0}")]
    Length(String),
}

impl TryFrom<response::Head> for Head {
    type Error = BadHead;

    fn try_from(head: response::Head) -> Result<Self, BadHead> {
        let status = StatusCode::from_u16(head.status).ok().filter(|s| !s.is_informational());
        let status = status.ok_or(BadHead::Informational(head.status))?;
        let mut headers = HeaderMap::with_capacity(head.headers.len());
        for (name, value) in &head.headers {
            let dropped = |other: &str| other.as_bytes().eq_ignore_ascii_case(name);
            if HOP_BY_HOP.into_iter().any(dropped) || is_named_by_connection(&head, name) {
                continue;
            }
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            } else {
                tracing::warn!("a header that HTTP does not allow is left out: {}", name.escape_ascii());
            }
        }
        if status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED {
            headers.remove(CONTENT_LENGTH);
        }
        check_length(&mut headers)?;
        let reason = ReasonPhrase::try_from(head.reason).ok().filter(|r| !r.as_bytes().is_empty());
        let local_redirect = if let Redirect::Local(url) = head.redirect { Some(url) } else { None };
        Ok(Self { status, reason, headers, local_redirect })
    }
}

fn is_named_by_connection(head: &response::Head, name: &[u8]) -> bool {
    let lists = head.headers.iter().filter(|(n, _)| n.eq_ignore_ascii_case(b"connection"));
    lists.flat_map(|(_, list)| list.split(|b| *b == b',')).any(|option| option.trim_ascii().eq_ignore_ascii_case(name))
}

/// Two lengths, or one that is none, would let client and server disagree on where the answer ends.
fn check_length(headers: &mut HeaderMap) -> Result<(), BadHead> {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lengths.next().cloned() else { return Ok(()) };
    let is_number = first.as_bytes().iter().all(u8::is_ascii_digit) && !first.is_empty() && first.len() < 20;
    if let Some(bad) = lengths.find(|other| **other != first).or((!is_number).then_some(&first)) {
        return Err(BadHead::Length(bad.as_bytes().escape_ascii().to_string()));
    }
    headers.insert(CONTENT_LENGTH, first);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, BadHead> {
        response::HeadParser::new().push(&mut text.as_bytes())?.expect("complete").try_into()
    }

    #[test]
    fn heads() {
        for (text, status, reason, headers, local) in [
            ("Content-Type: text/html\n\n", 200, None, "content-type=text/html", None),
            ("Status: 404 Not Here\nX: 1\n\n", 404, Some("Not Here"), "x=1", None),
            ("Location: http://other/\n\n", 302, None, "location=http://other/", None),
            ("Location: /here?x\n\n", 200, None, "location=/here?x", Some("/here?x")),
            ("Set-Cookie: a\nSet-Cookie: b\n\n", 200, None, "set-cookie=a,set-cookie=b", None),
            ("Transfer-Encoding: chunked\nX: 1\nConnection: close\n\n", 200, None, "x=1", None),
            ("X: 1\nY: 2\nconnection: a, x\nConnection: z\nZ: 3\n\n", 200, None, "y=2", None),
            ("Content-Length: 5\ncontent-length: 5\n\n", 200, None, "content-length=5", None),
            ("Status: 304\nContent-Length: 5\n\n", 304, None, "", None),
            ("Status: 204\nContent-Length: x\n\n", 204, None, "", None),
            ("no header name: 1\nX: \u{1}\nY: 1\n\n", 200, None, "y=1", None),
        ] {
            let head = head(text).unwrap();
            let shown: Vec<String> = head.headers.iter().map(|(n, v)| format!("{n}={}", v.to_str().unwrap())).collect();
            assert_eq!((head.status.as_u16(), &*shown.join(",")), (status, headers), "{text}");
            assert_eq!(head.reason, reason.map(|r: &str| ReasonPhrase::from_static(r.as_bytes())), "{text}");
            assert_eq!(head.local_redirect.as_deref(), local.map(str::as_bytes), "{text}");
        }
    }

    #[test]
    fn no_heads() {
        assert_eq!(head("Status: 100\n\n").unwrap_err(), BadHead::Informational(100));
        assert!(matches!(head("no colon\n\n"), Err(BadHead::Unread(_))));
        for bad in ["", "five", "+5", "-1", "5, 5", "99999999999999999999"] {
            assert!(matches!(head(&format!("Content-Length: {bad}\n\n")), Err(BadHead::Length(_))), "{bad}");
        }
        assert!(matches!(head("Content-Length: 5\nContent-Length: 6\n\n"), Err(BadHead::Length(_))));
    }
}
