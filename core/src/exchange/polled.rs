//! The exchange of a request that an event loop works on: nothing here waits.

use std::io;
use std::sync::Arc;

use super::{Exchange, Reader, put_right};
use crate::connection::{Connection, Hub, Started};
use crate::inbox::Stream;
use crate::protocol::RecordType;
use crate::protocol::encoder::GrowingRecord;
use crate::request::Input;

impl Exchange {
    /// As [`new`](Self::new), without a buffer as long as nothing is written: many requests run at once.
    pub(crate) fn polled(hub: Arc<Hub>, connection: Arc<Connection>, id: u16, started: &mut Started) -> Self {
        let mender = put_right(started);
        let reader = |stream: &mut Stream| Reader { stream: std::mem::take(stream), at: 0 };
        Self {
            out: Vec::new(),
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

    /// Lets a loop have a request that was worked on without one.
    pub(crate) fn adopt(&self, key: u64) {
        if let Some(connection) = &self.connection {
            connection.adopt(self.id, key, &self.hub);
        }
    }

    pub(crate) fn try_fill(&mut self, input: Input) -> io::Result<&[u8]> {
        let reader = match input {
            Input::Stdin => &mut self.stdin,
            Input::Data => &mut self.data,
        };
        if reader.is_empty()
            && !reader.stream.ended
            && let Some(connection) = &self.connection
        {
            reader.at = 0;
            reader.stream.bytes.clear();
            connection.try_read(self.id, input, &mut reader.stream, &self.hub)?;
        }
        Ok(&reader.stream.bytes[reader.at..])
    }

    pub(crate) fn consume(&mut self, input: Input, count: usize) {
        let reader = match input {
            Input::Stdin => &mut self.stdin,
            Input::Data => &mut self.data,
        };
        reader.at = (reader.at + count).min(reader.stream.bytes.len());
    }

    /// Whether nothing follows what [`try_fill`](Self::try_fill) gives next.
    pub(crate) fn has_all(&self, input: Input) -> bool {
        match input {
            Input::Stdin => self.stdin.stream.ended,
            Input::Data => self.data.stream.ended,
        }
    }

    pub(crate) fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let limit = self.hub.config.output_buffer.max(1);
        if self.mender.is_active() {
            // Before its end, a header is small; behind it, nothing is kept.
            let mended = self.mender.pass(bytes)?;
            self.record.append(RecordType::Stdout, self.id, &mended, &mut self.out);
            return Ok(bytes.len());
        }
        let mut left = bytes;
        while !left.is_empty() {
            if self.out.len() >= limit {
                match self.try_flush() {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock && left.len() < bytes.len() => break,
                    other => other?,
                }
            }
            if self.out.capacity() == 0 {
                self.out = self.hub.buffer();
            }
            let (now, later) = left.split_at((limit - self.out.len()).min(left.len()));
            self.record.append(RecordType::Stdout, self.id, now, &mut self.out);
            left = later;
        }
        let taken = bytes.len() - left.len();
        if let Some(entry) = &mut self.entry {
            entry.output(&bytes[..taken]);
        }
        Ok(taken)
    }

    pub(crate) fn try_write_error(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.mender.log(bytes) {
            return Ok(bytes.len());
        }
        // Errors that could not be sent lie behind the output.
        let limit = self.hub.config.output_buffer.max(1) * 2;
        if self.out.len() + self.errors.len() >= limit {
            self.try_flush()?;
        }
        let count = bytes.len().min(limit - self.out.len() - self.errors.len());
        self.errors.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        self.close_records();
        let Some(connection) = &self.connection else { return Ok(()) };
        if self.out.is_empty() {
            return Ok(());
        }
        connection.try_send(self.id, &self.out, &self.hub)?;
        self.sent = true;
        self.hub.give_back(std::mem::take(&mut self.out));
        Ok(())
    }

    pub(crate) fn watch_abort(&mut self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.watch_abort(self.id, &self.hub))
    }

    pub(crate) fn finish_polled(&mut self, status: u32) -> io::Result<()> {
        let Some(connection) = self.connection.take() else { return Ok(()) };
        self.end_records(status);
        let result = connection.finish_polled(self.id, &self.out, &self.hub);
        self.hub.give_back(std::mem::take(&mut self.out));
        self.has_ended(status);
        result
    }

    pub(crate) fn end_broken_off(&mut self) -> io::Result<()> {
        self.close_records();
        let broken = self.connection.as_ref().is_some_and(|c| c.break_off(self.id, &self.out, &self.hub));
        if broken {
            self.connection = None;
            self.has_ended(1);
        }
        self.finish_polled(1)
    }
}
