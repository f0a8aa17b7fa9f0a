//! Lines of the access log.
//!
//! | | |
//! | --- | --- |
//! | `%%` | a percent sign |
//! | `%R` `%u` | address of the client, its name (`REMOTE_USER`) |
//! | `%m` `%r` `%q` `%Q` | method; URI without its query; the query; `?` where there is one |
//! | `%f` `%l` | script; length of the request's body |
//! | `%s` `%x` `%b` | status, exit status, bytes of the answer's body |
//! | `%d` | time taken, in seconds; `%{milliseconds}d` (also `ms`), `%{microseconds}d` (`us`) |
//! | `%C` | processor time in percent of that; `%{user}C`, `%{system}C` |
//! | `%M` | the most memory that the process had, in bytes; `%{kilo}M`, `%{mega}M` |
//! | `%t` `%T` | when the request began, when the line was written; `%{FORMAT}t` by strftime |
//! | `%{NAME}e` `%{NAME}o` | a variable of the request, a header of the answer |
//! | `%n` `%p` `%P` | pool, process, its parent |
//!
//! What is not known is `-`. Bytes that could end a field or a line are escaped.

use std::io::Write as _;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::log_file::{escape, time};
use crate::protocol::Params;

/// How lines are written: a text with percent signs, or `json`.
///
/// ```
/// assert!("%R %s".parse::<fcgi_core::access_log::Format>().is_ok());
/// assert!("%Z".parse::<fcgi_core::access_log::Format>().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Json,
    Parts(Vec<Part>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(char, Option<String>),
}

/// Why a text is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFormat {
    /// Nothing stands behind the last percent sign, or a brace is not closed.
    #[error("the format ends in the middle of a field")]
    Incomplete,
    /// There is no such field.
    #[error("there is no field %{0}")]
    Unknown(char),
    /// It does not take this in braces.
    #[error("%{1} takes no {{{0}}}")]
    Modifier(String, char),
    /// It needs a name in braces.
    #[error("%{0} needs a name: %{{NAME}}{0}")]
    NeedsName(char),
}

/// What a line is made of.
pub(super) struct Line<'a> {
    pub(super) params: &'a Params,
    pub(super) pool: &'a str,
    pub(super) begun: SystemTime,
    pub(super) duration: Duration,
    pub(super) user: Option<Duration>,
    pub(super) system: Option<Duration>,
    pub(super) memory: u64,
    pub(super) status: u16,
    pub(super) headers: &'a [(Vec<u8>, Vec<u8>)],
    pub(super) bytes: u64,
    pub(super) exit_status: u32,
}

impl FromStr for Format {
    type Err = BadFormat;

    fn from_str(text: &str) -> Result<Self, BadFormat> {
        if text == "json" {
            return Ok(Self(Kind::Json));
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            if at > 0 {
                parts.push(Part::Text(rest[..at].to_owned()));
            }
            rest = &rest[at + 1..];
            let modifier = match rest.strip_prefix('{') {
                Some(inside) => {
                    let (modifier, behind) = inside.split_once('}').ok_or(BadFormat::Incomplete)?;
                    rest = behind;
                    Some(modifier.to_owned())
                }
                None => None,
            };
            let field = rest.chars().next().ok_or(BadFormat::Incomplete)?;
            rest = &rest[field.len_utf8()..];
            check(field, modifier.as_deref())?;
            parts.push(if field == '%' { Part::Text("%".to_owned()) } else { Part::Field(field, modifier) });
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self(Kind::Parts(parts)))
    }
}

const MILLISECONDS: [&str; 4] = ["milliseconds", "miliseconds", "milli", "ms"];
const MICROSECONDS: [&str; 4] = ["microseconds", "micro", "us", "µs"];
const SECONDS: [&str; 2] = ["seconds", "s"];
const KILO: [&str; 2] = ["kilobytes", "kilo"];
const MEGA: [&str; 2] = ["megabytes", "mega"];
const BYTES: [&str; 1] = ["bytes"];

