//! The signals that a server obeys.
//!
//! A process that serves alone, as a web server or a process manager starts it:
//!
//! | signal | what happens |
//! | --- | --- |
//! | TERM, QUIT, USR1 | stop gracefully: what has begun is answered, what is new is refused, exit status 0 |
//! | INT | the same; a second one ends the process at once |
//! | PIPE | nothing: a client that left is an error of its request alone |
//!
//! A parent of workers obeys those of the [supervisor](crate::supervisor#signals).
//!
//! No thread is started for them: a handler writes to a socket that the server's poll set watches.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::consts::{SIGINT, SIGPIPE};
use signal_hook::{flag, low_level::pipe};

/// Those that say to stop.
const STOPPING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1];
/// Those that a parent of workers hears.
const OF_PARENT: [Signal; 8] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGWINCH,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCHLD,
];

/// Those that have handlers of this process's, or of Rust's own runtime, once they are [caught](catch): a child that runs a
/// program has its own.
pub(crate) const CAUGHT: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGPIPE,
    Signal::SIGSEGV,
    Signal::SIGBUS,
];

/// The exit status of a process that a second SIGINT ends, as shells report it.
const INTERRUPTED: i32 = 128 + SIGINT;

/// Catches the signals that stop a server. The descriptor becomes readable when one says to stop: give it to
/// [`Builder::drain_on`](crate::server::Builder::drain_on). What [`held_back`] has held back until then is heard now.
///
/// # Errors
/// When a handler cannot be installed.
pub fn catch() -> io::Result<OwnedFd> {
    let (stop, told) = UnixStream::pair()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, INTERRUPTED, interrupted.clone())?;
    flag::register(SIGINT, interrupted)?;
    for signal in STOPPING {
        pipe::register(signal as i32, told.try_clone()?)?;
    }
    survive_closed_pipes()?;
    SigSet::from_iter(STOPPING).thread_unblock()?;
    Ok(stop.into())
}

/// The signals that a parent of workers has heard and not yet obeyed.
#[derive(Debug)]
pub struct Heard {
    /// Becomes readable when one comes.
    wake: UnixStream,
    flags: [(Signal, Arc<AtomicBool>); OF_PARENT.len()],
}

impl Heard {
    /// Catches the signals of a parent of workers: TERM, INT, QUIT, WINCH, HUP, USR1, USR2, CHLD. Those that came while
    /// they were held back are heard now.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn catch() -> io::Result<Self> {
        let (wake, told) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        let flags = OF_PARENT.map(|signal| (signal, Arc::new(AtomicBool::new(false))));
        for (signal, heard) in &flags {
            flag::register(*signal as i32, heard.clone())?;
            pipe::register(*signal as i32, told.try_clone()?)?;
        }
        survive_closed_pipes()?;
        SigSet::from_iter(OF_PARENT).thread_unblock()?;
        Ok(Self { wake, flags })
    }

    /// Whether a signal has come since the last call.
    pub fn take(&self, signal: Signal) -> bool {
        self.flags.iter().any(|(known, heard)| *known == signal && heard.swap(false, SeqCst))
    }

    /// Lets the program that this process becomes hear what has been heard and not obeyed. To be called where they are
    /// [held back](all_held_back): until then, one may have come since the last call of [`take`](Self::take).
    pub(crate) fn leave(&self) {
        for (signal, heard) in &self.flags {
            if heard.swap(false, SeqCst) {
                let _ = nix::sys::signal::raise(*signal);
            }
        }
    }

    /// Makes the descriptor wait for the next signal.
    pub fn woken(&self) {
        while rustix::io::read(&self.wake, &mut [0; 64]).is_ok_and(|count| count > 0) {}
    }
}

impl AsFd for Heard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}

/// Starts a process that does not hear the signals to stop before it [catches](catch) them: one that came earlier would
/// kill it, and that would look like a failure.
///
/// # Errors
/// When the system refuses to hold signals back.
pub fn held_back<R>(start: impl FnOnce() -> R) -> io::Result<R> {
    hold(&STOPPING, start)
}

/// As [`held_back`], for all signals of a parent: one that becomes another program hears them when that program
/// [catches](Heard::catch) them.
///
/// # Errors
/// When the system refuses to hold signals back.
pub fn all_held_back<R>(start: impl FnOnce() -> R) -> io::Result<R> {
    hold(&OF_PARENT, start)
}

fn hold<R>(signals: &[Signal], start: impl FnOnce() -> R) -> io::Result<R> {
    let before = signals.iter().copied().collect::<SigSet>().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    before.thread_set_mask()?;
    Ok(started)
}

/// Whether a terminal may send signals that nobody meant (WINCH).
pub fn has_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}

/// A handler, not "ignore": a script's children would inherit that, and `yes | head -1` would never end.
fn survive_closed_pipes() -> io::Result<()> {
    flag::register(SIGPIPE, Arc::new(AtomicBool::new(false)))?;
    Ok(())
}
