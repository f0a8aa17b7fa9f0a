//! One request to the FastCGI server, and its answer as the body of an HTTP response.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::CONTENT_LENGTH;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::head::{BadHead, Head};
use crate::error_lines::ErrorLines;
use crate::protocol::decoder::{Decoder, Piece};
use crate::protocol::{Params, ProtocolStatus, RecordType, Role, encoder};
use crate::response::{self, HeadParser};

/// Bytes read at once from the FastCGI server.
const READ_BUFFER: usize = 16 << 10;
/// So many bytes are read for nobody, as of a page that was asked for with HEAD, and so long.
const DISCARD_BYTES: usize = 16 << 20;
const DISCARD_TIME: Duration = Duration::from_secs(60);
/// The id of the only request on a connection.
const ID: u16 = 1;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendError {
    #[error("the FastCGI server cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the FastCGI server broke off: {0}")]
    BrokenOff(#[source] io::Error),
    #[error("the client broke off its request body")]
    ClientBrokeOff,
    #[error("the rest of the request body did not come in time (--read-timeout)")]
    ClientLate,
    #[error("the FastCGI server has too much to do")]
    Overloaded,
    #[error("the FastCGI server refused the request (protocol status {0})")]
    Refused(u8),
    #[error("the FastCGI server gave no answer with a complete header")]
    NoAnswer,
    #[error("the FastCGI server neither reads nor answers")]
    TimedOut,
    #[error(transparent)]
    BadHead(#[from] BadHead),
}

impl From<response::BadHead> for BackendError {
    fn from(why: response::BadHead) -> Self {
        Self::BadHead(why.into())
    }
}

impl BackendError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unreachable(_) | Self::Overloaded => StatusCode::SERVICE_UNAVAILABLE,
            Self::ClientBrokeOff => StatusCode::BAD_REQUEST,
            Self::ClientLate => StatusCode::REQUEST_TIMEOUT,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::BAD_GATEWAY,
        }
    }
}

/// An answer that is being read. When it is dropped, the connection closes, and the script learns it.
pub(super) struct Answer {
    records: OwnedReadHalf,
    decoder: Decoder,
    /// Output that has been read and not been handed on.
    output: BytesMut,
    errors: ErrorLines,
    /// The content of END_REQUEST, as far as it has come.
    end: Vec<u8>,
    ended: bool,
    /// The script says how long its answer is.
    has_length: bool,
    upload: Arc<Mutex<Upload>>,
    sender: JoinHandle<()>,
}

/// What the application is asked.
pub(super) struct Question<'a> {
    pub(super) role: Role,
    pub(super) params: &'a Params,
    pub(super) stdin: Stdin,
    /// What a Filter transforms.
    pub(super) data: Option<File>,
    /// How long the client's body may pause.
    pub(super) body_timeout: Option<Duration>,
}

/// The standard input of a request.
pub(super) enum Stdin {
    None,
    /// As the client sends it.
    Client(Incoming),
    Text(Vec<u8>),
}

/// How far the request has been sent.
#[derive(Debug, Default)]
struct Upload {
    bytes: u64,
    waits_for_client: bool,
    client_broke_off: bool,
    client_late: bool,
}

impl Answer {
    /// Sends a request; its body follows as the client sends it.
    pub(super) async fn ask(backend: &Path, question: Question<'_>) -> Result<Self, BackendError> {
        let Question { role, params, stdin, data, body_timeout } = question;
        let socket = UnixStream::connect(backend).await.map_err(BackendError::Unreachable)?;
        let (records, mut sink) = socket.into_split();
        let mut request = Vec::new();
        encoder::request_head(ID, role, false, params, &mut request);
        let streams = Streams { role, stdin, data };
        let upload = Arc::new(Mutex::new(Upload::default()));
        let progress = upload.clone();
        let sender = tokio::spawn(async move {
            // When the application takes no more, its answer says why; when the client sends no more, the connection is
            // left without the body's end, so that the script is not run on half of it.
            let sent = streams.send(&mut sink, request, body_timeout, &progress).await;
            if sent.is_err() {
                drop(sink);
            } else {
                // The sending side stays open: closing it would tell the application that the client has left.
                std::future::pending::<()>().await;
            }
        });
        Ok(Self {
            records,
            decoder: Decoder::new(),
            output: BytesMut::new(),
            errors: ErrorLines::default(),
            end: Vec::new(),
            ended: false,
            has_length: false,
            upload,
            sender,
        })
    }