fn check(field: char, modifier: Option<&str>) -> Result<(), BadFormat> {
    let is_allowed = match (field, modifier) {
        ('%' | 'R' | 'u' | 'm' | 'r' | 'q' | 'Q' | 'f' | 'l' | 's' | 'x' | 'b' | 'n' | 'p' | 'P', modifier) => {
            modifier.is_none()
        }
        ('d', Some(unit)) => MILLISECONDS.contains(&unit) || MICROSECONDS.contains(&unit) || SECONDS.contains(&unit),
        ('C', Some(what)) => ["user", "system", "total"].contains(&what),
        ('M', Some(unit)) => KILO.contains(&unit) || MEGA.contains(&unit) || BYTES.contains(&unit),
        ('e' | 'o', None) => return Err(BadFormat::NeedsName(field)),
        ('d' | 'C' | 'M', None) | ('t' | 'T', _) | ('e' | 'o', Some(_)) => true,
        _ => return Err(BadFormat::Unknown(field)),
    };
    match modifier {
        Some(modifier) if !is_allowed => Err(BadFormat::Modifier(modifier.to_owned(), field)),
        _ => Ok(()),
    }
}

impl Format {
    /// A line, with its end.
    pub(super) fn line(&self, line: &Line<'_>) -> Vec<u8> {
        let mut out = Vec::with_capacity(256);
        match &self.0 {
            // Writing to a vector does not fail.
            Kind::Json => drop(write!(out, "{}", line.json())),
            Kind::Parts(parts) => {
                for part in parts {
                    match part {
                        Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                        Part::Field(field, modifier) => line.field(*field, modifier.as_deref(), &mut out),
                    }
                }
            }
        }
        out.push(b'\n');
        out
    }
}

impl Line<'_> {
    fn variable(&self, name: &[u8]) -> &[u8] {
        self.params.get(name).unwrap_or_default()
    }

    /// The URI without its query.
    fn path(&self) -> Vec<u8> {
        let uri = self.variable(b"REQUEST_URI");
        if uri.is_empty() {
            return [self.variable(b"SCRIPT_NAME"), self.variable(b"PATH_INFO")].concat();
        }
        uri.split(|byte| *byte == b'?').next().unwrap_or_default().to_vec()
    }

    fn header(&self, name: &str) -> &[u8] {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        found.map(|(_, value)| &value[..]).unwrap_or_default()
    }

    /// Processor time in percent of the time taken.
    fn share(&self, what: Option<&str>) -> Option<f64> {
        let (user, system) = (self.user?, self.system?);
        let cpu = match what {
            Some("user") => user,
            Some("system") => system,
            _ => user + system,
        };
        let taken = self.duration.as_secs_f64();
        Some(if taken > 0.0 { (cpu.as_secs_f64() / taken * 100.0).min(100.0) } else { 0.0 })
    }

    fn field(&self, field: char, modifier: Option<&str>, out: &mut Vec<u8>) {
        let has = |names: &[&str]| modifier.is_some_and(|modifier| names.contains(&modifier));
        let text = match field {
            'R' => return put(self.variable(b"REMOTE_ADDR"), out),
            'u' => return put(self.variable(b"REMOTE_USER"), out),
            'm' => return put(self.variable(b"REQUEST_METHOD"), out),
            'r' => return put(&self.path(), out),
            'q' => return escape(self.variable(b"QUERY_STRING"), out),
            'Q' => return out.extend_from_slice(if self.variable(b"QUERY_STRING").is_empty() { b"" } else { b"?" }),
            'f' => return put(self.variable(b"SCRIPT_FILENAME"), out),
            'l' => return put(self.variable(b"CONTENT_LENGTH"), out),
            'e' => return put(self.variable(modifier.unwrap_or_default().as_bytes()), out),
            'o' => return put(self.header(modifier.unwrap_or_default()), out),
            's' => self.status.to_string(),
            'x' => self.exit_status.to_string(),
            'b' => self.bytes.to_string(),
            'd' if has(&MILLISECONDS) => format!("{:.3}", self.duration.as_secs_f64() * 1000.0),
            'd' if has(&MICROSECONDS) => self.duration.as_micros().to_string(),
            'd' => format!("{:.3}", self.duration.as_secs_f64()),
            'C' => self.share(modifier).map_or_else(|| "-".to_owned(), |share| format!("{share:.2}")),
            'M' if has(&KILO) => (self.memory >> 10).to_string(),
            'M' if has(&MEGA) => (self.memory >> 20).to_string(),
            'M' => self.memory.to_string(),
            't' => time(self.begun, modifier),
            'T' => time(SystemTime::now(), modifier),
            'n' => self.pool.to_owned(),
            'p' => std::process::id().to_string(),
            'P' => std::os::unix::process::parent_id().to_string(),
            _ => String::new(),
        };
        out.extend_from_slice(text.as_bytes());
    }

    fn json(&self) -> serde_json::Value {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        json!({
            "time": time(self.begun, Some("%Y-%m-%dT%H:%M:%S%.3f%:z")),
            "pool": self.pool,
            "pid": std::process::id(),
            "remote_addr": text(self.variable(b"REMOTE_ADDR")),
            "remote_user": text(self.variable(b"REMOTE_USER")),
            "method": text(self.variable(b"REQUEST_METHOD")),
            "uri": text(&self.path()),
            "query": text(self.variable(b"QUERY_STRING")),
            "script": text(self.variable(b"SCRIPT_FILENAME")),
            "status": self.status,
            "exit_status": self.exit_status,
            "body_bytes": text(self.variable(b"CONTENT_LENGTH")).parse::<u64>().unwrap_or(0),
            "bytes": self.bytes,
            "duration_ms": millis(self.duration),
            "user_ms": self.user.map(millis),
            "system_ms": self.system.map(millis),
            "memory": self.memory,
        })
    }
}

