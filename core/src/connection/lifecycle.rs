//! From the accepted socket to the closed one: what wakes a connection, what it is watched for, when it ends.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::net::Shutdown;

use super::state::{ANSWER_LATE, Connection, Hub, Phase, REQUEST_LATE, State};
use crate::clock;
use crate::inbox::{Outgoing, Stage};
use crate::poll::{Interest, is_hung_up};
use crate::protocol::Session;

/// How long a closing connection waits for the peer to stop sending. (Closing with unread input would reset the
/// connection, and the reset can destroy the answer on its way.)
const LINGER: Duration = Duration::from_secs(2);

/// How long a server that stops waits for the first request of a connection: who has connected is about to send one.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

impl Connection {
    /// Takes over an accepted socket, and reads what has already come: nearly always the whole request. `is_own`: it came by
    /// a socket of this worker's own.
    pub(crate) fn open(hub: &Hub, socket: OwnedFd, tcp: bool, is_own: bool) {
        let state = State {
            session: Session::new(),
            inboxes: Vec::new(),
            out: Outgoing::default(),
            phase: Phase::Open,
            close_when_done: false,
            input_open: false,
            has_reader: false,
            waiting: 0,
            registered: false,
            armed: Interest::NONE,
            last_progress: clock::seconds(),
            silent: true,
            is_new: true,
        };
        let connection =
            hub.open(|token| Self { socket, token, tcp, is_own, state: Mutex::new(state), input_came: Condvar::new() });
        connection.on_event(hub);
    }

    /// The poll set said that something can be read or written.
    pub(crate) fn on_event(self: &Arc<Self>, hub: &Hub) {
        let mut state = self.lock();
        if hub.poll.one_shot() {
            state.armed = Interest::NONE;
        }
        if state.phase == Phase::Gone {
            return;
        }
        if !state.out.is_empty() && self.send_queued(&mut state).is_err() {
            self.hang_up(&mut state, hub);
        }
        if state.phase == Phase::HalfClosed && is_hung_up(&self.socket) {
            self.hang_up(&mut state, hub);
        }
        if !state.has_reader {
            self.read_all(&mut state, hub);
        }
        self.settle(&mut state, hub);
    }

    /// Sends answers of the session, closes the connection when nothing is left to do, otherwise sees to it that the poll
    /// set watches it for the right things.
    pub(super) fn settle(&self, state: &mut State, hub: &Hub) {
        if state.phase != Phase::Gone && !state.out.is_empty() && self.send_queued(state).is_err() {
            self.hang_up(state, hub);
        }
        let idle = state.session.active() == 0 && state.inboxes.is_empty() && state.out.is_empty();
        if hub.is_retiring() && !hub.is_draining() && state.is_idle() && self.give(hub) {
            state.phase = Phase::Gone;
        }
        let is_over = state.close_when_done || (hub.is_draining() && !state.silent);
        if idle && state.phase == Phase::Open && is_over {
            if state.input_open {
                state.phase = Phase::Lingering;
                let _ = rustix::net::shutdown(&self.socket, Shutdown::Write);
            } else {
                state.phase = Phase::Gone;
            }
        }
        if state.phase == Phase::HalfClosed && idle {
            state.phase = Phase::Gone;
        }
        if state.phase == Phase::Gone {
            if state.inboxes.is_empty() {
                hub.close(self.token);
            }
            if state.registered {
                state.registered = false;
                hub.poll.remove(&self.socket);
            }
            return;
        }
        let wanted = Interest {
            read: !state.has_reader && state.phase != Phase::HalfClosed && state.wants_input(&hub.config),
            write: !state.out.is_empty(),
        };
        let is_watched = state.registered || !state.inboxes.iter().any(|inbox| inbox.awaited.abort);
        if (wanted == state.armed && is_watched) || state.is_short_lived() {
            return;
        }
        match hub.poll.arm(&self.socket, self.token, wanted, !state.registered) {
            Ok(()) => {
                state.registered = true;
                state.armed = wanted;
            }
            Err(e) => {
                tracing::error!("connection closed: it cannot be watched: {e}");
                self.hang_up(state, hub);
                if state.inboxes.is_empty() {
                    hub.close(self.token);
                }
            }
        }
    }

    /// Whether another process could take it.
    pub(crate) fn is_idle(&self) -> bool {
        // Whoever holds the lock does something with it.
        self.state.try_lock().is_ok_and(|state| state.is_idle())
    }

    /// Gives the connection to another process, if it idles; whether that was done.
    pub(crate) fn give_away(&self, hub: &Hub) -> bool {
        let mut state = self.lock();
        if !state.is_idle() || !self.give(hub) {
            return false;
        }
        state.phase = Phase::Gone;
        self.settle(&mut state, hub);
        true
    }

    fn give(&self, hub: &Hub) -> bool {
        hub.channel(self.is_own).is_some_and(|channel| channel.give(self.socket.as_fd(), self.tcp).is_ok())
    }

    /// Closes the connection when its peer has kept it waiting for too long.
    pub(crate) fn check_time(&self, hub: &Hub) {
        let Ok(mut state) = self.state.try_lock() else { return };
        if state.has_reader || state.phase == Phase::Gone {
            return;
        }
        if hub.is_retiring() {
            // There may be room for it now.
            self.settle(&mut state, hub);
        }
        let config = &hub.config;
        let running = state.inboxes.iter().any(|i| i.stage != Stage::Arriving);
        let (limit, what) = if state.phase == Phase::Lingering {
            (Some(LINGER), "")
        } else if state.silent && hub.is_draining() {
            (Some(FIRST_REQUEST), "")
        } else if !state.out.is_empty() {
            (config.write_timeout, ANSWER_LATE)
        } else if running && !(state.is_awaited(config) && state.wants_input(config)) {
            return;
        } else if state.silent || state.session.inside_head() || !state.inboxes.is_empty() {
            (config.read_timeout, REQUEST_LATE)
        } else {
            (config.keepalive_timeout, "")
        };
        if limit.is_some_and(|limit| u64::from(clock::seconds().saturating_sub(state.last_progress)) > limit.as_secs())
        {
            if !what.is_empty() {
                tracing::warn!("connection closed: {what}");
            }
            self.hang_up(&mut state, hub);
            self.settle(&mut state, hub);
        }
    }

    /// Whether a server that stops still needs the poll set for it, although its requests have been answered: not all has
    /// been sent, or the peer has not taken it; or it is about to send its first request.
    pub(crate) fn is_leaving(&self) -> bool {
        let state = self.lock();
        let has_just_come = state.silent && state.phase == Phase::Open;
        has_just_come || state.phase == Phase::Lingering || !state.out.is_empty()
    }

    /// The server is stopping: an idle connection is closed.
    pub(crate) fn drain(&self, hub: &Hub) {
        let mut state = self.lock();
        self.settle(&mut state, hub);
    }
}
