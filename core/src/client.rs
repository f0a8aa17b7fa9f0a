//! The web server's side: sends requests to a FastCGI application and reads its answers. Blocking, one request at a
//! time; for tools and tests, not for a busy proxy.
//!
//! ```no_run
//! use fcgi_core::client::{Client, Event, Request};
//!
//! let mut client = Client::connect(&"unix:/tmp/hello.sock".parse()?, None)?;
//! let params = [("REQUEST_METHOD", "GET"), ("GATEWAY_INTERFACE", "CGI/1.1")].into_iter().collect();
//! let request = Request { id: 1, role: 1, keep_conn: false, params: &params, stdin: &mut std::io::empty(), data: None };
//! let ended = client.request(request, &mut |event| match event {
//!     Event::Stdout(bytes) => print!("{}", bytes.escape_ascii()),
//!     Event::Stderr(bytes) => eprint!("{}", bytes.escape_ascii()),
//! })?;
//! println!("status {}", ended.app_status);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod aborter;
mod connect;
mod incoming;

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::SendFlags;

pub use aborter::Aborter;
use incoming::{Incoming, Piece, Take};

use crate::poll::{Interest, wait_for};
use crate::protocol::decoder;
use crate::protocol::encoder;
use crate::protocol::record::{HEADER_LEN, Header, MANAGEMENT_ID, MAX_CONTENT};
use crate::protocol::{Params, RecordType, Role};

/// Bytes of a request body, or of an answer, that are held at once.
const BLOCK: usize = 32 * 1024;
/// An application has three variables to tell; this leaves room for its own.
const MAX_VALUES: usize = 1024;
/// A longer timeout is none, and the clock's arithmetic must not overflow.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// One request, as the web server would send it.
pub struct Request<'a> {
    /// Any number but 0, which is for management records.
    pub id: u16,
    /// A number, not a [`Role`], so that an unknown one can be tried.
    pub role: u16,
    /// Asks the application to leave the connection open, for another request.
    pub keep_conn: bool,
    /// The CGI variables.
    pub params: &'a Params,
    /// The request body. An Authorizer is sent none. It is read when the application can take more; while a read
    /// blocks, no answer is received.
    pub stdin: &'a mut dyn Read,
    /// The file of a Filter, which is sent an empty one when there is none.
    pub data: Option<&'a mut dyn Read>,
}

/// A piece of an answer; records are not kept together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// The CGI response: header lines, an empty line, the body.
    Stdout(&'a [u8]),
    /// Text for the error log.
    Stderr(&'a [u8]),
}

/// How a request ended: the content of END_REQUEST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status of the program.
    pub app_status: u32,
    /// A [`ProtocolStatus`](crate::ProtocolStatus) if the specification has this number.
    pub protocol_status: u8,
}

/// Which way a record went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// To the application.
    Sent,
    /// From the application.
    Received,
}

/// What [`Client::observe`] calls.
pub type Observer = Box<dyn FnMut(Direction, &Header, &[u8]) + Send>;

