//! A FastCGI client for tests, written from the specification and apart from the library, so that both cannot be wrong
//! in the same way. It is strict: whatever an application may not send is a failure of the test.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use fcgi_core::Address;

pub const BEGIN: u8 = 1;
pub const ABORT: u8 = 2;
pub const END: u8 = 3;
pub const PARAMS: u8 = 4;
pub const STDIN: u8 = 5;
pub const STDOUT: u8 = 6;
pub const STDERR: u8 = 7;
pub const DATA: u8 = 8;
pub const GET_VALUES: u8 = 9;
pub const GET_VALUES_RESULT: u8 = 10;
pub const UNKNOWN_TYPE: u8 = 11;

pub const RESPONDER: u16 = 1;
pub const AUTHORIZER: u16 = 2;
pub const FILTER: u16 = 3;

pub const CLOSE: u8 = 0;
pub const KEEP: u8 = 1;

pub const COMPLETE: u8 = 0;
pub const OVERLOADED: u8 = 2;
pub const UNKNOWN_ROLE: u8 = 3;

/// How long a test waits for anything before it fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of records, in the order in which they are added.
#[derive(Clone, Default)]
pub struct Wire {
    pub bytes: Vec<u8>,
    padding: u8,
}

impl Wire {
    pub fn new() -> Self {
        Self::default()
    }

    /// Every record from here on is followed by this much padding.
    pub fn padding(mut self, padding: u8) -> Self {
        self.padding = padding;
        self
    }

    pub fn record(mut self, kind: u8, id: u16, content: &[u8]) -> Self {
        let len = u16::try_from(content.len()).unwrap().to_be_bytes();
        let id = id.to_be_bytes();
        self.bytes.extend_from_slice(&[1, kind, id[0], id[1], len[0], len[1], self.padding, 0]);
        self.bytes.extend_from_slice(content);
        // Padding that would be misread as a header of another version if it were not skipped.
        self.bytes.resize(self.bytes.len() + usize::from(self.padding), 0xEE);
        self
    }

    pub fn begin(self, id: u16, role: u16, flags: u8) -> Self {
        let role = role.to_be_bytes();
        self.record(BEGIN, id, &[role[0], role[1], flags, 0, 0, 0, 0, 0])
    }

    /// Content of a stream, in records as long as they may be.
    pub fn stream(mut self, kind: u8, id: u16, content: &[u8]) -> Self {
        for part in content.chunks(65_535) {
            self = self.record(kind, id, part);
        }
        self
    }

    pub fn end(self, kind: u8, id: u16) -> Self {
        self.record(kind, id, &[])
    }

    pub fn params(self, id: u16, pairs: &[(&str, &str)]) -> Self {
        self.stream(PARAMS, id, &encode(pairs)).end(PARAMS, id)
    }

    /// A responder's request up to the end of its parameters.
    pub fn head(self, id: u16, flags: u8, pairs: &[(&str, &str)]) -> Self {
        self.begin(id, RESPONDER, flags).params(id, pairs)
    }

    /// A whole responder's request.
    pub fn request(self, id: u16, flags: u8, pairs: &[(&str, &str)], body: &[u8]) -> Self {
        self.head(id, flags, pairs).stream(STDIN, id, body).end(STDIN, id)
    }
}

fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
    pairs.iter().flat_map(|(name, value)| pair(name.as_bytes(), value.as_bytes())).collect()
}

/// A name-value pair with the shortest lengths.
pub fn pair(name: &[u8], value: &[u8]) -> Vec<u8> {
    pair_as(name, value, name.len() > 127, value.len() > 127)
}

/// A name-value pair whose lengths take one byte or four, as asked.
pub fn pair_as(name: &[u8], value: &[u8], long_name: bool, long_value: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (part, long) in [(name, long_name), (value, long_value)] {
        if long {
            bytes.extend_from_slice(&(u32::try_from(part.len()).unwrap() | 0x8000_0000).to_be_bytes());
        } else {
            assert!(part.len() < 128);
            bytes.push(part.len() as u8);
        }
    }
    [&bytes[..], name, value].concat()
}

