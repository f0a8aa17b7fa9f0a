//! A running request on a FastCGI connection: the transport behind [`Request`](crate::Request).
//!
//! Output is framed as it is written, so a small answer (its output, the ends of its streams, END_REQUEST) leaves in one
//! system call. Errors wait for output to go with: one system call fewer, and some servers do not survive an error
//! stream that comes before the header.

mod polled;

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use crate::access_log::Entry;
use crate::connection::{Connection, Hub, Started};
use crate::gateway::{self, answer::Mender};
use crate::inbox::Stream;
use crate::protocol::encoder::{self, GrowingRecord};
use crate::protocol::{ProtocolStatus, RecordType};
use crate::request::{Input, Transport};

/// Error text that is kept at most until output goes out.
const ERROR_BUFFER: usize = 8 << 10;

pub(crate) struct Exchange {
    hub: Arc<Hub>,
    /// Gone when the request has ended, so that the connection can be closed.
    connection: Option<Arc<Connection>>,
    id: u16,
    stdin: Reader,
    data: Reader,
    out: Vec<u8>,
    record: GrowingRecord,
    errors: Vec<u8>,
    errors_used: bool,
    mender: Mender,
    /// Some of the output has left.
    sent: bool,
    /// For the access log, if there is one.
    entry: Option<Box<Entry>>,
}

/// What has been taken from the connection, and how much of it has been read.
struct Reader {
    stream: Stream,
    at: usize,
}

impl Exchange {
    /// Puts the variables right, too.
    pub(crate) fn new(hub: Arc<Hub>, connection: Arc<Connection>, id: u16, started: &mut Started) -> Self {
        let mender = put_right(started);
        let reader = |stream: &mut Stream| Reader { stream: std::mem::take(stream), at: 0 };
        Self {
            out: hub.buffer(),
            hub,
            connection: Some(connection),
            id,
            stdin: reader(&mut started.stdin),
            data: reader(&mut started.data),
            record: GrowingRecord::default(),
            errors: Vec::new(),
            errors_used: false,
            mender,
            sent: false,
            entry: None,
        }
    }

    /// Has the request logged when it ends.
    pub(crate) fn log(&mut self, entry: Option<Entry>) {
        self.entry = entry.map(Box::new);
    }

    fn has_ended(&mut self, status: u32) {
        if let Some(entry) = self.entry.take() {
            entry.end(status);
        }
    }

    fn close_records(&mut self) {
        self.record.close(&mut self.out);
        if !self.errors.is_empty() {
            encoder::stream(RecordType::Stderr, self.id, &self.errors, &mut self.out);
            self.errors.clear();
            self.errors_used = true;
        }
    }

    fn write_out(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let limit = self.hub.config.output_buffer;
        // Headers of records may have made it more than its limit.
        while !bytes.is_empty() && self.out.len() + bytes.len() > limit {
            let (now, later) = bytes.split_at(limit.saturating_sub(self.out.len()).clamp(1, bytes.len()));
            self.record.append(RecordType::Stdout, self.id, now, &mut self.out);
            bytes = later;
            self.flush()?;
        }
        self.record.append(RecordType::Stdout, self.id, bytes, &mut self.out);
        Ok(())
    }

    fn end_records(&mut self, status: u32) {
        if self.out.capacity() == 0 {
            self.out = self.hub.buffer();
        }
        let kept_back = self.mender.rest();
        self.record.append(RecordType::Stdout, self.id, &kept_back, &mut self.out);
        self.close_records();
        encoder::end_stream(RecordType::Stdout, self.id, &mut self.out);
        if self.errors_used {
            encoder::end_stream(RecordType::Stderr, self.id, &mut self.out);
        }
        encoder::end_request(self.id, status, ProtocolStatus::RequestComplete, &mut self.out);
    }
}

/// Puts right what the web server gets wrong.
fn put_right(started: &mut Started) -> Mender {
    let mender = Mender::new(&started.params);
    let length = started.stdin.ended.then_some(started.stdin.bytes.len());
    gateway::put_right(&mut started.params, length);
    mender
}

impl Reader {
    fn is_empty(&self) -> bool {
        self.at == self.stream.bytes.len()
    }
}

impl Transport for Exchange {
    fn read(&mut self, input: Input, buf: &mut [u8]) -> io::Result<usize> {
        let reader = match input {
            Input::Stdin => &mut self.stdin,
            Input::Data => &mut self.data,
        };
        if reader.is_empty() && !reader.stream.ended {
            let Some(connection) = &self.connection else { return Ok(0) };
            reader.at = 0;
            reader.stream.bytes.clear();
            connection.read(self.id, input, &mut reader.stream, &self.hub)?;
        }
        let left = &reader.stream.bytes[reader.at..];
        let count = left.len().min(buf.len());
        buf[..count].copy_from_slice(&left[..count]);
        reader.at += count;
        Ok(count)
    }

    fn try_read(&mut self, input: Input, buf: &mut [u8]) -> io::Result<usize> {
        let reader = match input {
            Input::Stdin => &mut self.stdin,
            Input::Data => &mut self.data,
        };
        if reader.is_empty() && !reader.stream.ended {
            let Some(connection) = &self.connection else { return Ok(0) };
            reader.at = 0;
            reader.stream.bytes.clear();
            if !connection.read_what_has_come(self.id, input, &mut reader.stream, &self.hub)? {
                return Err(io::ErrorKind::WouldBlock.into());
            }
        }
        self.read(input, buf)
    }

    fn input_source(&self) -> Option<BorrowedFd<'_>> {
        self.connection.as_ref().map(|connection| connection.descriptor())
    }

    fn has_no_more(&self, input: Input) -> bool {
        let reader = match input {
            Input::Stdin => &self.stdin,
            Input::Data => &self.data,
        };
        reader.is_empty() && reader.stream.ended
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(entry) = &mut self.entry {
            entry.output(bytes);
        }
        if self.mender.is_active() {
            let mended = self.mender.pass(bytes)?;
            self.write_out(&mended)
        } else {
            self.write_out(bytes)
        }
    }

    fn write_error(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.mender.log(bytes) {
            return Ok(());
        }
        self.errors.extend_from_slice(bytes);
        if self.errors.len() > ERROR_BUFFER { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.close_records();
        let Some(connection) = &self.connection else { return Ok(()) };
        if self.out.is_empty() {
            return Ok(());
        }
        let result = connection.send(&self.out, &self.hub);
        self.sent = true;
        self.out.clear();
        result
    }

    fn room(&self) -> usize {
        self.hub.config.output_buffer.saturating_sub(self.out.len())
    }

    fn discard(&mut self) -> bool {
        if !self.sent {
            // Errors are not among it: they come to it only when it is sent.
            self.record = GrowingRecord::default();
            self.out.clear();
            self.mender.start_again();
            if let Some(entry) = &mut self.entry {
                entry.restart();
            }
        }
        !self.sent
    }

    fn is_aborted(&mut self) -> bool {
        self.connection.as_ref().is_some_and(|c| c.is_aborted(self.id, &self.hub))
    }

    fn finish(&mut self, status: u32) -> io::Result<()> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        self.end_records(status);
        let result = connection.finish(self.id, &self.out, &self.hub);
        self.hub.give_back(std::mem::take(&mut self.out));
        self.has_ended(status);
        result
    }

    fn break_off(&mut self) -> io::Result<()> {
        self.end_broken_off()
    }
}
