//! One connection: bytes are read and become requests; answers are queued and become bytes.
//!
//! A connection belongs to no thread. Whoever wakes for it locks it, reads what there is, and leaves the requests that
//! are complete (or have outgrown their buffer) in the hub's queue. A thread that works on a request reads the rest of
//! its input itself: it becomes the connection's *reader*, and hands on what it meets for other requests.
//!
//! What is kept is bounded: input by `Config::body_buffer` for each request (reading stops beyond it), output by one
//! output buffer for each request (a request that has more to say waits).
//!
//! In the order of reading: `state` (what is known), `sender` (bytes out), `reader` (bytes in), `lifecycle` (what wakes and
//! what closes), here what a thread does that works on a request, and `polled`, what an event loop does instead.

mod lifecycle;
mod polled;
mod reader;
mod sender;
mod state;

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::io::Errno;

use crate::inbox::{self, Obstacle, Stage, Stream};
use crate::poll::{Interest, is_hung_up, wait_for};
use crate::protocol::session::Input;
use crate::protocol::{Params, Role};
pub(crate) use polled::Change;
use state::{ANSWER_LATE, Phase, REQUEST_LATE, State, UNREAD_ANSWERS};
pub(crate) use state::{Connection, Hub};

/// How long a request that reads waits for a thread to take another one, whose body lies in the way.
const MAKE_WAY: Duration = Duration::from_millis(50);

/// What a thread takes with it when it begins to work on a request.
pub(crate) struct Started {
    pub(crate) role: Role,
    pub(crate) params: Params,
    pub(crate) stdin: Stream,
    pub(crate) data: Stream,
}

impl Connection {
    /// Takes a queued request. `None` when it is no longer wanted.
    pub(crate) fn start(self: &Arc<Self>, id: u16, hub: &Hub, has_waited: bool) -> Option<Started> {
        let mut state = self.lock();
        if has_waited && !state.has_reader {
            // Whoever waits long for an answer may have left, and nobody has looked since.
            self.read_all(&mut state, hub);
            self.settle(&mut state, hub);
        }
        let inbox = state.inbox(id).filter(|i| i.stage == Stage::Queued)?;
        inbox.stage = Stage::Running;
        let started = Started {
            role: inbox.role,
            params: inbox.params.take().unwrap_or_default(),
            stdin: std::mem::take(&mut inbox.stdin),
            data: std::mem::take(&mut inbox.data),
        };
        inbox.stdin.ended = started.stdin.ended;
        inbox.data.ended = started.data.ended;
        hub.settled();
        // There is room for more of its body now.
        self.tell_waiting(&state);
        self.settle(&mut state, hub);
        Some(started)
    }

