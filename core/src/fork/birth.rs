//! A child, from its parent's fork to where its script can run: its pipes, its environment, what it must not have of the server.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, sigaction};
use nix::unistd::{ForkResult, fork};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Resource, Rlimit, Signal};

use super::Moment;
use crate::protocol::Params;
use crate::request::Request;
use crate::signals;

/// What every child is made with.
pub(super) struct Birth {
    /// Descriptors of the server that no child gets.
    servers: Vec<RawFd>,
    /// A stream at its end: the standard input of requests without a body.
    nothing: OwnedFd,
    /// Bytes that a script may take beyond what its interpreter has.
    memory: Option<usize>,
}

/// The parent's ends of a child's streams, and the child.
pub(super) struct Streams {
    pub(super) child: Pid,
    /// Where the body goes; `None` for a request without one.
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
}

/// Which of the two processes this is.
pub(super) enum Child {
    Parent(Streams),
    Itself,
}

impl Birth {
    /// # Errors
    /// When the system does not tell what is open, or has no pipe for us.
    pub(super) fn new(memory: Option<usize>) -> io::Result<Self> {
        let (nothing, _) = pipe_with(PipeFlags::CLOEXEC)?;
        let number = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().to_str()?.parse::<RawFd>().ok();
        let listed: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?.filter_map(number).collect();
        // One of them was the directory's.
        // SAFETY: the borrow lasts for a call that fails cleanly on a number that is not open.
        let is_open = |fd: &RawFd| rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(*fd) }).is_ok();
        let servers = listed.into_iter().filter(|fd| *fd > 2).filter(is_open).collect();
        Ok(Self { servers, nothing, memory })
    }

    /// Makes a child with the streams and the environment of a request. `connections` are descriptors that it does not
    /// get, besides those of the server.
    ///
    /// # Errors
    /// When the system has no process or no pipes for us.
    pub(super) fn give(
        &self,
        request: &Request,
        connections: &[RawFd],
        mut around: impl FnMut(Moment),
    ) -> io::Result<Child> {
        let (stdout, out) = pipe_with(PipeFlags::CLOEXEC)?;
        let (stderr, err) = pipe_with(PipeFlags::CLOEXEC)?;
        let body = if request.has_no_body() { None } else { Some(pipe_with(PipeFlags::CLOEXEC)?) };
        let parent = rustix::process::getpid();
        around(Moment::Before);
        // SAFETY: the one thread that runs scripts goes on in the child. A worker's steward holds no lock that the child needs
        // (the C library sees to its own); what others there may be, of C libraries, are those libraries' own affair, as it is
        // for every program that forks.
        let forked = unsafe { fork() };
        match forked {
            Ok(ForkResult::Child) => {}
            other => {
                around(Moment::InParent);
                let ForkResult::Parent { child } = other.map_err(io::Error::from)? else {
                    unreachable!("it is no child")
                };
                let child =
                    Pid::from_raw(child.as_raw()).ok_or_else(|| io::Error::other("a child without a number"))?;
                for end in [Some(&stdout), Some(&stderr), body.as_ref().map(|(_, write)| write)].into_iter().flatten() {
                    rustix::io::ioctl_fionbio(end, true)?;
                }
                return Ok(Child::Parent(Streams { child, stdin: body.map(|(_, write)| write), stdout, stderr }));
            }
        }
        let stdin = body.as_ref().map_or(&self.nothing, |(read, _)| read);
        let made = (|| -> io::Result<()> {
            // A parent that is killed takes its child along, which nobody would listen to.
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::other("the parent is gone"));
            }
            // What a terminal sends to the server is not for its scripts.
            rustix::process::setpgid(None, None)?;
            rustix::stdio::dup2_stdin(stdin)?;
            rustix::stdio::dup2_stdout(&out)?;
            rustix::stdio::dup2_stderr(&err)?;
            Ok(())
        })();
        if made.is_err() {
            std::process::abort();
        }
        for fd in self.servers.iter().chain(connections).copied() {
            // SAFETY: who owns it in this process never uses it again: the child does nothing but run a script, and then
            // exits without dropping anything.
            unsafe { rustix::io::close(fd) };
        }
        drop((stdout, stderr, out, err, body));
        forget_signals();
        set_environment(request.params());
        if let Some(memory) = self.memory {
            limit_memory(memory);
        }
        around(Moment::InChild);
        Ok(Child::Itself)
    }
}

/// Lets signals do what they do in a program that was just started.
fn forget_signals() {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    for signal in signals::CAUGHT {
        // SAFETY: the default needs no handler. It fails for no signal of these.
        let _ = unsafe { sigaction(signal, &default) };
    }
}

/// Adds a request's variables to the environment. What cannot be in one is left out.
fn set_environment(params: &Params) {
    for (name, value) in params {
        if name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0) {
            continue;
        }
        // SAFETY: the child has one thread.
        unsafe { std::env::set_var(std::ffi::OsStr::from_bytes(name), std::ffi::OsStr::from_bytes(value)) };
    }
}

/// Bounds what the process may take beyond what it has now.
fn limit_memory(bytes: usize) {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.as_deref().and_then(|text| text.split(' ').next()).and_then(|text| text.parse::<u64>().ok());
    let has = pages.unwrap_or_default() * rustix::param::page_size() as u64;
    let limit = Some(has + bytes as u64);
    let _ = rustix::process::setrlimit(Resource::As, Rlimit { current: limit, maximum: limit });
}
