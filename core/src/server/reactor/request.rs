//! A request in the hands of an event loop.

use std::io;

use super::super::running::Work;
use crate::exchange::Exchange;
use crate::protocol::{Params, Role};
use crate::request::{Input, Transport};
use crate::response::error_page;

/// One request, none of whose methods waits. What "would block" (`io::ErrorKind::WouldBlock`) is tried again after the
/// [`Event`](super::Event) that says so.
///
/// A request that is dropped unfinished ends as [`Request`](crate::Request) does: with status 1, and with an error page
/// when nothing had been written.
pub struct PolledRequest {
    key: u64,
    role: Role,
    params: Params,
    // Large, and moved with the request.
    exchange: Box<Exchange>,
    written: u64,
    /// Until it is finished.
    work: Option<Work>,
}

impl PolledRequest {
    pub(super) fn new(key: u64, role: Role, params: Params, exchange: Box<Exchange>, written: u64, work: Work) -> Self {
        Self { key, role, params, exchange, written, work: Some(work) }
    }

    /// The number by which events tell of this request. None is used twice by a reactor.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// What is asked of the program.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The CGI variables (RFC 3875, section 4.1), and `FCGI_ROLE`.
    pub fn params(&self) -> &Params {
        &self.params
    }

    /// The variables, to be put right before a program sees them.
    pub fn params_mut(&mut self) -> &mut Params {
        &mut self.params
    }

    /// What has come of an input stream and not been [consumed](Self::consume); nothing at its end. As long as it is not
    /// taken, the connection is read no further than `ServerConfig::body_buffer`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there yet, `ConnectionAborted` when nothing will come any more.
    pub fn try_fill_buf(&mut self, input: Input) -> io::Result<&[u8]> {
        if self.is_finished() { Ok(&[]) } else { self.exchange.try_fill(input) }
    }

    /// Takes so many bytes off the front of what [`try_fill_buf`](Self::try_fill_buf) gives.
    pub fn consume(&mut self, input: Input, count: usize) {
        self.exchange.consume(input, count);
    }

    /// Whether the stream ends behind what [`try_fill_buf`](Self::try_fill_buf) gave last: then there is no need to ask
    /// again.
    pub fn is_last(&self, input: Input) -> bool {
        self.is_finished() || self.exchange.has_all(input)
    }

    /// Reads the next bytes of an input stream into `buf`; 0 at the end of the stream.
    ///
    /// # Errors
    /// As for [`try_fill_buf`](Self::try_fill_buf).
    pub fn try_read(&mut self, input: Input, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let bytes = self.try_fill_buf(input)?;
        let count = bytes.len().min(buf.len());
        buf[..count].copy_from_slice(&bytes[..count]);
        self.consume(input, count);
        Ok(count)
    }

    /// Takes output, or the first part of it; gives how much. It is sent when `ServerConfig::output_buffer` is full, by
    /// [`try_flush`](Self::try_flush) or by [`finish`](Self::finish).
    ///
    /// # Errors
    /// `WouldBlock` when the buffer is full and the peer has not taken what was sent before, `BrokenPipe` when nobody is
    /// there to read it.
    pub fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_finished() {
            return Ok(bytes.len());
        }
        let count = self.exchange.try_write(bytes)?;
        self.written += count as u64;
        Ok(count)
    }

    /// Takes text for the server's error log, or the first part of it; gives how much. It is sent with the output.
    ///
    /// # Errors
    /// As for [`try_write`](Self::try_write).
    pub fn try_write_error(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.is_finished() { Ok(bytes.len()) } else { self.exchange.try_write_error(bytes) }
    }

    /// Sends what has been written.
    ///
    /// # Errors
    /// As for [`try_write`](Self::try_write); what has been written is kept if it would block.
    pub fn try_flush(&mut self) -> io::Result<()> {
        if self.is_finished() { Ok(()) } else { self.exchange.try_flush() }
    }

    /// Bytes of output written so far.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes back what was written, so that another answer can be given; false when some of it has been sent already.
    pub fn discard(&mut self) -> bool {
        let discarded = self.written == 0 || (!self.is_finished() && self.exchange.discard());
        if discarded {
            self.written = 0;
        }
        discarded
    }

    /// Whether the answer is no longer wanted, as far as has been noticed. From the first call on the connection is watched
    /// for it and [`Event::Aborted`](super::Event::Aborted) tells at once; before, it is noticed when something is read or
    /// written. While much of the body is unread (`ServerConfig::body_buffer`), only the closing of the connection is
    /// noticed.
    pub fn is_aborted(&mut self) -> bool {
        !self.is_finished() && self.exchange.watch_abort()
    }

    /// Whether the request has been finished.
    pub fn is_finished(&self) -> bool {
        self.work.is_none()
    }

    /// Ends the request: what was written is sent, by later turns if need be, and the server learns the exit status. What
    /// is read and written afterwards is nothing. Called again, it does nothing.
    ///
    /// # Errors
    /// When the connection is of no use any more; the request has ended all the same.
    pub fn finish(&mut self, status: u32) -> io::Result<()> {
        if self.work.take().is_none() {
            return Ok(());
        }
        self.exchange.finish_polled(status)
    }

    /// Ends the request because its answer cannot be completed. The connection is closed without an END_REQUEST, so that
    /// the server does not take the answer for a whole one; if it carries other requests as well, the exit status 1 must
    /// do.
    ///
    /// # Errors
    /// As for [`finish`](Self::finish).
    pub fn break_off(&mut self) -> io::Result<()> {
        if self.work.take().is_none() {
            return Ok(());
        }
        self.exchange.end_broken_off()
    }
}

impl Drop for PolledRequest {
    fn drop(&mut self) {
        if !self.is_finished() {
            if self.written == 0 {
                let _ = self.try_write(&error_page("500 Internal Server Error", b""));
            }
            let _ = self.finish(1);
        }
    }
}

impl std::fmt::Debug for PolledRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("PolledRequest");
        shown.field("key", &self.key).field("role", &self.role).field("params", &self.params).finish_non_exhaustive()
    }
}