/// Reads short-form pairs, as answers to GET_VALUES have them.
pub fn short_pairs(mut bytes: &[u8]) -> HashMap<String, String> {
    let mut pairs = HashMap::new();
    while !bytes.is_empty() {
        let (name_len, value_len) = (usize::from(bytes[0]), usize::from(bytes[1]));
        assert!(name_len < 128 && value_len < 128);
        let text = |range: std::ops::Range<usize>| String::from_utf8(bytes[range].to_vec()).unwrap();
        let (name, value) = (text(2..2 + name_len), text(2 + name_len..2 + name_len + value_len));
        assert!(pairs.insert(name, value).is_none(), "a name twice");
        bytes = &bytes[2 + name_len + value_len..];
    }
    pairs
}

#[derive(Debug, PartialEq)]
pub struct Record {
    pub kind: u8,
    pub id: u16,
    pub content: Vec<u8>,
}

/// All that an application said about one request.
#[derive(Debug, Default)]
pub struct Answer {
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub stderr_used: bool,
    pub stdout_records: usize,
    pub app_status: u32,
    pub protocol_status: u8,
    stdout_ended: bool,
    stderr_ended: bool,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// What follows the header, of an answer that is complete and has no errors.
    pub fn body(&self) -> &[u8] {
        assert_eq!((self.protocol_status, self.app_status), (COMPLETE, 0), "{}", self.text());
        let at = self.stdout.windows(4).position(|w| w == b"\r\n\r\n").expect("a header");
        &self.stdout[at + 4..]
    }

    pub fn body_text(&self) -> String {
        String::from_utf8(self.body().to_vec()).unwrap()
    }

    /// Takes a record; whether it was the last.
    fn take(&mut self, record: &Record) -> bool {
        match record.kind {
            STDOUT => {
                assert!(!self.stdout_ended, "STDOUT after its end");
                self.stdout_records += 1;
                self.stdout_ended = record.content.is_empty();
                self.stdout.extend_from_slice(&record.content);
            }
            STDERR => {
                assert!(!self.stderr_ended, "STDERR after its end");
                self.stderr_used = true;
                self.stderr_ended = record.content.is_empty();
                self.stderr.extend_from_slice(&record.content);
            }
            END => {
                let body: [u8; 8] = record.content[..].try_into().expect("END_REQUEST has eight bytes");
                assert_eq!(body[5..], [0; 3], "reserved bytes");
                self.app_status = u32::from_be_bytes(body[..4].try_into().unwrap());
                self.protocol_status = body[4];
                assert!(self.stdout_ended || self.stdout_records == 0, "STDOUT was not ended");
                assert!(self.stderr_ended || !self.stderr_used, "STDERR was not ended");
                return true;
            }
            other => panic!("record of type {other} for request {}", record.id),
        }
        false
    }
}

trait Socket: Read + Write + AsFd + Send {}
impl<T: Read + Write + AsFd + Send> Socket for T {}

pub struct Client {
    socket: Box<dyn Socket>,
    buffer: Vec<u8>,
    open: HashMap<u16, Answer>,
}

impl Client {
    pub fn connect(address: &Address) -> Self {
        Self::try_connect(address).unwrap_or_else(|e| panic!("{address}: {e}"))
    }