    /// Waits for the head of the answer, and makes it one of HTTP. `timeout` bounds how long the application may neither read
    /// nor write.
    pub(super) async fn head(&mut self, timeout: Option<Duration>) -> Result<Head, BackendError> {
        let head = self.cgi_head(timeout).await?;
        self.http_head(head)
    }

    /// The head of the answer as HTTP has it.
    pub(super) fn http_head(&mut self, head: response::Head) -> Result<Head, BackendError> {
        let head = Head::try_from(head)?;
        self.has_length = head.headers.contains_key(CONTENT_LENGTH);
        Ok(head)
    }

    /// Waits for the head of the answer, as the script wrote it.
    pub(super) async fn cgi_head(&mut self, timeout: Option<Duration>) -> Result<response::Head, BackendError> {
        let mut parser = HeadParser::new();
        loop {
            let mut input = &self.output[..];
            let head = parser.push(&mut input)?;
            let left = input.len();
            self.output.advance(self.output.len() - left);
            if let Some(head) = head {
                return Ok(head);
            }
            if self.ended {
                return Err(self.why_no_answer());
            }
            self.more(timeout).await?;
        }
    }

    /// Waits for the end of a request whose output is not wanted; gives the exit status.
    pub(super) async fn end(&mut self, timeout: Option<Duration>) -> Result<u32, BackendError> {
        while !self.ended {
            self.more(timeout).await?;
            self.output.clear();
        }
        match self.end.first_chunk::<5>() {
            Some(&[a, b, c, d, 0]) => Ok(u32::from_be_bytes([a, b, c, d])),
            _ => Err(self.why_no_answer()),
        }
    }

    fn why_no_answer(&self) -> BackendError {
        const COMPLETE: u8 = ProtocolStatus::RequestComplete as u8;
        const OVERLOADED: u8 = ProtocolStatus::Overloaded as u8;
        match self.end.get(4) {
            None | Some(&COMPLETE) => BackendError::NoAnswer,
            Some(&OVERLOADED) => BackendError::Overloaded,
            Some(status) => BackendError::Refused(*status),
        }
    }

    /// Reads once, waiting for it.
    async fn more(&mut self, timeout: Option<Duration>) -> Result<(), BackendError> {
        let limit = timeout.unwrap_or(Duration::MAX);
        loop {
            let before = lock(&self.upload).bytes;
            let read = tokio::time::timeout(limit, std::future::poll_fn(|context| self.poll_more(context))).await;
            let upload = lock(&self.upload);
            match read {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(_)) if upload.client_late => return Err(BackendError::ClientLate),
                Ok(Err(_)) if upload.client_broke_off => return Err(BackendError::ClientBrokeOff),
                Ok(Err(e)) => return Err(BackendError::BrokenOff(e)),
                Err(_) if upload.bytes == before && !upload.waits_for_client => return Err(BackendError::TimedOut),
                Err(_) => {}
            }
        }
    }

    /// Reads the rest in the background and throws it away. A script may have work to do after it has answered, but one
    /// that never ends must not run for nobody. `unfinished` is held so long.
    pub(super) fn discard(mut self, unfinished: mpsc::Sender<()>) {
        tokio::spawn(tokio::time::timeout(DISCARD_TIME, async move {
            let _unfinished = unfinished;
            let mut left = DISCARD_BYTES;
            while let Some(Ok(frame)) = self.frame().await {
                left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
                if left == 0 {
                    break;
                }
            }
        }));
    }

    /// Reads once, into `output`, `errors` and `end`.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut block = [0; READ_BUFFER];
        let mut buffer = ReadBuf::new(&mut block);
        ready!(Pin::new(&mut self.records).poll_read(context, &mut buffer))?;
        let mut bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        while let Some(piece) = self.decoder.next(&mut bytes).map_err(io::Error::other)? {
            self.take(piece);
        }
        Poll::Ready(Ok(()))
    }

    fn take(&mut self, piece: Piece<'_>) {
        match RecordType::from_number(piece.header.kind) {
            Some(RecordType::Stdout) => self.output.extend_from_slice(piece.content),
            Some(RecordType::Stderr) => self.errors.push(piece.content),
            Some(RecordType::EndRequest) if !self.ended => {
                self.end.extend_from_slice(piece.content);
                self.ended = piece.last;
            }
            _ => {}
        }
    }
}

