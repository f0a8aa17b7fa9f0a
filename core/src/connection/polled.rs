//! What an event loop does that works on many requests: nothing waits. What cannot be done now is noted in the request's
//! inbox, and [`Connection::changes`] tells when it can.

use std::io;
use std::sync::Arc;

use super::state::{Connection, Hub, Phase, State};
use super::{Started, wrong_order};
use crate::clock;
use crate::hub::Config;
use crate::inbox::{self, Inbox, Obstacle, Stage, Stream};
use crate::poll::is_hung_up;
use crate::protocol::session::Input;

/// What has changed for a running request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// The input has come that it waited for, or has ended.
    Readable,
    /// There is room for the output that was refused.
    Writable,
    /// Its answer is no longer wanted.
    Aborted,
}

impl Connection {
    /// As [`start`](Self::start), for a loop that knows the request as `key`.
    pub(crate) fn start_polled(self: &Arc<Self>, id: u16, key: u64, hub: &Hub) -> Option<Started> {
        let started = self.start(id, hub, false)?;
        self.adopt(id, key, hub);
        Some(started)
    }

    /// Lets a loop have a running request, which it knows as `key`.
    pub(crate) fn adopt(&self, id: u16, key: u64, hub: &Hub) {
        let mut state = self.lock();
        if let Some(inbox) = state.inbox(id) {
            inbox.awaited.key = key;
        }
        state.nudge_for_news(hub);
    }

