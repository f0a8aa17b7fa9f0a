//! Readiness: one epoll set, on which all threads of a process wait.
//!
//! With one thread, descriptors stay armed and events come in batches. With more, each descriptor is disarmed by its
//! event (one-shot) and events come one at a time: the thread that wakes handles it, what else is ready is left for the
//! next idle thread.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Listener(u32),
    /// Connections that other processes give away: those of sockets of this worker's own, or of shared ones.
    Given {
        is_own: bool,
    },
    Drain,
    Wake,
    /// A connection's place in the table, and which of its successive holders is meant.
    Connection {
        place: u32,
        holder: u32,
    },
}

impl Token {
    const LISTENER: u32 = u32::MAX;
    const DRAIN: u32 = u32::MAX - 1;
    const WAKE: u32 = u32::MAX - 2;
    const GIVEN: u32 = u32::MAX - 3;

    fn to_data(self) -> EventData {
        let (high, low) = match self {
            Self::Listener(number) => (Self::LISTENER, number),
            Self::Drain => (Self::DRAIN, 0),
            Self::Given { is_own } => (Self::GIVEN, u32::from(is_own)),
            Self::Wake => (Self::WAKE, 0),
            Self::Connection { place, holder } => (place, holder),
        };
        EventData::new_u64(u64::from(high) << 32 | u64::from(low))
    }

    fn from_data(data: EventData) -> Self {
        let (high, low) = ((data.u64() >> 32) as u32, data.u64() as u32);
        match high {
            Self::LISTENER => Self::Listener(low),
            Self::DRAIN => Self::Drain,
            Self::GIVEN => Self::Given { is_own: low > 0 },
            Self::WAKE => Self::Wake,
            place => Self::Connection { place, holder: low },
        }
    }
}

/// What a descriptor is watched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest {
    pub(crate) read: bool,
    pub(crate) write: bool,
}

impl Interest {
    pub(crate) const NONE: Self = Self { read: false, write: false };

    fn flags(self) -> EventFlags {
        let mut flags = EventFlags::empty();
        if self.read {
            flags |= EventFlags::IN | EventFlags::RDHUP;
        }
        if self.write {
            flags |= EventFlags::OUT;
        }
        flags
    }
}

/// The epoll set, and an event of its own that wakes a waiting thread.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    wake: OwnedFd,
    one_shot: bool,
}

impl Poll {
    pub(crate) fn new(threads: usize) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // A semaphore: each count wakes one thread.
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK | EventfdFlags::SEMAPHORE)?;
        epoll::add(&epoll, &wake, Token::Wake.to_data(), EventFlags::IN)?;
        Ok(Self { epoll, wake, one_shot: threads > 1 })
    }

    /// Whether an event disarms its descriptor.
    pub(crate) fn one_shot(&self) -> bool {
        self.one_shot
    }

    /// Watches a descriptor that several processes share: the system wakes one of them, not all.
    pub(crate) fn add_listener(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.to_data(), EventFlags::IN | EventFlags::EXCLUSIVE)?)
    }

    pub(crate) fn remove(&self, fd: impl AsFd) {
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Watches a descriptor that stays readable until somebody reads it.
    pub(crate) fn add_signal(&self, fd: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, token.to_data(), EventFlags::IN)?)
    }

    /// Watches a connection, for the first time (`new`) or for something else than before.
    pub(crate) fn arm(&self, fd: impl AsFd, token: Token, interest: Interest, new: bool) -> io::Result<()> {
        let mut flags = interest.flags();
        if self.one_shot {
            flags |= EventFlags::ONESHOT;
        }
        if new {
            epoll::add(&self.epoll, fd, token.to_data(), flags)?;
        } else {
            epoll::modify(&self.epoll, fd, token.to_data(), flags)?;
        }
        Ok(())
    }

    /// Waits for events and gives their tokens; none after `timeout`, or when a signal came.
    pub(crate) fn wait(&self, tokens: &mut Vec<Token>, timeout: Option<Duration>) -> io::Result<()> {
        const BATCH: usize = 64;
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; BATCH];
        let room = if self.one_shot { 1 } else { BATCH };
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        let count = match epoll::wait(&self.epoll, &mut events[..room], timeout.as_ref()) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => 0,
            Err(e) => return Err(e.into()),
        };
        tokens.extend(events[..count].iter().map(|e| Token::from_data(e.data)));
        Ok(())
    }

    /// Wakes one waiting thread, now or when it next waits.
    pub(crate) fn wake_one(&self) {
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Takes one wake-up back after its event was seen.
    pub(crate) fn woken(&self) {
        let _ = rustix::io::read(&self.wake, &mut [0; 8]);
    }
}

impl AsFd for Poll {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

/// Waits for one descriptor. `false` when the time is over; an error or a closed peer counts as ready, so that the
/// following read or write tells.
pub(crate) fn wait_for(fd: impl AsFd, interest: Interest, timeout: Option<Duration>) -> io::Result<bool> {
    let flags = if interest.read { PollFlags::IN } else { PollFlags::empty() }
        | if interest.write { PollFlags::OUT } else { PollFlags::empty() };
    // A time beyond all clocks is none.
    let deadline = timeout.and_then(|t| std::time::Instant::now().checked_add(t));
    loop {
        let left = deadline.map(|d| d.saturating_duration_since(std::time::Instant::now()));
        let left = left.and_then(|t| Timespec::try_from(t).ok());
        match poll(&mut [PollFd::new(&fd, flags)], left.as_ref()) {
            Ok(count) => return Ok(count > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Whether the peer has closed the whole connection, not only its sending side.
pub(crate) fn is_hung_up(fd: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&fd, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|n| n > 0)
}
