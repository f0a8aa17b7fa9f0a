//! One request to the FastCGI server, and its answer as the body of an HTTP response.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::StatusCode;
use hyper::body::{Body, Frame, Incoming};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::task::JoinHandle;

use super::Access;
use super::head::{BadHead, Head};
use crate::protocol::decoder::Decoder;
use crate::protocol::{Params, RecordType, Role, encoder};

/// Bytes read at once from the FastCGI server.
const READ_BUFFER: usize = 16 << 10;
/// The id of the only request on a connection.
const ID: u16 = 1;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendError {
    #[error("the FastCGI server cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    #[error("the FastCGI server broke off: {0}")]
    BrokenOff(#[source] io::Error),
    #[error("the FastCGI server gave no answer")]
    NoAnswer,
    #[error(transparent)]
    BadHead(#[from] BadHead),
}

impl BackendError {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unreachable(_) => StatusCode::SERVICE_UNAVAILABLE,
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
    errors: Vec<u8>,
    ended: bool,
    sender: JoinHandle<()>,
    access: Option<(Access, StatusCode)>,
    bytes: u64,
}

impl Answer {
    /// Sends a request; its body follows as the client sends it.
    pub(super) async fn ask(backend: &Path, params: &Params, body: Option<Incoming>) -> Result<Self, BackendError> {
        let socket = UnixStream::connect(backend).await.map_err(BackendError::Unreachable)?;
        let (records, mut sink) = socket.into_split();
        let mut request = Vec::new();
        encoder::request_head(ID, Role::Responder, false, params, &mut request);
        let sender = tokio::spawn(async move {
            // When the application takes no more, its answer says why; when the client sends no more, the connection is
            // left without the body's end, so that the script is not run on half of it.
            let sent = send(&mut sink, request, body).await;
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
            errors: Vec::new(),
            ended: false,
            sender,
            access: None,
            bytes: 0,
        })
    }

    /// Waits for the head of the answer.
    pub(super) async fn head(&mut self) -> Result<Head, BackendError> {
        loop {
            if let Some((head, length)) = Head::parse(&self.output)? {
                self.output.advance(length);
                return Ok(head);
            }
            if self.ended {
                return Err(BackendError::NoAnswer);
            }
            std::future::poll_fn(|context| self.poll_more(context)).await.map_err(BackendError::BrokenOff)?;
        }
    }

    /// Has the rest of the answer written to the access log when it has been read, or given up.
    pub(super) fn log_when_done(&mut self, access: Access, status: StatusCode) {
        self.access = Some((access, status));
    }

    /// Reads the rest in the background and throws it away.
    pub(super) fn read_to_end(mut self) {
        tokio::spawn(async move { while let Some(Ok(_)) = self.frame().await {} });
    }

    /// Reads once, into `output`, `errors` and `ended`.
    fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut block = [0; READ_BUFFER];
        let mut buffer = ReadBuf::new(&mut block);
        ready!(Pin::new(&mut self.records).poll_read(context, &mut buffer))?;
        let mut bytes = buffer.filled();
        if bytes.is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        while let Some(piece) = self.decoder.next(&mut bytes).map_err(io::Error::other)? {
            match RecordType::from_number(piece.header.kind) {
                Some(RecordType::Stdout) => self.output.extend_from_slice(piece.content),
                Some(RecordType::Stderr) => self.log_errors(piece.content),
                Some(RecordType::EndRequest) if piece.last => self.ended = true,
                _ => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The script's error stream goes to the log, line by line.
    fn log_errors(&mut self, text: &[u8]) {
        self.errors.extend_from_slice(text);
        while let Some(end) = self.errors.iter().position(|&b| b == b'\n') {
            let line: Vec<u8> = self.errors.drain(..=end).collect();
            tracing::error!("script: {}", String::from_utf8_lossy(line.trim_ascii_end()));
        }
    }
}

async fn send(sink: &mut OwnedWriteHalf, head: Vec<u8>, body: Option<Incoming>) -> io::Result<()> {
    sink.write_all(&head).await?;
    let mut records = Vec::new();
    if let Some(mut body) = body {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(io::Error::other)?;
            if let Some(data) = frame.data_ref() {
                records.clear();
                encoder::stream(RecordType::Stdin, ID, data, &mut records);
                sink.write_all(&records).await?;
            }
        }
    }
    records.clear();
    encoder::end_stream(RecordType::Stdin, ID, &mut records);
    sink.write_all(&records).await
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
        answer.bytes += answer.output.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(answer.output.split().freeze()))))
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.sender.abort();
        if !self.errors.is_empty() {
            tracing::error!("script: {}", String::from_utf8_lossy(&self.errors));
        }
        if let Some((access, status)) = &self.access {
            access.log(*status, self.bytes);
        }
    }
}
