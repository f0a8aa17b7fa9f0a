//! The access log: one line for each request, when its answer has been sent or given up.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Method, Request, StatusCode};

/// What nginx writes for a client that left before it was answered; it is never sent.
const CLIENT_LEFT: u16 = 499;

/// One request. The line is written when this is dropped, so that none is missing, however the request ends.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) method: Method,
    pub(super) uri: String,
    peer: SocketAddr,
    start: Instant,
    status: Option<StatusCode>,
    bytes: u64,
}

impl Access {
    pub(super) fn new(request: &Request<Incoming>, peer: SocketAddr) -> Self {
        Self {
            method: request.method().clone(),
            uri: request.uri().to_string(),
            peer,
            start: Instant::now(),
            status: None,
            bytes: 0,
        }
    }

    /// The answer has begun: its body takes the request's place.
    pub(super) fn answered(mut self, status: StatusCode, body: super::Body) -> Logged {
        self.status = Some(status);
        Logged { body, access: self }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        let Self { method, uri, peer, start, status, bytes } = self;
        let status = status.map_or(CLIENT_LEFT, |s| s.as_u16());
        let peer = peer.ip().to_canonical();
        tracing::info!(target: "access", "{peer} \"{method} {uri}\" {status} {bytes} {:.1?}", start.elapsed());
    }
}

/// The body of an answer. Its bytes are counted.
#[derive(Debug)]
pub(super) struct Logged {
    body: super::Body,
    access: Access,
}

impl Body for Logged {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let logged = self.get_mut();
        let frame = ready!(Pin::new(&mut logged.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            logged.access.bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
