//! How a request is taken back while its answer is waited for.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::poll::Interest;

/// Takes back the request that its [`Client`](super::Client) is sending or waiting for: from another thread, or from
/// where the answer is received.
#[derive(Clone, Debug)]
pub struct Aborter(Arc<OwnedFd>);

impl Aborter {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Has ABORT_REQUEST sent (section 5.4), and no more of the body. The application still answers with END_REQUEST, and
    /// [`Client::request`](super::Client::request) still waits for it. When no request is under way, nothing happens.
    ///
    /// An application that has stopped reading its input does not see it: only a timeout ends that.
    pub fn abort(&self) {
        // It fails when there are 2^64 calls that nobody has seen, and then one more is of no use.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Whether it was called since it was last asked.
    pub(super) fn take(&self) -> bool {
        rustix::io::read(&self.0, &mut [0; 8]).is_ok()
    }

    /// Waits for the socket, or for [`abort`](Self::abort). `false` when the time is over.
    pub(super) fn wait_with(
        &self,
        socket: &OwnedFd,
        interest: Interest,
        timeout: Option<Duration>,
    ) -> io::Result<bool> {
        let read = if interest.read { PollFlags::IN } else { PollFlags::empty() };
        let write = if interest.write { PollFlags::OUT } else { PollFlags::empty() };
        let deadline = timeout.map(|t| Instant::now() + t);
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let left = left.and_then(|t| Timespec::try_from(t).ok());
            let mut fds = [PollFd::new(socket, read | write), PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut fds, left.as_ref()) {
                Ok(count) => return Ok(count > 0),
                Err(Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}
