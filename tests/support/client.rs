//! A FastCGI client written apart from the core, so that both cannot share a mistake. Strict: what a web server would
//! choke on fails the test.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longer than any answer takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What came back for one request.
#[derive(Debug, Default)]
pub struct Reply {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub app_status: u32,
    pub protocol_status: u8,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn errors(&self) -> String {
        String::from_utf8_lossy(&self.stderr).into_owned()
    }
}

pub trait Socket: Read + Write + Send {
    fn copy(&self) -> Box<dyn Socket>;
}

impl Socket for UnixStream {
    fn copy(&self) -> Box<dyn Socket> {
        Box::new(self.try_clone().unwrap())
    }
}

impl Socket for TcpStream {
    fn copy(&self) -> Box<dyn Socket> {
        Box::new(self.try_clone().unwrap())
    }
}

/// Connects to `unix:PATH` or `HOST:PORT`, waiting until somebody listens.
pub fn connect(address: &str) -> Box<dyn Socket> {
    let end = Instant::now() + PATIENCE;
    loop {
        let result: std::io::Result<Box<dyn Socket>> = match address.strip_prefix("unix:") {
            Some(path) => UnixStream::connect(path).map(|s| {
                s.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(s) as Box<dyn Socket>
            }),
            None => TcpStream::connect(address).map(|s| {
                s.set_read_timeout(Some(PATIENCE)).unwrap();
                Box::new(s) as Box<dyn Socket>
            }),
        };
        match result {
            Ok(socket) => return socket,
            Err(e) if Instant::now() > end => panic!("nobody listens on {address}: {e}"),
            Err(_) => std::thread::sleep(Duration::from_millis(5)),
        }
    }
}

pub fn record(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("a record's content");
    let padding = (8 - content.len() % 8) % 8;
    let mut bytes = vec![1, kind];
    bytes.extend(id.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes.extend([padding as u8, 0]);
    bytes.extend(content);
    bytes.resize(bytes.len() + padding, 0x55);
    bytes
}

pub fn stream(kind: u8, id: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in data.chunks(65_528) {
        bytes.extend(record(kind, id, part));
    }
    bytes.extend(record(kind, id, b""));
    bytes
}

pub fn params(pairs: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in pairs {
        for length in [name.len(), value.len()] {
            if length < 128 {
                bytes.push(length as u8);
            } else {
                bytes.extend((length as u32 | 0x8000_0000).to_be_bytes());
            }
        }
        bytes.extend(name.as_bytes());
        bytes.extend(*value);
    }
    bytes
}

/// The records of a request: role 1 is a responder, 2 an authorizer, 3 a filter.
pub fn request(id: u16, role: u8, keep: bool, pairs: &[(&str, &[u8])], body: &[u8]) -> Vec<u8> {
    let mut bytes = record(1, id, &[0, role, u8::from(keep), 0, 0, 0, 0, 0]);
    bytes.extend(stream(4, id, &params(pairs)));
    if role != 2 {
        bytes.extend(stream(5, id, body));
    }
    bytes
}

/// Reads the answer of one request, and nothing else.
pub fn read_reply(socket: &mut dyn Socket, id: u16) -> Reply {
    let mut reply = Reply::default();
    let mut stdout_ended = false;
    loop {
        let mut header = [0; 8];
        socket.read_exact(&mut header).expect("a record before the connection ends");
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]]))];
        socket.read_exact(&mut content).expect("a record's content");
        socket.read_exact(&mut vec![0; usize::from(header[6])]).expect("a record's padding");
        assert_eq!(header[0], 1, "version");
        assert_eq!(u16::from_be_bytes([header[2], header[3]]), id, "request id");
        match header[1] {
            6 if content.is_empty() => stdout_ended = true,
            6 => {
                assert!(!stdout_ended, "output after its end");
                reply.stdout.extend(content);
            }
            7 => reply.stderr.extend(content),
            3 => {
                assert_eq!(content.len(), 8, "END_REQUEST");
                reply.app_status = u32::from_be_bytes(content[..4].try_into().unwrap());
                reply.protocol_status = content[4];
                assert!(stdout_ended || reply.protocol_status != 0, "output is ended before the request");
                return reply;
            }
            other => panic!("record type {other} in an answer"),
        }
    }
}

/// One request on a connection of its own, as most web servers send it. Fails unless the application closes.
pub fn call(address: &str, pairs: &[(&str, &[u8])], body: &[u8]) -> Reply {
    let mut socket = connect(address);
    let bytes = request(1, 1, false, pairs, body);
    let mut sender = socket.copy();
    // An application may answer before it has read all.
    let sending = std::thread::spawn(move || drop(sender.write_all(&bytes)));
    let reply = read_reply(&mut *socket, 1);
    assert_eq!(socket.read(&mut [0]).unwrap_or(0), 0, "the connection is closed behind the answer");
    sending.join().unwrap();
    reply
}
