//! Threads that each have a working directory of their own.
#![allow(unsafe_code)]

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Gives the calling thread a working directory and a umask of its own, as a process has: interpreters that share a
/// process run scripts of different directories at once.
///
/// # Errors
/// When the system refuses, which Linux does not.
pub fn own_directory() -> io::Result<()> {
    // SAFETY: what is unshared is this thread's view of directory and umask; no descriptor and no memory changes hands.
    Ok(unsafe { unshare_unsafe(UnshareFlags::FS) }?)
}
