//! A socket for the status alone (`--status-listen`): a thread of the parent answers there, whatever the workers do. It speaks
//! FastCGI, for web servers, and HTTP, for Prometheus and for a look by hand: the first byte tells which.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use socket2::Socket;

use super::Desk;
use crate::listener::{AllowList, Listener};
use crate::poll::{Interest, wait_for};
use crate::protocol::session::Event;
use crate::protocol::values::Values;
use crate::protocol::{Limits, Params, ProtocolStatus, RecordType, Session, encoder};
use crate::signals;

/// The longest request.
const LONGEST: usize = 64 << 10;
/// How long one may take to come, and its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long clients can hold a reload up.
const PAUSE: Duration = Duration::from_secs(1);
/// Connections at once.
const MOST: usize = 32;
/// Answers are made and sent, no more: little stack is needed.
const STACK: usize = 256 << 10;

/// A socket that is answered at.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// Held while a connection is accepted.
    gate: Arc<Mutex<()>>,
    /// Connections that are being answered.
    count: Arc<AtomicUsize>,
}

impl Window {
    /// Answers at this socket until the process ends.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn open(listener: Listener, allowed: AllowList, desk: Arc<Desk>) -> io::Result<Self> {
        let window = Self::default();
        let this = window.clone();
        // Signals are for the parent's own thread: what this one heard would be lost when the parent becomes another program.
        let answer = move || {
            while let Ok(true) = wait_for(&listener, Interest { read: true, write: false }, None) {
                if let Err(e) = this.accept(&listener, &allowed, &desk) {
                    tracing::error!("cannot accept connections for the status: {e}");
                    thread::sleep(Duration::from_secs(1));
                }
            }
        };
        signals::all_held_back(|| thread().spawn(answer))??;
        Ok(window)
    }

    /// Waits until what has been accepted is answered. Nothing more is accepted as long as the result is kept: the process is
    /// about to become another one.
    pub(crate) fn pause(&self) -> MutexGuard<'_, ()> {
        let gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let end = Instant::now() + PAUSE;
        while self.count.load(SeqCst) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
        gate
    }

    fn accept(&self, listener: &Listener, allowed: &AllowList, desk: &Arc<Desk>) -> io::Result<()> {
        let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(socket) = listener.accept(allowed)? else { return Ok(()) };
        if self.count.load(SeqCst) >= MOST {
            return Ok(());
        }
        self.count.fetch_add(1, SeqCst);
        let (count, desk) = (self.count.clone(), desk.clone());
        let served = thread().spawn(move || {
            // A client that breaks off is its own business.
            let _ = serve(socket, &desk);
            count.fetch_sub(1, SeqCst);
        });
        if served.is_err() {
            self.count.fetch_sub(1, SeqCst);
        }
        served.map(drop)
    }
}

fn thread() -> thread::Builder {
    thread::Builder::new().name("status".to_owned()).stack_size(STACK)
}

fn serve(socket: OwnedFd, desk: &Desk) -> io::Result<()> {
    let mut socket = Socket::from(socket);
    socket.set_nonblocking(false)?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let end = Instant::now() + PATIENCE;
    let mut request = Vec::new();
    let mut block = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || request.len() > LONGEST {
            return Ok(());
        }
        socket.set_read_timeout(Some(left))?;
        let count = socket.read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        request.extend_from_slice(&block[..count]);
        let answer = if request[0] == 1 { by_fastcgi(&request, desk) } else { by_http(&request, desk) };
        if let Some(answer) = answer {
            socket.write_all(&answer)?;
            socket.shutdown(Shutdown::Write)?;
            // Closed with something unread, a connection is reset, and with it goes the answer.
            while Instant::now() < end && socket.read(&mut block)? > 0 {}
            return Ok(());
        }
    }
}

