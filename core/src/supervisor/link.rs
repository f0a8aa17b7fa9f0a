//! A worker's end of what it and its parent tell each other.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::control::{FromWorker, ToWorker};
use crate::handover::Channel;
use crate::inherit::{Passed, numbered};
use crate::listener::Listener;

/// A worker's connection to its parent, and when it is to end.
#[derive(Debug)]
pub struct Link {
    control: UnixStream,
    channel: Option<Channel>,
    /// Of the worker alone; a template has those of all workers.
    own: Vec<Own>,
    /// After so many requests the worker asks to be replaced.
    pub(crate) max_requests: Option<u64>,
    /// After so long without a request it may go.
    pub(crate) idle_timeout: Option<Duration>,
    /// A request that runs so long ends its process.
    pub(crate) kill_after: Option<Duration>,
}

/// What only one worker of a pool has.
#[derive(Debug)]
struct Own {
    place: u16,
    listeners: Vec<Listener>,
    channel: Option<Channel>,
}

impl Own {
    fn passed(passed: &mut Passed, place: u16) -> io::Result<Self> {
        let own = |fd| Listener::inherited(fd).map(Listener::owned);
        let listeners =
            passed.descriptors(&numbered("listener", place))?.into_iter().map(own).collect::<Result<_, _>>()?;
        Ok(Self { place, listeners, channel: Channel::passed(passed, place)? })
    }
}

/// What a worker hears of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    /// It has said this.
    Said(ToWorker),
    /// It has said no more.
    Nothing,
    /// It is no more.
    IsGone,
}

impl Link {
    /// Takes what the parent passed.
    ///
    /// # Errors
    /// When that is not a connection to it.
    pub fn new(passed: &mut Passed) -> io::Result<Self> {
        let control = passed.descriptor("control")?;
        let control = control.ok_or_else(|| io::Error::other("a worker without a connection to its parent"))?;
        let channel = Channel::passed(passed, 0)?;
        let places = passed.numbers_of("take").into_iter();
        let own = places.map(|place| Own::passed(passed, place)).collect::<Result<_, _>>()?;
        Ok(Self { control: control.into(), channel, own, max_requests: None, idle_timeout: None, kill_after: None })
    }

    /// Lets the worker be replaced after about so many requests: a tenth more or fewer, so that workers that were started
    /// together are not all replaced at the same time.
    #[must_use]
    pub fn max_requests(mut self, count: Option<u64>) -> Self {
        self.max_requests = count.map(|count| with_jitter(count, random()));
        self
    }

    /// Tells the parent when the worker has had no request for so long: it may be one too many.
    #[must_use]
    pub fn idle_timeout(mut self, time: Option<Duration>) -> Self {
        self.idle_timeout = time;
        self
    }

    /// Ends the process when a request runs longer than this. Only that request fails, if the process has one interpreter.
    #[must_use]
    pub fn kill_after(mut self, time: Option<Duration>) -> Self {
        self.kill_after = time;
        self
    }

    /// As the worker of a place has it that was forked.
    pub(super) fn of_worker(mut self, control: UnixStream, place: u16) -> Self {
        self.own.retain(|own| own.place == place);
        Self { control, ..self }
    }

    /// The worker's number in its pool, if it has sockets of its own; otherwise 0.
    pub fn place(&self) -> u16 {
        self.own.first().map_or(0, |own| own.place)
    }

    /// The sockets that this worker alone listens on.
    pub fn own_listeners(&self) -> impl Iterator<Item = &Listener> {
        self.own.iter().flat_map(|own| &own.listeners)
    }

    /// Becomes readable when the parent tells the worker to end, or is no more.
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn told(&self) -> io::Result<OwnedFd> {
        Ok(self.control.try_clone()?.into())
    }

    /// Tells the parent that this worker serves.
    pub fn say_ready(&self) {
        self.say(FromWorker::Ready);
    }

    pub(crate) fn say(&self, what: FromWorker) {
        // A parent that has gone is noticed elsewhere.
        let _ = (&self.control).write_all(&[what as u8]);
    }

    /// The next word of the parent.
    pub(crate) fn hear(&self) -> Word {
        let mut byte = [0];
        loop {
            match rustix::net::recv(&self.control, &mut byte[..], rustix::net::RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Word::Nothing,
                Ok((0, _)) | Err(_) => return Word::IsGone,
                // What is unknown is of a later version.
                Ok(_) => {
                    if let Some(what) = ToWorker::from_byte(byte[0]) {
                        return Word::Said(what);
                    }
                }
            }
        }
    }

    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// The channels for connections of shared sockets and of the worker's own.
    pub(crate) fn take_channels(&mut self) -> [Option<Channel>; 2] {
        [self.channel.take(), self.own.first_mut().and_then(|own| own.channel.take())]
    }

    pub(crate) fn take_own_listeners(&mut self) -> Vec<Listener> {
        self.own.drain(..).flat_map(|own| own.listeners).collect()
    }
}

/// A number that other processes do not have.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

fn with_jitter(count: u64, random: u64) -> u64 {
    let tenth = count / 10;
    (count - tenth + random % (2 * tenth + 1)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_is_a_tenth() {
        for (count, random, expected) in [(1000, 0, 900), (1000, 200, 1100), (1000, 201, 900), (1, 7, 1), (9, 7, 9)] {
            assert_eq!(with_jitter(count, random), expected, "{count} {random}");
        }
    }
}
