//! Bytes out. What the socket does not take is queued: an answer's last records leave when it does, all others keep their
//! request waiting, so that one that nobody reads does not fill the memory.

use std::io;

use rustix::io::Errno;
use rustix::net::SendFlags;

use super::state::{ANSWER_LATE, Connection, Hub, Phase, State};
use crate::clock;
use crate::poll::{Interest, wait_for};

impl Connection {
    /// Sends records of a running request, and waits until the socket has taken them all.
    pub(crate) fn send(&self, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        self.send_or_queue(&mut state, bytes, hub)?;
        while !state.out.is_empty() {
            drop(state);
            let ready = wait_for(&self.socket, Interest { read: false, write: true }, hub.config.write_timeout)?;
            state = self.lock();
            if state.phase == Phase::Gone {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if !ready {
                self.hang_up(&mut state, hub);
                tracing::warn!("connection closed: {ANSWER_LATE}");
                return Err(io::ErrorKind::TimedOut.into());
            }
            if self.send_queued(&mut state).is_err() {
                self.hang_up(&mut state, hub);
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        Ok(())
    }

    pub(super) fn send_or_queue(&self, state: &mut State, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        if state.phase == Phase::Gone {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut sent = 0;
        if state.out.is_empty() {
            sent = match self.send_now(bytes) {
                Ok(sent) => sent,
                Err(e) => {
                    self.hang_up(state, hub);
                    return Err(e.into());
                }
            };
        }
        if sent < bytes.len() {
            state.out.bytes.extend_from_slice(&bytes[sent..]);
        }
        state.last_progress = clock::seconds();
        Ok(())
    }

    pub(super) fn send_queued(&self, state: &mut State) -> Result<(), Errno> {
        let sent = self.send_now(&state.out.bytes[state.out.sent..])?;
        if sent > 0 {
            state.out.advance(sent);
            state.last_progress = clock::seconds();
        }
        Ok(())
    }

    fn send_now(&self, bytes: &[u8]) -> Result<usize, Errno> {
        loop {
            match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT) {
                Err(Errno::WOULDBLOCK) => return Ok(0),
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }
}