fn lock(upload: &Mutex<Upload>) -> MutexGuard<'_, Upload> {
    upload.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The input of a request.
struct Streams {
    role: Role,
    stdin: Stdin,
    data: Option<File>,
}

impl Streams {
    async fn send(
        self,
        sink: &mut OwnedWriteHalf,
        head: Vec<u8>,
        body_timeout: Option<Duration>,
        upload: &Mutex<Upload>,
    ) -> io::Result<()> {
        let mut records = head;
        match self.stdin {
            Stdin::Client(body) => send_body(sink, &mut records, body, body_timeout, upload).await?,
            Stdin::Text(text) => {
                encoder::stream(RecordType::Stdin, ID, &text, &mut records);
                encoder::end_stream(RecordType::Stdin, ID, &mut records);
            }
            Stdin::None if self.role.has_stdin() => encoder::end_stream(RecordType::Stdin, ID, &mut records),
            Stdin::None => {}
        }
        if self.role.has_data() {
            if let Some(file) = self.data {
                send_file(sink, &mut records, file, upload).await?;
            }
            encoder::end_stream(RecordType::Data, ID, &mut records);
        }
        push(sink, &mut records, upload, false).await
    }
}

/// Sends what has come together.
async fn push(
    sink: &mut OwnedWriteHalf,
    records: &mut Vec<u8>,
    upload: &Mutex<Upload>,
    waits_for_client: bool,
) -> io::Result<()> {
    sink.write_all(records).await?;
    let mut upload = lock(upload);
    upload.bytes += records.len() as u64;
    upload.waits_for_client = waits_for_client;
    records.clear();
    Ok(())
}

async fn send_body(
    sink: &mut OwnedWriteHalf,
    records: &mut Vec<u8>,
    mut body: Incoming,
    body_timeout: Option<Duration>,
    upload: &Mutex<Upload>,
) -> io::Result<()> {
    loop {
        push(sink, records, upload, true).await?;
        let frame = tokio::time::timeout(body_timeout.unwrap_or(Duration::MAX), body.frame()).await;
        let mut upload = lock(upload);
        upload.waits_for_client = false;
        let Ok(frame) = frame else {
            upload.client_late = true;
            return Err(io::ErrorKind::TimedOut.into());
        };
        match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    encoder::stream(RecordType::Stdin, ID, data, records);
                }
            }
            Some(Err(e)) => {
                upload.client_broke_off = true;
                return Err(io::Error::other(e));
            }
            None => {
                encoder::end_stream(RecordType::Stdin, ID, records);
                return Ok(());
            }
        }
    }
}

async fn send_file(
    sink: &mut OwnedWriteHalf,
    records: &mut Vec<u8>,
    mut file: File,
    upload: &Mutex<Upload>,
) -> io::Result<()> {
    let mut block = vec![0; READ_BUFFER];
    loop {
        let count = file.read(&mut block).await?;
        if count == 0 {
            return Ok(());
        }
        encoder::stream(RecordType::Data, ID, &block[..count], records);
        push(sink, records, upload, false).await?;
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let answer = self.get_mut();
        while answer.output.is_empty() {
            if answer.ended {
                return Poll::Ready(None);
            }
            if let Err(e) = ready!(answer.poll_more(context)) {
                return Poll::Ready(Some(Err(e)));
            }
        }
        Poll::Ready(Some(Ok(Frame::data(answer.output.split().freeze()))))
    }

    /// A short answer has come as a whole with its head, and needs no chunks.
    fn size_hint(&self) -> SizeHint {
        let exact = self.ended && !self.has_length;
        if exact { SizeHint::with_exact(self.output.len() as u64) } else { SizeHint::new() }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.sender.abort();
    }
}
