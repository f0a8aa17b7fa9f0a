//! A request from the environment and the standard streams: what a CGI program gets (RFC 3875).
//!
//! A program that loops over [`Server::accept`](crate::Server::accept) under FastCGI takes [`request`] once under CGI,
//! and is the same program otherwise.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;

use crate::protocol::{Params, Role};
use crate::request::{Input, Request, Transport};

/// Whether a web server started this process as a CGI program: it says which protocol version, or at least which method.
pub fn is_cgi() -> bool {
    ["GATEWAY_INTERFACE", "REQUEST_METHOD"].iter().any(|name| std::env::var_os(name).is_some())
}

/// The request that this process was started for.
///
/// ```no_run
/// use std::io::Write;
///
/// let mut request = fcgi_core::cgi::request();
/// write!(request.stdout(), "Content-Type: text/plain\r\n\r\nhello\n")?;
/// request.finish(0)?;
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn request() -> Request {
    let mut params = request_variables();
    let role = params.get_str("FCGI_ROLE").and_then(Role::from_name).unwrap_or(Role::Responder);
    params.set(b"FCGI_ROLE", role.name().as_bytes());
    let length = params.get_str("CONTENT_LENGTH").and_then(|text| text.parse().ok());
    Request::new(role, params, Box::new(StandardStreams { left: length, ended: false }))
}

/// The environment as a request's variables.
pub fn request_variables() -> Params {
    let bytes = |text: &OsStr| text.as_bytes().to_vec();
    let mut params: Params = std::env::vars_os().map(|(name, value)| (bytes(&name), bytes(&value))).collect();
    params.remove(b"HTTP_PROXY");
    params
}

/// Standard input, output and error as a request's streams. CGI has no stream of its own for a Filter's file.
struct StandardStreams {
    /// Bytes of the body that are still to come, if the server said how many there are: a server need not end its pipe
    /// behind the body.
    left: Option<u64>,
    ended: bool,
}

impl Transport for StandardStreams {
    fn read(&mut self, input: Input, buf: &mut [u8]) -> io::Result<usize> {
        if input == Input::Data || self.ended {
            return Ok(0);
        }
        let want = self.left.map_or(buf.len(), |left| buf.len().min(usize::try_from(left).unwrap_or(usize::MAX)));
        let count = if want == 0 { 0 } else { io::stdin().lock().read(&mut buf[..want])? };
        self.left = self.left.map(|left| left - count as u64);
        self.ended = count == 0;
        Ok(count)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stdout().lock().write_all(bytes)
    }

    fn write_error(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stderr().lock().write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }

    fn is_aborted(&mut self) -> bool {
        false
    }

    fn finish(&mut self, _status: u32) -> io::Result<()> {
        self.ended = true;
        io::stdout().lock().flush()
    }
}
