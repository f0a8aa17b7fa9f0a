//! What a parent sees of the connections of an entrance: whether some wait because nobody is there or all are busy. It reads nothing.
//!
//! As long as workers idle the system wakes one of them for a connection; the parent stands last in the line, and is woken
//! only if nobody else is.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::RecvFlags;

use super::reception::{Guest, Reception};
use crate::handover::{Channel, Given};
use crate::listener::Listener;

/// Connections that have waited for so long are more than the workers can serve.
const TOO_LONG: Duration = Duration::from_millis(50);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// What a parent knows of the connections of one entrance.
#[derive(Debug, Default)]
pub(super) struct Lobby {
    /// Watches the listeners behind all workers.
    line: Option<OwnedFd>,
    /// Whether the channel is watched, too.
    with_channel: bool,
    /// Since when connections have been seen waiting.
    waiting_since: Option<Instant>,
    next_look: Option<Instant>,
    /// Connections that the parent may answer itself.
    guests: Vec<Guest>,
    /// Connections that idle while nobody is there to hold them.
    held: Vec<Given>,
}

impl Lobby {
    /// Looks at what waits; whether it has waited too long. `nobody`: no worker is there. `can_grow`: one could be started.
    pub(super) fn look(
        &mut self,
        (listeners, channel): (&[Listener], &Channel),
        reception: Option<&Reception>,
        nobody: bool,
        can_grow: bool,
        now: Instant,
    ) -> bool {
        if !can_grow && reception.is_none() {
            *self = Self { held: std::mem::take(&mut self.held), ..Self::default() };
            return false;
        }
        if nobody {
            self.held.extend(std::iter::from_fn(|| channel.take()));
        }
        // What is in the channel is for workers alone.
        let with_channel = !nobody && can_grow;
        if self.line.is_none() || self.with_channel != with_channel {
            self.with_channel = with_channel;
            self.line = line(listeners, with_channel.then_some(channel));
        }
        if self.next_look.is_some_and(|at| at > now) {
            return false;
        }
        self.next_look = None;
        if nobody {
            self.waiting_since = None;
            return self.line.as_ref().is_some_and(|line| is_readable(line.as_fd())) | self.ask_held();
        }
        let guests = !self.guests.is_empty();
        if let Some(reception) = reception {
            reception.attend(&mut self.guests, channel, now);
        }
        if !guests && !self.line.as_ref().is_some_and(|line| is_readable(line.as_fd())) {
            self.waiting_since = None;
            return false;
        }
        let since = *self.waiting_since.get_or_insert(now);
        self.next_look = Some(now + LOOK);
        let too_long = now.saturating_duration_since(since) >= TOO_LONG;
        if let (true, false, Some(reception)) = (too_long, can_grow, reception) {
            reception.let_in(&mut self.guests, listeners, now);
            reception.attend(&mut self.guests, channel, now);
        }
        too_long
    }

    /// Whether something has come on a connection that is held; those that were closed are let go.
    fn ask_held(&mut self) -> bool {
        let mut anything = false;
        self.held.retain(|given| {
            let mut byte = [0];
            match rustix::net::recv(&given.socket, &mut byte[..], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
                Ok((0, _)) => false,
                Ok(_) => {
                    anything = true;
                    true
                }
                Err(e) => e == rustix::io::Errno::WOULDBLOCK || e == rustix::io::Errno::INTR,
            }
        });
        anything
    }

    /// Workers have come: they take what is held, and the parent goes to the end of the line again.
    pub(super) fn somebody_serves(&mut self, channel: &Channel) {
        self.line = None;
        self.waiting_since = None;
        self.held.retain(|given| channel.give(given.socket.as_fd(), given.is_tcp).is_err());
        self.guests.retain(|guest| !guest.leave(channel));
    }

    /// Nothing will be served any more but what has come.
    pub(super) fn close(&mut self, channel: &Channel) {
        self.somebody_serves(channel);
        self.held.clear();
    }

    pub(super) fn next_look(&self) -> Option<Instant> {
        self.next_look
    }

    pub(super) fn descriptors<'a>(&'a self, channel: &'a Channel, nobody: bool) -> Vec<BorrowedFd<'a>> {
        let mut all = Vec::new();
        if self.next_look.is_none()
            && let Some(line) = &self.line
        {
            all.push(line.as_fd());
            if nobody {
                all.push(channel.takers_end());
                all.extend(self.held.iter().map(|given| given.socket.as_fd()));
            }
        }
        all
    }
}

/// A place at the end of the line.
fn line(listeners: &[Listener], channel: Option<&Channel>) -> Option<OwnedFd> {
    let line = epoll::create(CreateFlags::CLOEXEC).ok()?;
    let sources = listeners.iter().map(AsFd::as_fd).chain(channel.map(Channel::takers_end));
    for source in sources {
        epoll::add(&line, source, EventData::new_u64(0), EventFlags::IN | EventFlags::EXCLUSIVE).ok()?;
    }
    Some(line)
}

fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|count| count > 0)
}
