//! Descriptors that the process was started with: descriptor 0 (the FastCGI specification, section 2.2), systemd's
//! `LISTEN_FDS`, those that a parent process of ours hands to its workers.
//!
//! The environment can only be believed once, and turning a number into an owned descriptor cannot be checked by the
//! compiler: both stand here and nowhere else.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_getfd, fcntl_setfd};

/// The first descriptor that systemd passes (`SD_LISTEN_FDS_START`).
const FIRST_LISTEN_FD: RawFd = 3;
/// Set by a parent process for its workers: names with numbers of descriptors, separated by commas.
pub const WORKER_FDS: &str = "FCGI_WORKER_FDS";

/// The listening socket on descriptor 0, if there is one. It moves to another number, and descriptor 0 becomes
/// `/dev/null`, so that no child process of a script ever holds the listener.
///
/// # Errors
/// When descriptors cannot be duplicated.
pub fn standard_input() -> io::Result<Option<OwnedFd>> {
    let stdin = io::stdin();
    if !is_listening(stdin.as_fd()) {
        return Ok(None);
    }
    let listener = fcntl_dupfd_cloexec(&stdin, FIRST_LISTEN_FD)?;
    let null = std::fs::File::open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(Some(listener))
}

/// Whether a descriptor is a socket that listens.
pub fn is_listening(fd: impl AsFd) -> bool {
    rustix::net::sockopt::socket_acceptconn(fd).unwrap_or(false)
}

/// The sockets that systemd passed (sd_listen_fds(3)); none when there are none or they are for another process. The
/// variables are removed, so that scripts do not see them.
///
/// # Errors
/// When `LISTEN_FDS` is no number, or names a descriptor that is not open.
pub fn systemd() -> io::Result<Vec<OwnedFd>> {
    Ok(systemd_named()?.into_iter().map(|(_, fd)| fd).collect())
}

/// As [`systemd`], with the names of the sockets (`FileDescriptorName=`; empty when there are none).
///
/// # Errors
/// As for [`systemd`].
pub fn systemd_named() -> io::Result<Vec<(String, OwnedFd)>> {
    let count = std::env::var("LISTEN_FDS").ok();
    let (true, Some(count)) = (is_from_systemd(), count) else { return Ok(Vec::new()) };
    let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
    let names = names.split(':').map(str::to_owned).chain(std::iter::repeat(String::new()));
    for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] {
        forget(name);
    }
    let count: RawFd = count.parse().map_err(|_| io::Error::other(format!("LISTEN_FDS={count} is no number")))?;
    let numbers = FIRST_LISTEN_FD..FIRST_LISTEN_FD.saturating_add(count);
    names.zip(numbers).map(|(name, number)| Ok((name, take(number)?))).collect()
}

/// Whether systemd passed sockets to this process.
pub fn is_from_systemd() -> bool {
    std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string())
        && std::env::var_os("LISTEN_FDS").is_some()
}

/// What a parent process passed to this process: descriptors and numbers, by name.
#[derive(Debug, Default)]
pub struct Passed(Vec<(String, i32)>);

impl Passed {
    /// Takes the descriptors of a name, in the order in which they were passed.
    ///
    /// # Errors
    /// When one of them is not open.
    pub fn descriptors(&mut self, name: &str) -> io::Result<Vec<OwnedFd>> {
        let mut numbers = Vec::new();
        self.0.retain(|(known, number)| {
            if known == name {
                numbers.push(*number);
            }
            known != name
        });
        numbers.into_iter().map(take).collect()
    }

    /// Takes the first descriptor of a name, if there is one.
    ///
    /// # Errors
    /// As for [`descriptors`](Self::descriptors).
    pub fn descriptor(&mut self, name: &str) -> io::Result<Option<OwnedFd>> {
        Ok(self.descriptors(name)?.into_iter().next())
    }

    /// The numbers behind a name, as [`numbered`] writes them.
    pub(crate) fn numbers_of(&self, name: &str) -> Vec<u16> {
        let numbers = self.0.iter().map(|(known, _)| without_number(known));
        numbers.filter(|(known, number)| *known == name && *number > 0).map(|(_, number)| number).collect()
    }

    /// A number that is no descriptor.
    pub fn number(&self, name: &str) -> Option<i32> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
    }

    /// As a text for [`WORKER_FDS`].
    pub(crate) fn to_text(pairs: &[(String, i32)]) -> String {
        let pairs: Vec<String> = pairs.iter().map(|(name, number)| format!("{name}={number}")).collect();
        pairs.join(",")
    }
}

/// A name with a number behind it, of what there is several times; 0 is the name alone.
pub(crate) fn numbered(name: &str, number: u16) -> String {
    if number == 0 { name.to_owned() } else { format!("{name}.{number}") }
}

/// A name and the number behind it.
pub(crate) fn without_number(text: &str) -> (&str, u16) {
    let split = text.split_once('.').and_then(|(name, number)| Some((name, number.parse().ok()?)));
    split.unwrap_or((text, 0))
}

/// Whether a parent process of ours started this process.
pub fn is_worker() -> bool {
    std::env::var_os(WORKER_FDS).is_some()
}

/// What our parent process passed to this worker, if it is one.
///
/// # Errors
/// When the variable is no list of names and numbers.
pub fn parent() -> io::Result<Option<Passed>> {
    let Ok(list) = std::env::var(WORKER_FDS) else { return Ok(None) };
    forget(WORKER_FDS);
    let pair = |text: &str| {
        let (name, number) = text.split_once('=')?;
        Some((name.to_owned(), number.parse().ok()?))
    };
    let pairs: Option<Vec<_>> = list.split(',').map(pair).collect();
    pairs.map(|pairs| Some(Passed(pairs))).ok_or_else(|| io::Error::other(format!("{WORKER_FDS}={list} is no list")))
}

/// A variable that a process of ours left for this one. It is removed, so that scripts do not see it. Only for a process that
/// has one thread yet.
pub fn variable(name: &str) -> Option<std::ffi::OsString> {
    let value = std::env::var_os(name)?;
    forget(name);
    Some(value)
}

/// Takes a descriptor by its number; it will not be passed on to child processes.
///
/// # Errors
/// When no such descriptor is open.
pub fn take(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow lasts for the one call below, which fails cleanly on a number that is not open.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(number.max(0)) };
    let flags = fcntl_getfd(borrowed).map_err(|_| io::Error::other(format!("descriptor {number} is not open")))?;
    fcntl_setfd(borrowed, flags | FdFlags::CLOEXEC)?;
    // SAFETY: the descriptor is open, and whoever started us passed it for us alone to own; each number is taken once,
    // because the variables that name them are removed when they are read.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// A copy of a descriptor that child processes get under the same number, as long as it is open.
///
/// # Errors
/// When the process is out of descriptors.
pub fn inheritable(fd: impl AsFd) -> io::Result<OwnedFd> {
    // Not below 3: these numbers are replaced in the child.
    let copy = fcntl_dupfd_cloexec(fd, FIRST_LISTEN_FD)?;
    fcntl_setfd(&copy, fcntl_getfd(&copy)? - FdFlags::CLOEXEC)?;
    Ok(copy)
}

fn forget(name: &str) {
    // SAFETY: called while the process starts, before it has a second thread that could read the environment.
    unsafe { std::env::remove_var(name) };
}
