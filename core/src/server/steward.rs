//! A worker's second thread: it does what the parent says, and relieves the worker when that is stuck in a long request.
//!
//! A connection that idles here belongs to this process; what comes on it would wait until the request is over, although other
//! workers idle. So, when all interpreters have been busy with the same requests for some time, connections on which
//! something has come are given to whoever is idle. Requests pay nothing for it: the thread looks now and then whether
//! anything has changed, and sleeps as long as the worker does.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::Server;
use crate::supervisor::control::{FromWorker, ToWorker};
use crate::supervisor::link::Word;

/// How often it looks. A worker is stuck when nothing has changed between two looks.
const LOOK: Duration = Duration::from_millis(20);
/// After so long without a request it sleeps until one comes.
const SLEEPY: Duration = Duration::from_secs(1);

/// Starts the thread; it ends with the server.
pub(super) fn start(server: &Arc<Server>) -> io::Result<()> {
    let server = Arc::downgrade(server);
    thread::Builder::new().name("steward".to_owned()).spawn(move || Steward::new(server).run())?;
    Ok(())
}

struct Steward {
    server: Weak<Server>,
    /// What was seen at the last look, and since when it has been so.
    turn: u64,
    since: Instant,
    /// When the parent was last told that the worker idles.
    told_idle: Option<Instant>,
}

impl Steward {
    fn new(server: Weak<Server>) -> Self {
        Self { server, turn: 0, since: Instant::now(), told_idle: None }
    }

    fn run(mut self) {
        while let Some(server) = self.server.upgrade() {
            let Some(link) = &server.parent else { return };
            let mut is_told = self.wait(&server, link.control());
            while is_told {
                match link.hear() {
                    Word::Nothing => is_told = false,
                    Word::Said(ToWorker::Retire) => server.retire(),
                    Word::Said(ToWorker::Stop) => server.drain(),
                    Word::IsGone => {
                        server.drain();
                        return;
                    }
                }
            }
            self.look(&server);
        }
    }

    /// Waits for a word of the parent, or the time to look; while nothing happens, for something to happen. Gives whether the
    /// parent has said something.
    fn wait(&self, server: &Server, control: BorrowedFd<'_>) -> bool {
        let is_quiet = !server.is_busy() && self.since.elapsed() > SLEEPY && !server.hub.is_retiring();
        let is_idle = is_quiet && !server.may_be_overdue();
        let mut fds = vec![PollFd::from_borrowed_fd(control, PollFlags::IN)];
        let timeout = if is_idle {
            fds.push(PollFd::from_borrowed_fd(server.hub.poll.as_fd(), PollFlags::IN));
            server.parent.as_ref().and_then(|link| link.idle_timeout)
        } else {
            Some(LOOK)
        };
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        let _ = poll(&mut fds, timeout.as_ref());
        let is_told = !fds[0].revents().is_empty();
        if is_idle && !is_told && fds[1].revents().contains(PollFlags::IN) {
            // Whoever waits for the same is awake, too; what it does is seen later.
            thread::sleep(LOOK);
        }
        is_told
    }

    fn look(&mut self, server: &Server) {
        if server.may_be_overdue() {
            server.end_if_overdue();
        }
        let turn = server.turns.load(Relaxed);
        if turn != self.turn {
            self.turn = turn;
            self.since = Instant::now();
            self.told_idle = None;
            return;
        }
        if server.is_busy() {
            if server.hub.is_retiring() {
                server.give_away_idle();
            } else if !server.hub.is_loop() {
                server.give_away_waiting();
            }
        } else {
            self.tell_idle(server);
        }
    }

    /// Tells the parent, again and again, that the worker could go.
    fn tell_idle(&mut self, server: &Server) {
        let Some(link) = &server.parent else { return };
        let Some(timeout) = link.idle_timeout else { return };
        let since = self.told_idle.unwrap_or(self.since);
        if since.elapsed() >= timeout && server.at_work.load(Relaxed) == 0 {
            self.told_idle = Some(Instant::now());
            link.say(FromWorker::Idle);
        }
    }
}
