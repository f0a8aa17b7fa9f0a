//! Addresses as the command line says them: `unix:/run/app.sock`, `127.0.0.1:9000`, `[::1]:9000`, `fd:3`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// Where a server listens, or where a client connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix domain socket in the file system.
    Unix(PathBuf),
    /// A host (name or address; `*` for any) and a port.
    Tcp {
        /// Name, IPv4 or IPv6 address, without brackets.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// A descriptor that the process was started with.
    Fd(i32),
}

/// The text is none of the forms.
#[derive(Debug, Clone, thiserror::Error)]
#[error("'{0}' is no address: write unix:PATH, HOST:PORT, [IPV6]:PORT, *:PORT or fd:N")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with(['/', '.']).then_some(text)) {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        if let Some(number) = text.strip_prefix("fd:") {
            return number.parse().ok().filter(|n| *n >= 0).map(Self::Fd).ok_or_else(bad);
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("127.0.0.1", text));
        let port = port.parse().map_err(|_| bad())?;
        let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
            Some(inner) => inner,
            None if host.contains(':') => return Err(bad()),
            None if host.is_empty() => "*",
            None => host,
        };
        Ok(Self::Tcp { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Fd(number) => write!(f, "fd:{number}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("unix:/run/a.sock", "unix:/run/a.sock"),
            ("/run/a.sock", "unix:/run/a.sock"),
            ("./a.sock", "unix:./a.sock"),
            ("127.0.0.1:9000", "127.0.0.1:9000"),
            ("[::1]:9000", "[::1]:9000"),
            ("localhost:0", "localhost:0"),
            (":9000", "*:9000"),
            ("9000", "127.0.0.1:9000"),
            ("fd:3", "fd:3"),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), shown);
        }
        for bad in ["", "unix:", "host", "host:port", "host:70000", "::1:9000", "fd:", "fd:-1"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
