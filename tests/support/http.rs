//! A client of web servers: one request on a connection of its own, and its answer as it came.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Longer than any answer takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a client got.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub reason: String,
    /// Header lines, with names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// All values of a header.
    pub fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(n, _)| n == name).map(|(_, value)| &**value).collect()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Asks at this machine's `port`; `headers` are whole lines. The body follows as it is.
pub fn ask(port: u16, request: &str, headers: &str, body: &[u8]) -> Result<Answer, String> {
    let mut socket = connect(port)?;
    let mut sender = socket.try_clone().map_err(|e| e.to_string())?;
    let head = format!("{request} HTTP/1.1\r\nHost: test.example\r\nConnection: close\r\n{headers}\r\n");
    std::thread::scope(|scope| {
        // A server may answer before it has read all.
        scope.spawn(move || sender.write_all(head.as_bytes()).and_then(|()| sender.write_all(body)));
        let mut bytes = Vec::new();
        match socket.read_to_end(&mut bytes) {
            // Some servers reset behind an answer.
            Err(e) if bytes.is_empty() || e.kind() != ErrorKind::ConnectionReset => Err(e.to_string()),
            _ => parse(bytes),
        }
    })
}

pub fn connect(port: u16) -> Result<TcpStream, String> {
    let socket = TcpStream::connect(("127.0.0.1", port)).map_err(|e| format!("cannot connect: {e}"))?;
    socket.set_read_timeout(Some(PATIENCE)).map_err(|e| e.to_string())?;
    Ok(socket)
}

fn parse(mut bytes: Vec<u8>) -> Result<Answer, String> {
    loop {
        let shown = || format!("no HTTP head: {}", String::from_utf8_lossy(&bytes[..bytes.len().min(200)]));
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(shown)?;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end + 4);
        let (first, rest) = head.split_once("\r\n").unwrap_or((&head, ""));
        let mut words = first.splitn(3, ' ');
        let status: u16 = words.nth(1).and_then(|w| w.parse().ok()).ok_or_else(|| format!("no status: {first}"))?;
        let reason = words.next().unwrap_or_default().to_owned();
        // 100 (Continue) and its like stand before the answer.
        if status < 200 {
            continue;
        }
        let headers: Vec<_> = rest
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let is_chunked = headers.iter().any(|(n, v)| n == "transfer-encoding" && v == "chunked");
        let body = if is_chunked && !bytes.is_empty() { without_chunks(&bytes)? } else { bytes };
        return Ok(Answer { status, reason, headers, body });
    }
}

fn without_chunks(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut whole = Vec::with_capacity(rest.len());
    loop {
        let end = rest.windows(2).position(|w| w == b"\r\n").ok_or("a chunk without a length")?;
        let size = std::str::from_utf8(&rest[..end]).ok().and_then(|s| usize::from_str_radix(s, 16).ok());
        let size = size.ok_or("a chunk with a wrong length")?;
        if size == 0 {
            return Ok(whole);
        }
        whole.extend(rest.get(end + 2..end + 2 + size).ok_or("a chunk is cut off")?);
        rest = rest.get(end + 4 + size..).ok_or("a chunk is cut off")?;
    }
}
