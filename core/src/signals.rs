//! The signals that a server obeys.
//!
//! | signal | what happens |
//! | --- | --- |
//! | TERM, QUIT, USR1 | stop gracefully: what has begun is answered, what is new is refused, exit status 0 |
//! | INT | the same; a second one ends the process at once |
//! | PIPE | nothing: a client that left is an error of its request alone |
//!
//! No thread is started for it: a handler writes to a socket that the server's poll set watches.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use signal_hook::consts::{SIGINT, SIGPIPE};
use signal_hook::{flag, low_level::pipe};

/// Those that say to stop.
const STOPPING: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR1];

/// The exit status of a process that a second SIGINT ends, as shells report it.
const INTERRUPTED: i32 = 128 + SIGINT;

/// Catches the signals above. The descriptor becomes readable when one says to stop: give it to
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
    // A handler, not "ignore": a script's children would inherit that, and `yes | head -1` would never end.
    flag::register(SIGPIPE, Arc::new(AtomicBool::new(false)))?;
    SigSet::from_iter(STOPPING).thread_unblock()?;
    Ok(stop.into())
}

/// Starts a process that does not hear the signals to stop before it [catches](catch) them: one that came earlier would
/// kill it, and that would look like a failure.
///
/// # Errors
/// When the system refuses to hold signals back.
pub fn held_back<R>(start: impl FnOnce() -> R) -> io::Result<R> {
    let before = SigSet::from_iter(STOPPING).thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = start();
    before.thread_set_mask()?;
    Ok(started)
}
