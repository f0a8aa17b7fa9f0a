//! A worker that makes way for others: what it does with its connections.

use std::os::fd::AsFd;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Server;
use crate::connection::Connection;
use crate::handover::Given;
use crate::listener::Listener;
use crate::poll::{Interest, Token, wait_for};
use crate::supervisor::control::FromWorker;

/// Connections that have come and not been accepted, which a retiring worker takes at most.
const BACKLOG: usize = 1024;
/// How long a process whose requests do not end waits for another one to take its place.
const ALONE: Duration = Duration::from_secs(5);
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
        self.hub.channels().for_each(|(_, channel)| self.hub.poll.remove(channel.takers_end()));
        // Of what has just come, the system may have told this process and no other; and nobody else may listen there any more.
        // One that has not begun to serve, and may never do so, takes nothing: others have served until now.
        if !self.is_unready.load(Relaxed) {
            self.hub.channels().for_each(|(is_own, _)| self.pass_on_given(is_own));
            for listener in &listeners {
                self.pass_on(listener);
            }
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

    /// Gives connections that wait at a listener to whoever takes them, unread: whose request is read here is answered here.
    fn pass_on(&self, listener: &Listener) {
        let is_tcp = matches!(listener.address(), crate::Address::Tcp { .. });
        let accepted = std::iter::from_fn(|| listener.accept(&self.allowed).ok().flatten());
        accepted.take(BACKLOG).for_each(|socket| self.pass_on_one(Given { socket, is_tcp }, listener.is_own));
    }

    /// Gives what has been given already once more, which wakes somebody else.
    fn pass_on_given(&self, is_own: bool) {
        let Some(channel) = self.hub.channel(is_own) else { return };
        let given: Vec<Given> = std::iter::from_fn(|| channel.take()).collect();
        for one in given {
            self.pass_on_one(one, is_own);
        }
    }

    fn pass_on_one(&self, given: Given, is_own: bool) {
        // A socket of this worker's own may have no successor: who has time answers.
        let channel = self.hub.channel(is_own).filter(|_| !is_own || self.is_busy());
        if channel.is_none_or(|channel| channel.give(given.socket.as_fd(), given.is_tcp).is_err()) {
            Connection::open(&self.hub, given.socket, given.is_tcp, is_own);
        }
    }

    /// Of what the system has told this process alone, and it has no time to look at, others are told.
    fn pass_on_words(&self) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        let listener = |number: u32| listeners.get(number as usize).filter(|listener| !listener.is_own);
        events.retain(|token| match token {
            Token::Listener(number) => listener(*number).is_none_or(|listener| {
                self.pass_on(listener);
                false
            }),
            Token::Given { is_own: false } => {
                self.pass_on_given(false);
                false
            }
            _ => true,
        });
    }

    /// Gives away connections that idle here, and on which something has come. Those of sockets of this worker's own are for
    /// nobody else.
    pub(super) fn give_away_waiting(&self) {
        if self.hub.channel(false).is_none() {
            return;
        }
        self.pass_on_words();
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

    /// Ends the process when its requests do not end, even interrupted: after another one has taken its place, and when nothing
    /// else is left here.
    pub(super) fn end_if_overdue(&self) {
        let (Some(overdue), Some(link)) = (self.running.overdue(), &self.parent) else { return };
        if !self.hub.is_retiring() {
            self.ask_to_be_replaced();
        }
        let is_alone = overdue.since > ALONE;
        if overdue.others > 0 || !(self.hub.is_retiring() || is_alone) {
            return;
        }
        if is_alone {
            self.retire();
        }
        self.give_away_idle();
        // A request that has begun to come, or an answer that is still on its way, is somebody else's.
        if self.hub.connection_count() <= overdue.count || is_alone {
            link.say(FromWorker::Late);
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

    /// The system may have woken this process, and none but it, before it was told to retire: it tells the others.
    #[test]
    fn a_connection_that_was_given_before_goes_to_others_unread() {
        let mut server = Server::builder().start().unwrap();
        let channel = Channel::new().unwrap();
        let [(_, give), (_, take)] = channel.ends();
        let of_others = Channel::from_ends(give.try_clone_to_owned().unwrap(), take.try_clone_to_owned().unwrap());
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
        assert!(server.accept().unwrap().is_none());
        let given = of_others.take().unwrap();
        assert_eq!(rustix::io::read(&given.socket, &mut [0; 64]), Ok(32));
    }
}