/// A text that may be missing.
fn put(text: &[u8], out: &mut Vec<u8>) {
    escape(if text.is_empty() { b"-" } else { text }, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(format: &str, params: &Params) -> String {
        let line = Line {
            params,
            pool: "web",
            begun: SystemTime::UNIX_EPOCH,
            duration: Duration::from_micros(2500),
            user: Some(Duration::from_millis(1)),
            system: Some(Duration::from_micros(250)),
            memory: 3 << 20,
            status: 201,
            headers: &[(b"X-A".to_vec(), b"one\"".to_vec())],
            bytes: 5,
            exit_status: 3,
        };
        String::from_utf8(format.parse::<Format>().unwrap().line(&line)).unwrap()
    }

    #[test]
    fn fields() {
        let params: Params = [
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/a\n\"b?c=1"),
            ("QUERY_STRING", "c=1"),
            ("REMOTE_ADDR", "::1"),
            ("SCRIPT_FILENAME", "/srv/a.lua"),
        ]
        .into_iter()
        .collect();
        for (format, expected) in [
            ("", ""),
            ("%R - %u \"%m %r%Q%q\" %s", "::1 - - \"GET /a\\x0A\\x22b?c=1\" 201"),
            ("%d %{ms}d %{us}d", "0.003 2.500 2500"),
            ("%C%% %{user}C %{system}C", "50.00% 40.00 10.00"),
            ("%M %{kilo}M %{mega}M", "3145728 3072 3"),
            ("%f %l %x %b %n", "/srv/a.lua - 3 5 web"),
            ("%{REMOTE_ADDR}e %{NONE}e %{x-a}o %{Y}o", "::1 - one\\x22 -"),
            ("%{%Y}t", "1970"),
            ("äö%%ü", "äö%ü"),
        ] {
            assert_eq!(line(format, &params), format!("{expected}\n"), "{format}");
        }
        let json: serde_json::Value = serde_json::from_str(&line("json", &params)).unwrap();
        assert_eq!(
            (&json["uri"], &json["status"], &json["duration_ms"]),
            (&"/a\n\"b".into(), &201.into(), &2.5.into())
        );
    }

    #[test]
    fn what_is_no_format() {
        for (bad, why) in [
            ("%", BadFormat::Incomplete),
            ("%{ms", BadFormat::Incomplete),
            ("%{ms}", BadFormat::Incomplete),
            ("%Z", BadFormat::Unknown('Z')),
            ("%{hours}d", BadFormat::Modifier("hours".to_owned(), 'd')),
            ("%{x}s", BadFormat::Modifier("x".to_owned(), 's')),
            ("%e", BadFormat::NeedsName('e')),
        ] {
            assert_eq!(bad.parse::<Format>(), Err(why), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_a_format_or_not_and_any_line_is_one(
            format in "([a-z %]|%[RumrqQflsxbdCMtTnpP]|%\\{[a-z%]{0,4}\\}[detTo]){0,8}",
            uri in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let mut params = Params::new();
            params.set(b"REQUEST_URI", &uri);
            if format.parse::<Format>().is_ok() {
                let text = line(&format, &params);
                prop_assert_eq!(text.matches('\n').count(), 1);
            }
        }
    }
}
