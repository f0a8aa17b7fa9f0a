//! What is known of a connection, and its end.

use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::hub::{self, Config};
use crate::inbox::{Inbox, Outgoing, Stage};
use crate::poll::{Interest, Token};
use crate::protocol::{ProtocolStatus, Session, encoder};

pub(crate) type Hub = hub::Hub<Connection>;

/// A peer that sends questions and does not read our answers is no longer read when this much waits for it.
pub(super) const UNREAD_ANSWERS: usize = 64 << 10;

pub(super) const REQUEST_LATE: &str = "the rest of a request did not come in time (--read-timeout)";
pub(super) const ANSWER_LATE: &str = "an answer was not read in time (--write-timeout)";

#[derive(Debug)]
pub(crate) struct Connection {
    pub(super) socket: OwnedFd,
    pub(super) token: Token,
    pub(super) tcp: bool,
    /// It came by a socket of this worker's own.
    pub(super) is_own: bool,
    pub(super) state: Mutex<State>,
    /// Told to those who wait for input while another thread is the reader.
    pub(super) input_came: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) session: Session,
    pub(super) inboxes: Vec<Inbox>,
    pub(super) out: Outgoing,
    pub(super) phase: Phase,
    /// A request without FCGI_KEEP_CONN has ended: close when nothing is left to do.
    pub(super) close_when_done: bool,
    /// That request's input was still coming.
    pub(super) input_open: bool,
    /// A thread that works on a request is reading.
    pub(super) has_reader: bool,
    /// Threads that wait for input while another one is the reader. Telling nobody would cost a system call, too.
    pub(super) waiting: u32,
    pub(super) registered: bool,
    pub(super) armed: Interest,
    /// When something last came or went.
    pub(super) last_progress: u32,
    /// Nothing has come yet. Who connects has something to say; who has been answered may idle.
    pub(super) silent: bool,
    /// No request has begun yet.
    pub(super) is_new: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Open,
    /// The peer has ended its side, and still reads.
    HalfClosed,
    /// Our answer is complete; what the peer still sends is thrown away.
    Lingering,
    /// The connection is of no use any more.
    Gone,
}

impl Connection {
    pub(crate) fn socket(&self) -> &OwnedFd {
        &self.socket
    }

    /// Whether it came by a socket that is this worker's alone.
    pub(crate) fn is_own(&self) -> bool {
        self.is_own
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection is of no use any more: requests that nobody works on are dropped, others learn it.
    pub(super) fn hang_up(&self, state: &mut State, hub: &Hub) {
        state.phase = Phase::Gone;
        state.out = Outgoing::default();
        state.inboxes.retain_mut(|inbox| {
            inbox.aborted = true;
            if inbox.stage != Stage::Running {
                hub.settled();
            }
            inbox.stage == Stage::Running
        });
        self.tell_waiting(state);
    }

    pub(super) fn tell_waiting(&self, state: &State) {
        if state.waiting > 0 {
            self.input_came.notify_all();
        }
    }
}

impl State {
    /// Whether nothing of a request is here, and none of an answer: it is as it was when it was accepted.
    pub(super) fn is_idle(&self) -> bool {
        self.phase == Phase::Open
            && self.session.active() == 0
            && !self.session.inside_head()
            && self.inboxes.is_empty()
            && self.out.is_empty()
            && !self.has_reader
            && !self.close_when_done
    }

    pub(super) fn inbox(&mut self, id: u16) -> Option<&mut Inbox> {
        self.inboxes.iter_mut().find(|i| i.id == id)
    }

    /// A waiting request is no longer to be worked on.
    pub(super) fn forget(&mut self, id: u16, hub: &Hub) {
        let before = self.inboxes.len();
        self.inboxes.retain(|i| i.id != id);
        if self.inboxes.len() < before {
            hub.settled();
        }
    }

    /// Ends a request that the session had let in.
    pub(super) fn refuse_begun(&mut self, id: u16, why: &dyn std::fmt::Display) {
        tracing::warn!(id, "request refused: {why}");
        encoder::end_request(id, 0, ProtocolStatus::Overloaded, &mut self.out.bytes);
        self.end_session_of(id);
    }

    pub(super) fn end_session_of(&mut self, id: u16) {
        if let Some(ended) = self.session.end(id) {
            self.close_when_done |= !ended.keep_conn;
            self.input_open |= ended.input_open;
        }
    }

    /// Whether more may be read: no request holds more input than is kept, or another one waits for what comes behind it;
    /// and the peer reads our answers.
    pub(super) fn wants_input(&self, config: &Config) -> bool {
        match self.phase {
            Phase::Gone | Phase::HalfClosed => false,
            Phase::Lingering => true,
            Phase::Open => {
                self.out.len() < UNREAD_ANSWERS
                    && (self.inboxes.iter().all(|i| i.held() < config.body_buffer) || self.is_awaited(config))
            }
        }
    }

    /// One complete request that will close the connection: nothing more will come that the poll set would have to
    /// tell, so it is not told about it (a system call saved for each request of most web servers).
    pub(super) fn is_short_lived(&self) -> bool {
        let [inbox] = &self.inboxes[..] else { return false };
        !self.registered
            && self.out.is_empty()
            && !inbox.keep_conn
            && !inbox.awaited.abort
            && inbox.stdin.ended
            && inbox.data.ended
            && inbox.stage != Stage::Arriving
    }
}