/// Why there is no answer, or not all of it. The connection is of no use afterwards.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The application closed the connection before its answer was complete.
    #[error("the application closed the connection before its answer was complete")]
    Closed,
    /// The peer does not speak FastCGI.
    #[error(transparent)]
    BadVersion(#[from] decoder::BadVersion),
    /// A record that has no place here, or whose content is malformed.
    #[error("unexpected record of type {kind} for request {id}")]
    UnexpectedRecord {
        /// Its type's number.
        kind: u8,
        /// Its request id.
        id: u16,
    },
    /// No byte went in either direction for as long as the timeout.
    #[error("the application neither reads nor answers")]
    TimedOut,
    /// The system, or the reader of the request body, failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// A connection to an application.
pub struct Client {
    socket: OwnedFd,
    timeout: Option<Duration>,
    incoming: Incoming,
    /// Encoded records, of which the first `sent` bytes are gone.
    output: Vec<u8>,
    sent: usize,
    /// The application reads no more. What it has written is still worth reading.
    deaf: bool,
    /// After an error nobody knows where in a record the connection stands.
    broken: bool,
    observer: Option<Observer>,
    aborter: Option<Aborter>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("socket", &self.socket).field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects to an application. `timeout` bounds the connecting (to each address of a host name), and later how long
    /// nothing may be sent or received.
    ///
    /// # Errors
    /// When nobody listens there, `TimedOut`, or `InvalidInput` for a descriptor (`fd:N`), which cannot be connected to.
    pub fn connect(address: &crate::Address, timeout: Option<Duration>) -> io::Result<Self> {
        let timeout = timeout.map(|t| t.clamp(Duration::from_millis(1), LONGEST));
        let socket: OwnedFd = match address {
            crate::Address::Unix(path) => connect::unix(path, timeout)?,
            crate::Address::Tcp { host, port } => connect::tcp(host, *port, timeout)?,
            crate::Address::Fd(_) => {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "a descriptor cannot be connected to"));
            }
        };
        let client = Self::over(socket)?;
        Ok(Self { timeout, ..client })
    }

    /// On a connection that is there.
    ///
    /// # Errors
    /// When it is no socket.
    pub fn over(socket: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Self {
            socket,
            timeout: None,
            incoming: Incoming::default(),
            output: Vec::new(),
            sent: 0,
            deaf: false,
            broken: false,
            observer: None,
            aborter: None,
        })
    }

    /// Shows every whole record, as it is made ready to be sent or when its last byte has come.
    pub fn observe(&mut self, observer: Observer) {
        self.observer = Some(observer);
    }

    /// What takes this client's requests back.
    ///
    /// # Errors
    /// When the system has no descriptor for it.
    pub fn aborter(&mut self) -> io::Result<Aborter> {
        if let Some(aborter) = &self.aborter {
            return Ok(aborter.clone());
        }
        Ok(self.aborter.insert(Aborter::new()?).clone())
    }

    /// Sends a request and hands on its answer as it comes, while the body is still being sent if need be.
    ///
    /// What of the body the application did not read before its answer ended is not sent.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn request(&mut self, request: Request<'_>, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Ended, ClientError> {
        let Request { id, role, keep_conn, params, stdin, data } = request;
        let mut head = Vec::new();
        encoder::begin_request(id, role, keep_conn, &mut head);
        let mut pairs = Vec::new();
        params.encode(&mut pairs);
        encoder::stream(RecordType::Params, id, &pairs, &mut head);
        encoder::end_stream(RecordType::Params, id, &mut head);
        let mut nothing = io::empty();
        let mut upload = Upload { id, streams: Vec::with_capacity(2) };
        let known = Role::from_number(role);
        match data {
            Some(data) => upload.streams.push((RecordType::Data, data)),
            None if known.is_some_and(Role::has_data) => upload.streams.push((RecordType::Data, &mut nothing)),
            None => {}
        }
        if known.is_none_or(Role::has_stdin) {
            upload.streams.push((RecordType::Stdin, stdin));
        }
        self.exchange(&head, &mut upload, &mut |piece| take_answer(id, piece, on_event))
    }

    /// Asks the application for variables such as `FCGI_MAX_CONNS`; those it does not know are left out of the answer.
    ///
    /// # Errors
    /// [`ClientError`]; an application that cannot tell any answers with an
    /// [`UnexpectedRecord`](ClientError::UnexpectedRecord) of type 11.
    pub fn values(&mut self, names: &[&str]) -> Result<Params, ClientError> {
        // Two lengths of four bytes at most stand before each name.
        if names.iter().map(|name| name.len() + 8).sum::<usize>() > MAX_CONTENT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the names do not fit into one record").into());
        }
        let mut question = Vec::new();
        encoder::values(RecordType::GetValues, names.iter().map(|name| (*name, "")), &mut question);
        let mut upload = Upload { id: MANAGEMENT_ID, streams: Vec::new() };
        self.exchange(&question, &mut upload, &mut |piece| {
            let kind = RecordType::from_number(piece.header.kind);
            if kind != Some(RecordType::GetValuesResult) || piece.header.id != MANAGEMENT_ID {
                return Err(unexpected(piece.header));
            }
            let Some(content) = piece.whole else { return Ok(None) };
            Params::from_stream(content.to_vec(), MAX_VALUES).map(Some).map_err(|_| unexpected(piece.header))
        })
    }

    /// Sends `head` and the streams, receives records until `take` has what it wants.
    fn exchange<T>(&mut self, head: &[u8], upload: &mut Upload<'_>, take: &mut Take<'_, T>) -> Result<T, ClientError> {
        if self.broken {
            return Err(ClientError::Closed);
        }
        // Until the answer is complete: whichever way this is left early, the next call must not read on from here.
        self.broken = true;
        if let Some(aborter) = &self.aborter {
            // What was meant for an earlier request.
            aborter.take();
        }
        self.queue(head);
        let answer = loop {
            if let Some(answer) = self.incoming.take(self.observer.as_mut(), take)? {
                break answer;
            }
            self.abort_if_asked(upload);
            let sent = self.send(upload)?;
            let received = self.incoming.receive(&self.socket)?;
            if !sent && !received && !self.wait(upload)? {
                return Err(ClientError::TimedOut);
            }
        };
        self.broken = false;
        Ok(answer)
    }

    fn abort_if_asked(&mut self, upload: &mut Upload<'_>) {
        if self.aborter.as_ref().is_some_and(Aborter::take) && upload.id != MANAGEMENT_ID {
            upload.streams.clear();
            let mut record = Vec::new();
            encoder::abort_request(upload.id, &mut record);
            self.queue(&record);
        }
    }

    /// Waits until something can be received, sent or is to be aborted. `false` when the time is over.
    fn wait(&self, upload: &Upload<'_>) -> io::Result<bool> {
        let interest = Interest { read: true, write: self.has_output(upload) };
        match &self.aborter {
            Some(aborter) => aborter.wait_with(&self.socket, interest, self.timeout),
            None => wait_for(&self.socket, interest, self.timeout),
        }
    }

    /// Takes whole records to be sent. They may wait behind the rest of an earlier request's body.
    fn queue(&mut self, records: &[u8]) {
        if let Some(observer) = &mut self.observer {
            show(records, observer);
        }
        self.output.drain(..self.sent);
        self.sent = 0;
        self.output.extend_from_slice(records);
    }

    fn has_output(&self, upload: &Upload<'_>) -> bool {
        !self.deaf && (self.sent < self.output.len() || !upload.streams.is_empty())
    }

    /// Sends what the socket takes now; whether it took anything.
    fn send(&mut self, upload: &mut Upload<'_>) -> Result<bool, ClientError> {
        if !self.has_output(upload) {
            return Ok(false);
        }
        if self.sent == self.output.len() {
            // The reader may block, and need not be asked while the application cannot take more anyway.
            if !wait_for(&self.socket, Interest { read: false, write: true }, Some(Duration::ZERO))? {
                return Ok(false);
            }
            let block = upload.next_block()?;
            self.queue(&block);
        }
        match rustix::net::send(&self.socket, &self.output[self.sent..], SendFlags::NOSIGNAL) {
            Ok(count) => {
                self.sent += count;
                Ok(true)
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            // Its answer, and then the end of the connection, may still lie there to be read.
            Err(Errno::PIPE | Errno::CONNRESET) => {
                self.deaf = true;
                Ok(true)
            }
            Err(e) => Err(io::Error::from(e).into()),
        }
    }
}

