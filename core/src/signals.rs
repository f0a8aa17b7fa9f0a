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

use signal_hook::consts::{SIGINT, SIGPIPE, SIGQUIT, SIGTERM, SIGUSR1};
use signal_hook::{flag, low_level::pipe};

/// The exit status of a process that a second SIGINT ends, as shells report it.
const INTERRUPTED: i32 = 128 + SIGINT;

/// Catches the signals above. The descriptor becomes readable when one says to stop: give it to
/// [`Builder::drain_on`](crate::server::Builder::drain_on).
///
/// # Errors
/// When a handler cannot be installed.
pub fn catch() -> io::Result<OwnedFd> {
    let (stop, told) = UnixStream::pair()?;
    let interrupted = Arc::new(AtomicBool::new(false));
    flag::register_conditional_shutdown(SIGINT, INTERRUPTED, interrupted.clone())?;
    flag::register(SIGINT, interrupted)?;
    for signal in [SIGTERM, SIGINT, SIGQUIT, SIGUSR1] {
        pipe::register(signal, told.try_clone()?)?;
    }
    // A handler, not "ignore": a script's children would inherit that, and `yes | head -1` would never end.
    flag::register(SIGPIPE, Arc::new(AtomicBool::new(false)))?;
    Ok(stop.into())
}