/// The answer to a request by FastCGI, once it is complete.
fn by_fastcgi(mut bytes: &[u8], desk: &Desk) -> Option<Vec<u8>> {
    let (limits, values) = (Limits::default(), Values { max_connections: MOST, max_requests: 1 });
    let (mut session, mut out) = (Session::new(), Vec::new());
    loop {
        match session.receive(&mut bytes, &limits, &values, &mut out) {
            Ok(Some(Event::Params { id, params })) => {
                let page = desk.answer(&params).unwrap_or_else(|| NOT_HERE.to_vec());
                encoder::stream(RecordType::Stdout, id, &page, &mut out);
                encoder::end_stream(RecordType::Stdout, id, &mut out);
                encoder::end_request(id, 0, ProtocolStatus::RequestComplete, &mut out);
                return Some(out);
            }
            Ok(Some(_)) => {}
            // What a server asks of us without a request is answered as well.
            Ok(None) => return Some(out).filter(|out| !out.is_empty()),
            Err(_) => return Some(Vec::new()),
        }
    }
}

const NOT_HERE: &[u8] = b"Status: 404 Not Found\r\nContent-Type: text/plain\r\n\r\nonly the status is here\n";

/// The answer to a request by HTTP, once its head is complete.
fn by_http(bytes: &[u8], desk: &Desk) -> Option<Vec<u8>> {
    let is_complete = bytes.windows(4).any(|end| end == b"\r\n\r\n") || bytes.windows(2).any(|end| end == b"\n\n");
    let first = bytes.split(|byte| *byte == b'\n').next()?;
    let mut words = first.trim_ascii_end().split(|byte| *byte == b' ');
    let (method, uri) = (words.next()?, words.next().unwrap_or_default());
    if !is_complete {
        return None;
    }
    let query = uri.iter().position(|byte| *byte == b'?').map(|at| &uri[at + 1..]).unwrap_or_default();
    let mut params = Params::new();
    params.set(b"REQUEST_METHOD", method);
    params.set(b"REQUEST_URI", uri);
    params.set(b"QUERY_STRING", query);
    let page = desk.answer(&params);
    let status: &[u8] = match (&page, method) {
        (_, b"GET" | b"HEAD") if page.is_some() => b"200 OK",
        (_, b"GET" | b"HEAD") => b"404 Not Found",
        _ => b"405 Method Not Allowed",
    };
    let page =
        page.filter(|_| status.starts_with(b"200")).unwrap_or_else(|| b"Content-Type: text/plain\r\n\r\n".to_vec());
    let body = page.windows(4).position(|end| end == b"\r\n\r\n").map_or(page.len(), |at| at + 4);
    let length = format!("Content-Length: {}\r\nConnection: close\r\n", page.len() - body);
    let mut out = [b"HTTP/1.1 ", status, b"\r\n", length.as_bytes(), &page[..body]].concat();
    if method != b"HEAD" {
        out.extend_from_slice(&page[body..]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn desk() -> Desk {
        Desk { ping: Some("/ping".to_owned()), pong: "pong".to_owned(), ..Desk::default() }
    }

    #[test]
    fn http() {
        let answer = |text: &str| by_http(text.as_bytes(), &desk()).map(|answer| String::from_utf8(answer).unwrap());
        assert_eq!(answer("GET /ping HTTP/1.1\r\nHost: a\r\n"), None);
        let whole = answer("GET /ping?x HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(whole.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"), "{whole}");
        assert!(whole.ends_with("\r\n\r\npong"), "{whole}");
        let head = answer("HEAD /ping HTTP/1.0\n\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(
            answer("GET / HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n")
        );
        assert!(answer("POST /ping HTTP/1.1\r\n\r\n").unwrap().starts_with("HTTP/1.1 405 "));
        assert!(answer("\r\n\r\n").unwrap().starts_with("HTTP/1.1 405 "));
    }

    #[test]
    fn fastcgi_in_any_pieces() {
        let params: Params = [("REQUEST_URI", "/ping")].into_iter().collect();
        let mut request = Vec::new();
        encoder::request_head(1, crate::Role::Responder, false, &params, &mut request);
        let whole = by_fastcgi(&request, &desk()).unwrap();
        assert!(whole.windows(4).any(|part| part == b"pong"));
        for end in 0..request.len() - 8 {
            assert_eq!(by_fastcgi(&request[..end], &desk()), None, "{end}");
        }
        assert_eq!(by_fastcgi(&[1, 2, 3, 4, 5], &desk()), None);
    }
}