/// The streams that are still to be sent, the last of them first.
struct Upload<'a> {
    id: u16,
    streams: Vec<(RecordType, &'a mut dyn Read)>,
}

impl Upload<'_> {
    /// The next block of the body, as records.
    fn next_block(&mut self) -> io::Result<Vec<u8>> {
        let mut records = Vec::new();
        let Some((kind, reader)) = self.streams.last_mut() else { return Ok(records) };
        let mut block = vec![0; BLOCK];
        let count = loop {
            match reader.read(&mut block) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if count > 0 {
            encoder::stream(*kind, self.id, &block[..count], &mut records);
        } else {
            encoder::end_stream(*kind, self.id, &mut records);
            self.streams.pop();
        }
        Ok(records)
    }
}

/// What a piece means for request `id`.
fn take_answer(id: u16, piece: Piece<'_>, on_event: &mut dyn FnMut(Event<'_>)) -> Result<Option<Ended>, ClientError> {
    if piece.header.id != id {
        return Err(unexpected(piece.header));
    }
    match RecordType::from_number(piece.header.kind) {
        // The ends of streams; END_REQUEST says the same.
        Some(RecordType::Stdout | RecordType::Stderr) if piece.content.is_empty() => Ok(None),
        Some(RecordType::Stdout) => {
            on_event(Event::Stdout(piece.content));
            Ok(None)
        }
        Some(RecordType::Stderr) => {
            on_event(Event::Stderr(piece.content));
            Ok(None)
        }
        Some(RecordType::EndRequest) => match piece.whole {
            None => Ok(None),
            Some(&[a, b, c, d, protocol_status, ..]) => {
                Ok(Some(Ended { app_status: u32::from_be_bytes([a, b, c, d]), protocol_status }))
            }
            Some(_) => Err(unexpected(piece.header)),
        },
        _ => Err(unexpected(piece.header)),
    }
}

fn unexpected(header: Header) -> ClientError {
    ClientError::UnexpectedRecord { kind: header.kind, id: header.id }
}

/// Shows records of our own encoder: whole, and without padding.
fn show(mut records: &[u8], observer: &mut Observer) {
    while let Some((head, rest)) = records.split_first_chunk::<HEADER_LEN>() {
        let Some(header) = Header::from_bytes(*head) else { return };
        let (content, rest) = rest.split_at(usize::from(header.content_len));
        observer(Direction::Sent, &header, content);
        records = rest;
    }
}
