//! The access log: one line for each request, when its answer has been sent or given up. A script may have it, too, in the
//! combined format of Apache and nginx.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Instant, SystemTime};

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{REFERER, USER_AGENT};
use hyper::{Method, Request, StatusCode, Version};

use super::logger::Log;

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
    combined: Option<Combined>,
}

/// What the line for a script has besides.
#[derive(Debug)]
struct Combined {
    log: Log,
    time: SystemTime,
    version: Version,
    referer: String,
    user_agent: String,
}

impl Access {
    pub(super) fn new(request: &Request<Incoming>, peer: SocketAddr, log: Option<Log>) -> Self {
        let header = |name| request.headers().get(name).map_or("-".to_owned(), |value| escaped(value.as_bytes()));
        Self {
            combined: log.map(|log| Combined {
                log,
                time: SystemTime::now(),
                version: request.version(),
                referer: header(REFERER),
                user_agent: header(USER_AGENT),
            }),
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
        let Self { method, uri, peer, start, status, bytes, combined } = self;
        let status = status.map_or(CLIENT_LEFT, |s| s.as_u16());
        let peer = peer.ip().to_canonical();
        tracing::info!(target: "access", "{peer} \"{method} {uri}\" {status} {bytes} {:.1?}", start.elapsed());
        if let Some(Combined { log, time, version, referer, user_agent }) = combined {
            let (time, uri) = (date(*time), escaped(uri.as_bytes()));
            log.push(format!(
                "{peer} - - [{time}] \"{method} {uri} {version:?}\" {status} {bytes} \"{referer}\" \"{user_agent}\""
            ));
        }
    }
}

/// As such logs have it: `28/Nov/2026:09:15:04 +0000`.
fn date(time: SystemTime) -> String {
    // Sat, 28 Nov 2026 09:15:04 GMT
    let date = httpdate::fmt_http_date(time);
    let word = |at| date.split(' ').nth(at).unwrap_or_default();
    format!("{}/{}/{}:{} +0000", word(1), word(2), word(3), word(4))
}

/// Without what would end a field, or a line.
fn escaped(text: &[u8]) -> String {
    text.escape_ascii().to_string()
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
