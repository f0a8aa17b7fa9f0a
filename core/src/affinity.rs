//! Session affinity: requests of one session go to the same interpreter of a process, so that what a script keeps for a
//! user (a cache, say) is found again.
//!
//! # The rule
//!
//! * A request without a session, or of a session that is new, goes to any idle thread, and that thread becomes the
//!   session's home.
//! * A request of a known session goes to its home: at once when that is idle, otherwise as soon as it is, but at most
//!   [`Affinity::patience`] later. Then any idle thread takes it, and becomes the session's home.
//! * Some thousand sessions are remembered. One that is forgotten is new again.
//!
//! It is a preference, never a promise: what must not be lost does not belong into an interpreter's memory.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;
use std::time::Duration;

use crate::protocol::Params;

/// What makes requests a session, and how long they wait for their home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affinity {
    /// Where the session is named.
    pub source: Source,
    /// How long a request waits while its home works on another one.
    pub patience: Duration,
}

/// Where a request names its session. Written as `cookie:NAME`, `header:NAME` or `param:NAME`.
///
/// ```
/// use fcgi_core::affinity::Source;
///
/// let mut params = fcgi_core::Params::new();
/// params.set(b"HTTP_COOKIE", b"theme=dark; sid=abc");
/// let source: Source = "cookie:sid".parse()?;
/// assert_eq!(source.session(&params), Some(&b"abc"[..]));
/// # Ok::<(), fcgi_core::affinity::BadSource>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    kind: Kind,
    name: String,
    /// The variable that holds it.
    variable: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Cookie,
    Header,
    Param,
}

/// Why a text names no [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write cookie:NAME, header:NAME or param:NAME")]
pub struct BadSource;

impl FromStr for Source {
    type Err = BadSource;

    fn from_str(text: &str) -> Result<Self, BadSource> {
        let (kind, name) = text.split_once(':').filter(|(_, name)| !name.is_empty()).ok_or(BadSource)?;
        let (kind, variable) = match kind {
            "cookie" => (Kind::Cookie, "HTTP_COOKIE".to_owned()),
            // As RFC 3875, section 4.1.18, names the variable of a header.
            "header" => (Kind::Header, format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"))),
            "param" => (Kind::Param, name.to_owned()),
            _ => return Err(BadSource),
        };
        Ok(Self { kind, name: name.to_owned(), variable })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Cookie => "cookie",
            Kind::Header => "header",
            Kind::Param => "param",
        };
        write!(f, "{kind}:{}", self.name)
    }
}

impl Source {
    /// The session that a request names, if it names one.
    pub fn session<'a>(&self, params: &'a Params) -> Option<&'a [u8]> {
        let value = params.get(self.variable.as_bytes())?;
        let session = if self.kind == Kind::Cookie { cookie(value, self.name.as_bytes())? } else { value };
        Some(session).filter(|s| !s.is_empty())
    }
}

/// The value of a cookie (RFC 6265, section 4.2.1); of several with one name the first, which is the most specific.
fn cookie<'a>(header: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    header.split(|&b| b == b';').find_map(|pair| {
        let at = pair.iter().position(|&b| b == b'=')?;
        (pair[..at].trim_ascii() == name).then(|| pair[at + 1..].trim_ascii())
    })
}

/// The homes of sessions: a table of fixed size, in which a newer session can push an older one out.
#[derive(Debug)]
pub(crate) struct Homes {
    places: Vec<(u64, u16)>,
    /// Keyed anew for each server: a client cannot find out what would push others out.
    hasher: RandomState,
}

/// A session, as the table knows it. No session is 0.
pub(crate) type Session = u64;

impl Homes {
    const PLACES: usize = 16 << 10;
    const NOBODY: (u64, u16) = (0, 0);

    pub(crate) fn new() -> Self {
        Self { places: vec![Self::NOBODY; Self::PLACES], hasher: RandomState::new() }
    }

    pub(crate) fn session(&self, name: &[u8]) -> Session {
        self.hasher.hash_one(name).max(1)
    }

    pub(crate) fn of(&self, session: Session) -> Option<u16> {
        let (known, home) = self.places[Self::place(session)];
        (known == session).then_some(home)
    }

    pub(crate) fn set(&mut self, session: Session, home: u16) {
        self.places[Self::place(session)] = (session, home);
    }

    fn place(session: Session) -> usize {
        (session % Self::PLACES as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources() {
        let mut params = Params::new();
        params.set(b"HTTP_COOKIE", b"a=1;sid = x=y ; sid=later; b=");
        params.set(b"HTTP_X_SESSION", b"h");
        params.set(b"REMOTE_USER", b"\xff");
        for (text, session) in [
            ("cookie:sid", Some(&b"x=y"[..])),
            ("cookie:a", Some(b"1")),
            ("cookie:b", None),
            ("cookie:si", None),
            ("header:X-Session", Some(b"h")),
            ("header:x-none", None),
            ("param:REMOTE_USER", Some(b"\xff")),
        ] {
            let source: Source = text.parse().unwrap();
            assert_eq!(source.session(&params), session, "{text}");
            assert_eq!(source.to_string(), text);
        }
        for bad in ["", "cookie", "cookie:", "Cookie:a", "query:a", ":a"] {
            assert_eq!(bad.parse::<Source>(), Err(BadSource), "{bad}");
        }
    }

    #[test]
    fn homes_are_remembered_until_they_are_pushed_out() {
        let mut homes = Homes::new();
        let session = homes.session(b"anna");
        assert_eq!(homes.of(session), None);
        homes.set(session, 3);
        assert_eq!(homes.of(session), Some(3));
        let rival = session.wrapping_add(Homes::PLACES as u64);
        assert_eq!(homes.of(rival), None);
        homes.set(rival, 1);
        assert_eq!((homes.of(session), homes.of(rival)), (None, Some(1)));
    }
}