    /// Waits for more of a running request's input and moves it to `into`.
    pub(crate) fn read(self: &Arc<Self>, id: u16, input: Input, into: &mut Stream, hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            if state.take_input(id, input, into)? {
                self.tell_waiting(&state);
                return Ok(());
            }
            if state.has_reader {
                state = self.wait_for_input(state, None).0;
                continue;
            }
            match inbox::obstacle(&state.inboxes, id, &hub.config) {
                None => {}
                Some(Obstacle::OtherStream) => return Err(wrong_order()),
                Some(Obstacle::Running) => {
                    state = self.wait_for_input(state, None).0;
                    continue;
                }
                Some(Obstacle::Queued) => {
                    let (woken, timed_out) = self.wait_for_input(state, Some(MAKE_WAY));
                    state = woken;
                    if !timed_out || state.has_reader {
                        continue;
                    }
                }
            }
            state = self.read_as_reader(state, hub)?;
        }
    }

    /// As [`read`](Self::read), without waiting; false when nothing has come. For the one thread of a process: nobody else
    /// takes what lies in the way.
    pub(crate) fn read_what_has_come(
        self: &Arc<Self>,
        id: u16,
        input: Input,
        into: &mut Stream,
        hub: &Hub,
    ) -> io::Result<bool> {
        let mut state = self.lock();
        loop {
            if state.take_input(id, input, into)? {
                return Ok(true);
            }
            if state.has_reader || state.out.len() >= UNREAD_ANSWERS {
                return Ok(false);
            }
            let came = self.read_some(&mut state, hub);
            match came {
                Ok(0) => self.on_end(&mut state, hub),
                Ok(_) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
                Err(_) => self.hang_up(&mut state, hub),
            }
            self.settle(&mut state, hub);
            if came == Err(Errno::WOULDBLOCK) {
                return Ok(false);
            }
        }
    }

    /// What becomes readable when something has come.
    pub(crate) fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Waits until input has come or the time is over; gives whether it is over.
    fn wait_for_input<'a>(
        &self,
        mut state: MutexGuard<'a, State>,
        timeout: Option<Duration>,
    ) -> (MutexGuard<'a, State>, bool) {
        state.waiting += 1;
        let (mut state, timed_out) = match timeout {
            None => (self.input_came.wait(state).unwrap_or_else(PoisonError::into_inner), false),
            Some(timeout) => {
                let woken = self.input_came.wait_timeout(state, timeout);
                let (state, late) = woken.unwrap_or_else(PoisonError::into_inner);
                (state, late.timed_out())
            }
        };
        state.waiting -= 1;
        (state, timed_out)
    }

    /// Reads once, waiting for it, on behalf of everybody on this connection.
    fn read_as_reader<'a>(
        self: &'a Arc<Self>,
        mut state: MutexGuard<'a, State>,
        hub: &Hub,
    ) -> io::Result<MutexGuard<'a, State>> {
        state.has_reader = true;
        let mut timed_out = false;
        let unread = state.out.len() >= UNREAD_ANSWERS;
        let at_once = if unread { Err(Errno::WOULDBLOCK) } else { self.read_some(&mut state, hub) };
        let result = match at_once {
            Err(Errno::WOULDBLOCK) => {
                self.settle(&mut state, hub);
                drop(state);
                let timeout = if unread { hub.config.write_timeout } else { hub.config.read_timeout };
                let ready = wait_for(&self.socket, Interest { read: !unread, write: unread }, timeout);
                state = self.lock();
                timed_out = matches!(ready, Ok(false));
                match () {
                    () if timed_out => Err(Errno::TIMEDOUT),
                    // What can be sent now is sent when the connection is settled.
                    () if unread => Err(Errno::WOULDBLOCK),
                    () => self.read_some(&mut state, hub),
                }
            }
            other => other,
        };
        state.has_reader = false;
        match result {
            Ok(0) => self.on_end(&mut state, hub),
            Ok(_) | Err(Errno::WOULDBLOCK | Errno::INTR) => {}
            Err(_) => self.hang_up(&mut state, hub),
        }
        self.tell_waiting(&state);
        self.settle(&mut state, hub);
        if timed_out {
            tracing::warn!("connection closed: {}", if unread { ANSWER_LATE } else { REQUEST_LATE });
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(state)
    }

    /// Sends the last records of a running request; what the socket does not take now is sent when it does. The request
    /// has ended.
    pub(crate) fn finish(self: &Arc<Self>, id: u16, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        let result = self.send_or_queue(&mut state, bytes, hub);
        state.inboxes.retain(|i| i.id != id);
        state.end_session_of(id);
        self.tell_waiting(&state);
        if hub.is_draining() && !state.has_reader {
            // A connection that is closed with a request unread is reset, and with it goes the answer.
            self.read_all(&mut state, hub);
        }
        self.settle(&mut state, hub);
        result
    }

    /// Whether a running request's answer is still wanted, after a look at what has come.
    pub(crate) fn is_aborted(self: &Arc<Self>, id: u16, hub: &Hub) -> bool {
        let mut state = self.lock();
        if !state.has_reader && matches!(state.phase, Phase::Open | Phase::HalfClosed) {
            if state.wants_input(&hub.config) {
                self.read_all(&mut state, hub);
                self.settle(&mut state, hub);
            } else if is_hung_up(&self.socket) {
                self.hang_up(&mut state, hub);
            }
        }
        state.inbox(id).is_none_or(|i| i.aborted)
    }
}

/// A Filter wants its file, but its body lies before it.
fn wrong_order() -> io::Error {
    io::Error::other("standard input is too long to be kept: read it before data")
}