    /// Moves what has come of a request's input to `into`.
    ///
    /// # Errors
    /// `WouldBlock` when nothing has: [`Change::Readable`] follows. `ConnectionAborted` when nothing ever will.
    pub(crate) fn try_read(&self, id: u16, input: Input, into: &mut Stream, hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        let taken = state.take_input(id, input, into)?;
        if !taken && matches!(inbox::obstacle(&state.inboxes, id, &hub.config), Some(Obstacle::OtherStream)) {
            return Err(wrong_order());
        }
        let awaited = (!taken).then_some(input);
        if let Some(inbox) = state.inbox(id) {
            let waits_since_now = awaited.is_some() && inbox.awaited.input.is_none();
            inbox.awaited.input = awaited;
            if waits_since_now {
                // The peer's time runs from here: until now we might not have read.
                state.last_progress = clock::seconds();
            }
        }
        self.settle_polled(&mut state, hub);
        if taken { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// Sends records of a running request; what the socket does not take is kept, if nothing was kept before.
    ///
    /// # Errors
    /// `WouldBlock` when the peer has not taken what was kept: nothing is sent, and [`Change::Writable`] follows.
    /// `BrokenPipe` and others when the connection is of no use any more.
    pub(crate) fn try_send(&self, id: u16, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        let mut state = self.lock();
        let Some(at) = state.inboxes.iter().position(|inbox| inbox.id == id) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        if !state.out.is_empty() {
            state.inboxes[at].awaited.output = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = self.send_or_queue(&mut state, bytes, hub);
        if result.is_ok() {
            state.inboxes[at].awaited.output = false;
            // Others are told first when there is room again.
            state.inboxes[at..].rotate_left(1);
        }
        if !state.out.is_empty() || state.phase == Phase::Gone {
            self.settle_polled(&mut state, hub);
        }
        result
    }

    /// As [`finish`](Self::finish), and the loop learns what follows from it.
    pub(crate) fn finish_polled(self: &Arc<Self>, id: u16, bytes: &[u8], hub: &Hub) -> io::Result<()> {
        let result = self.finish(id, bytes, hub);
        self.lock().nudge_for_news(hub);
        if hub.is_draining() {
            // It may have been the last one.
            hub.nudge();
        }
        result
    }

    /// Ends a request whose answer is not complete: `bytes` are sent, and then the connection is closed without an
    /// END_REQUEST. False when that would break other answers of the connection: then nothing has been done.
    pub(crate) fn break_off(self: &Arc<Self>, id: u16, bytes: &[u8], hub: &Hub) -> bool {
        let mut state = self.lock();
        if state.inboxes.len() > 1 || state.session.active() > 1 {
            return false;
        }
        state.close_when_done = true;
        drop(state);
        // Whoever has gone needs no broken answer.
        let _ = self.finish_polled(id, bytes, hub);
        true
    }

    /// Whether it has been noticed that a request is no longer wanted. From now on the connection is watched for it.
    pub(crate) fn watch_abort(&self, id: u16, hub: &Hub) -> bool {
        let mut state = self.lock();
        let Some(inbox) = state.inbox(id) else { return true };
        if !inbox.aborted && !std::mem::replace(&mut inbox.awaited.abort, true) {
            self.settle_polled(&mut state, hub);
        }
        state.inbox(id).is_none_or(|inbox| inbox.aborted)
    }

    /// Tells what has changed for running requests since they were told, after an event or because time has passed.
    pub(crate) fn changes(&self, hub: &Hub, mut tell: impl FnMut(u64, Change)) {
        let mut state = self.lock();
        let is_full = state.phase == Phase::Open && !state.inboxes.is_empty() && !state.wants_input(&hub.config);
        if is_full && is_hung_up(&self.socket) {
            // Nothing is read that would tell, and the poll set would tell it for ever.
            self.hang_up(&mut state, hub);
            self.settle(&mut state, hub);
        }
        let has_room = state.has_room();
        for inbox in state.inboxes.iter_mut().filter(|inbox| inbox.stage == Stage::Running) {
            let (aborted, readable, writable) = inbox.news(has_room, &hub.config);
            let key = inbox.awaited.key;
            if readable {
                inbox.awaited.input = None;
                tell(key, Change::Readable);
            }
            if writable {
                inbox.awaited.output = false;
                tell(key, Change::Writable);
            }
            if aborted {
                inbox.awaited.abort_told = true;
                tell(key, Change::Aborted);
            }
        }
    }

    /// Whether it has requests, or answers that have not been sent.
    pub(crate) fn is_serving(&self) -> bool {
        !self.lock().inboxes.is_empty() || self.is_leaving()
    }

    /// Settles the connection while the loop is not looking.
    fn settle_polled(&self, state: &mut State, hub: &Hub) {
        self.settle(state, hub);
        state.nudge_for_news(hub);
    }
}

impl State {
    /// Moves a running request's input to `into`, if some has come or it has ended.
    pub(super) fn take_input(&mut self, id: u16, input: Input, into: &mut Stream) -> io::Result<bool> {
        let gone = matches!(self.phase, Phase::Gone | Phase::HalfClosed);
        let Some(inbox) = self.inbox(id) else { return Err(io::ErrorKind::ConnectionAborted.into()) };
        let gone = gone || inbox.aborted;
        let stream = inbox.stream(input);
        if stream.bytes.is_empty() && !stream.ended {
            return if gone { Err(io::ErrorKind::ConnectionAborted.into()) } else { Ok(false) };
        }
        std::mem::swap(&mut into.bytes, &mut stream.bytes);
        stream.bytes.clear();
        into.ended = stream.ended;
        Ok(true)
    }

    /// Whether an event loop waits for input that can only come if more is read, and nothing stands in its way.
    pub(super) fn is_awaited(&self, config: &Config) -> bool {
        self.inboxes
            .iter()
            .any(|inbox| inbox.lacks_input() && inbox::obstacle(&self.inboxes, inbox.id, config).is_none())
    }

    fn has_room(&self) -> bool {
        self.out.is_empty() && self.phase != Phase::Gone
    }

    /// Wakes the loop if there is something to tell it that no event will.
    fn nudge_for_news(&mut self, hub: &Hub) {
        let has_room = self.has_room();
        let mut running = self.inboxes.iter_mut().filter(|inbox| inbox.stage == Stage::Running);
        if running.any(|inbox| inbox.news(has_room, &hub.config) != (false, false, false)) {
            hub.nudge();
        }
    }
}

impl Inbox {
    /// What the loop has not been told: that the request is aborted, can be read, can be written.
    fn news(&self, has_room: bool, config: &Config) -> (bool, bool, bool) {
        let aborted = self.aborted && !self.awaited.abort_told;
        // To read is an error when its other stream lies in the way.
        let readable = self.awaited.input.is_some() && (!self.lacks_input() || self.held() >= config.body_limit());
        (aborted, readable, self.awaited.output && has_room)
    }
}