    pub fn try_connect(address: &Address) -> std::io::Result<Self> {
        let socket: Box<dyn Socket> = match address {
            Address::Unix(path) => {
                let socket = UnixStream::connect(path)?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                Box::new(socket)
            }
            Address::Tcp { host, port } => {
                let socket = TcpStream::connect((&host[..], *port))?;
                socket.set_read_timeout(Some(PATIENCE))?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket.set_nodelay(true)?;
                Box::new(socket)
            }
            Address::Fd(_) => panic!("not an address to connect to"),
        };
        Ok(Self { socket, buffer: Vec::new(), open: HashMap::new() })
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    pub fn send(&mut self, wire: &Wire) {
        self.send_bytes(&wire.bytes);
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).expect("the server takes what is sent");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Another handle on the socket, to write from a second thread.
    pub fn writer(&self) -> std::fs::File {
        std::fs::File::from(self.socket.as_fd().try_clone_to_owned().unwrap())
    }

    /// Ends the sending side only.
    pub fn half_close(&self) {
        rustix::net::shutdown(self.fd(), rustix::net::Shutdown::Write).unwrap();
    }

    /// The next record; `None` when the connection ends between two records.
    pub fn next(&mut self) -> Option<Record> {
        if !self.fill(8) {
            assert!(self.buffer.is_empty(), "the connection ended inside a header");
            return None;
        }
        let len = usize::from(u16::from_be_bytes([self.buffer[4], self.buffer[5]]));
        let whole = 8 + len + usize::from(self.buffer[6]);
        assert!(self.fill(whole), "the connection ended inside a record");
        let rest = self.buffer.split_off(whole);
        let bytes = std::mem::replace(&mut self.buffer, rest);
        assert_eq!((bytes[0], bytes[7]), (1, 0), "version and reserved byte");
        let record = Record {
            kind: bytes[1],
            id: u16::from_be_bytes([bytes[2], bytes[3]]),
            content: bytes[8..8 + len].to_vec(),
        };
        match record.kind {
            END | STDOUT | STDERR => {
                assert_ne!(record.id, 0, "an application record with the id of management records");
            }
            GET_VALUES_RESULT | UNKNOWN_TYPE => {
                assert_eq!(record.id, 0, "a management record with the id of a request");
            }
            other => panic!("an application may not send type {other}"),
        }
        Some(record)
    }

    fn fill(&mut self, len: usize) -> bool {
        let mut chunk = vec![0; 65_536];
        while self.buffer.len() < len {
            match self.socket.read(&mut chunk) {
                Ok(0) => return false,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => panic!("no answer: {e}"),
            }
        }
        true
    }

    /// The next management record.
    pub fn management(&mut self) -> Record {
        let record = self.next().expect("an answer to a management record");
        assert_eq!(record.id, 0, "{record:?}");
        record
    }

    /// The whole answer to one request; nothing else may come.
    pub fn answer(&mut self, id: u16) -> Answer {
        let (of, answer) = self.any_answer(&[id]);
        assert_eq!(of, id);
        answer
    }

    /// The first of these requests' answers that is complete. Records of the others are kept until they are asked for.
    pub fn any_answer(&mut self, ids: &[u16]) -> (u16, Answer) {
        loop {
            let record = self.next().expect("the connection ended before the answer");
            assert!(ids.contains(&record.id), "a record for nobody: {record:?}");
            if self.open.entry(record.id).or_default().take(&record) {
                return (record.id, self.open.remove(&record.id).unwrap());
            }
        }
    }

    /// How long the output of a request is that is answered well; it is not kept.
    pub fn skip_answer(&mut self, id: u16) -> usize {
        let (mut answer, mut len) = (Answer::default(), 0);
        loop {
            let record = self.next().expect("the connection ended before the answer");
            assert_eq!(record.id, id, "a record for nobody");
            len += if record.kind == STDOUT { record.content.len() } else { 0 };
            let ended = answer.take(&record);
            answer.stdout.clear();
            if ended {
                assert_eq!((answer.protocol_status, answer.app_status), (COMPLETE, 0));
                return len;
            }
        }
    }

    /// One request and its answer on a connection that is kept.
    pub fn ask(&mut self, pairs: &[(&str, &str)], body: &[u8]) -> Answer {
        self.send(&Wire::new().request(1, KEEP, pairs, body));
        self.answer(1)
    }

    /// The server closes the connection, and says nothing more.
    pub fn expect_end(&mut self) {
        match self.next() {
            None => {}
            Some(record) => panic!("instead of the end: {record:?}"),
        }
    }

    /// The server closes the connection, by a reset if it likes.
    pub fn expect_gone(&mut self) {
        let mut chunk = [0; 4096];
        loop {
            match self.socket.read(&mut chunk) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => panic!("the connection is still open"),
                Err(_) => return,
            }
        }
    }

    /// The connection works: its next request is answered.
    pub fn expect_alive(&mut self) {
        assert_eq!(self.ask(&[("TEST", "hello")], b"").body_text(), "hello");
    }
}
