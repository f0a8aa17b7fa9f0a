//! A worker that makes way for others: what it does with its connections.

use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Server;
use super::running::Overdue;
use crate::connection::Connection;
use crate::listener::Listener;
use crate::poll::{Interest, wait_for};
use crate::supervisor::control::FromWorker;

/// Connections that have come and not been accepted, which a retiring worker takes at most.
const BACKLOG: usize = 1024;
/// How long to wait for room in the channel.
const PATIENCE: Duration = Duration::from_millis(200);

impl Server {
    /// Makes way for other processes: nothing is accepted any more, connections that idle are given to them, requests that
    /// have begun are answered here; then every [`accept`](Self::accept) gives `None`. Without other processes, as
    /// [`drain`](Self::drain).
    pub fn retire(&self) {
        if self.hub.channels().next().is_none() {
            return self.drain();
        }
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners: Vec<Listener> = listeners.drain(..).collect();
        for listener in &listeners {
            self.hub.poll.remove(listener);
        }
        // Nobody else may listen there any more. One that has not begun to serve, and may never do so, takes nothing: others have
        // served until now.
        let serves = !self.is_unready.load(Relaxed);
        if serves {
            // For what was given just now, the system may have woken this process and no other.
            self.take_all_given();
        } else {
            self.hub.channels().for_each(|(_, channel)| self.hub.poll.remove(channel.takers_end()));
        }
        for listener in listeners.into_iter().filter(|_| serves) {
            let is_tcp = matches!(listener.address(), crate::Address::Tcp { .. });
            let accepted = std::iter::from_fn(|| listener.accept(&self.allowed).ok().flatten());
            let is_own = listener.is_own;
            accepted.take(BACKLOG).for_each(|socket| Connection::open(&self.hub, socket, is_tcp, is_own));
        }
        // Not before: a process that retires and has no connection ends.
        self.hub.retire();
        self.give_away_idle();
        self.hub.wake_one();
        self.hub.nudge();
    }

    /// Gives away all connections that idle.
    pub(super) fn give_away_idle(&self) {
        for connection in self.hub.connections() {
            if connection.is_idle() && !connection.give_away(&self.hub) {
                let Some(channel) = self.hub.channel(connection.is_own()) else { return };
                let room = wait_for(channel.givers_end(), Interest { read: false, write: true }, Some(PATIENCE));
                if !room.unwrap_or(false) || (connection.is_idle() && !connection.give_away(&self.hub)) {
                    return;
                }
            }
        }
    }

    /// Gives away connections that idle here, and on which something has come. Those of sockets of this worker's own are for
    /// nobody else.
    pub(super) fn give_away_waiting(&self) {
        if self.hub.channel(false).is_none() {
            return;
        }
        let connections = self.hub.connections().into_iter();
        let idle: Vec<_> = connections.filter(|connection| !connection.is_own() && connection.is_idle()).collect();
        let mut fds: Vec<_> = idle.iter().map(|connection| PollFd::new(&**connection, PollFlags::IN)).collect();
        if fds.is_empty() || poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap_or(0) == 0 {
            return;
        }
        let waiting: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        for (connection, _) in idle.iter().zip(waiting).filter(|(_, is_waiting)| *is_waiting) {
            if !connection.give_away(&self.hub) {
                return;
            }
        }
    }

    /// Takes a connection that another process has given away.
    pub(super) fn take_given(&self, is_own: bool) {
        let Some(channel) = self.hub.channel(is_own) else { return };
        if self.hub.connection_count() >= self.hub.config.max_connections {
            return self.rest_for_connections();
        }
        if let Some(given) = channel.take() {
            Connection::open(&self.hub, given.socket, given.is_tcp, is_own);
        }
    }

    /// All that others have given away: nobody may take it later.
    pub(super) fn take_all_given(&self) {
        for (is_own, channel) in self.hub.channels() {
            self.hub.poll.remove(channel.takers_end());
            while let Some(given) = channel.take() {
                Connection::open(&self.hub, given.socket, given.is_tcp, is_own);
            }
        }
    }

    /// Whether all interpreters work on requests.
    pub(super) fn is_busy(&self) -> bool {
        self.at_work.load(Relaxed) >= self.hub.config.threads
    }

    /// Whether there is a request that may only take so long.
    pub(super) fn may_be_overdue(&self) -> bool {
        self.running.has_limit() && self.at_work.load(Relaxed) > 0
    }

    /// Ends the process when its requests do not end, even interrupted. The parent starts another one.
    pub(super) fn end_if_overdue(&self) {
        let overdue = self.running.overdue();
        // Others of this process may end as they would.
        if overdue != Overdue::None
            && !self.hub.is_retiring()
            && !self.is_spent.swap(true, Relaxed)
            && let Some(link) = &self.parent
        {
            link.say(FromWorker::Spent);
        }
        if overdue == Overdue::All {
            self.give_away_idle();
            if let Some(link) = &self.parent {
                link.say(FromWorker::Late);
            }
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::handover::Channel;
    use crate::poll::Token;

    /// The system may have woken this process, and none but it, before it was told to retire.
    #[test]
    fn a_connection_that_was_given_before_is_answered() {
        let mut server = Server::builder().start().unwrap();
        let channel = Channel::new().unwrap();
        let (mut client, given) = UnixStream::pair().unwrap();
        given.set_nonblocking(true).unwrap();
        // A request without parameters and body, for a responder.
        client
            .write_all(b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0\x01\x04\0\x01\0\0\0\0\x01\x05\0\x01\0\0\0\0")
            .unwrap();
        channel.give(given.as_fd(), false).unwrap();
        let hub = Arc::get_mut(&mut server.hub).unwrap();
        hub.poll.add_listener(channel.takers_end(), Token::Given { is_own: false }).unwrap();
        hub.channels = [Some(channel), None];
        server.retire();
        assert!(server.accept().unwrap().is_some());
        assert!(server.accept().unwrap().is_none());
    }
}
