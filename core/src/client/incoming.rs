//! Records of an answer, as they come.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::{BLOCK, ClientError, Direction, Observer};
use crate::protocol::RecordType;
use crate::protocol::decoder::Decoder;
use crate::protocol::record::Header;

/// A part of a record that has come.
#[derive(Clone, Copy)]
pub(super) struct Piece<'a> {
    pub(super) header: Header,
    pub(super) content: &'a [u8],
    /// With the last part: all of the content. Output is handed on in parts, and then this may be empty.
    pub(super) whole: Option<&'a [u8]>,
}

/// Gives what was waited for, when it has come.
pub(super) type Take<'a, T> = dyn FnMut(Piece<'_>) -> Result<Option<T>, ClientError> + 'a;

/// Bytes that have come.
#[derive(Default)]
pub(super) struct Incoming {
    decoder: Decoder,
    /// Bytes that were received, of which the first `taken` have been decoded.
    buffer: Vec<u8>,
    taken: usize,
    /// The content so far of a record that is needed whole.
    record: Vec<u8>,
}

impl Incoming {
    /// Receives what has come, when all that came before was taken; whether there was anything.
    pub(super) fn receive(&mut self, socket: &OwnedFd) -> Result<bool, ClientError> {
        self.buffer.resize(BLOCK, 0);
        let result = rustix::io::read(socket, &mut self.buffer[..]);
        self.buffer.truncate(result.unwrap_or(0));
        self.taken = 0;
        match result {
            Ok(0) | Err(Errno::CONNRESET) => Err(ClientError::Closed),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(e) => Err(io::Error::from(e).into()),
        }
    }

    /// Hands records to `take` until it has what it wants.
    pub(super) fn take<T>(
        &mut self,
        mut observer: Option<&mut Observer>,
        take: &mut Take<'_, T>,
    ) -> Result<Option<T>, ClientError> {
        let mut input = &self.buffer[self.taken..];
        while let Some(piece) = self.decoder.next(&mut input)? {
            self.taken = self.buffer.len() - input.len();
            if piece.first {
                self.record.clear();
            }
            // Output is most of what comes and is not needed whole, except to be shown.
            if observer.is_some() || !is_output(piece.header.kind) {
                self.record.extend_from_slice(piece.content);
            }
            let whole = piece.last.then_some(&self.record[..]);
            if let (Some(observer), Some(whole)) = (&mut observer, whole) {
                observer(Direction::Received, &piece.header, whole);
            }
            if let Some(wanted) = take(Piece { header: piece.header, content: piece.content, whole })? {
                return Ok(Some(wanted));
            }
        }
        self.taken = self.buffer.len();
        Ok(None)
    }
}

fn is_output(kind: u8) -> bool {
    matches!(RecordType::from_number(kind), Some(RecordType::Stdout | RecordType::Stderr))
}
