//! Environment and child processes of a script: `os.execute` and `io.popen`.
//!
//! The commands run as `system` and `popen` of the C library run them, but on the request's streams and with its
//! variables; see [`fcgi_core::child`].

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};

use fcgi_core::Request;
use fcgi_core::child::Streams;
use rustix::event::PollFlags;

use super::context::{self, Context};
use super::timeout;

/// `sh -c` with the environment that a script sees: the process's, overlaid by the request's variables.
fn shell(command: &[u8], request: &Request) -> Command {
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(OsStr::from_bytes(command));
    for (name, value) in request.params() {
        // What cannot be in an environment is left out.
        if !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0) {
            shell.env(OsStr::from_bytes(name), OsStr::from_bytes(value));
        }
    }
    shell
}

fn with_children<R>(context: &Context, f: impl FnOnce(&mut Streams, &mut Request) -> io::Result<R>) -> io::Result<R> {
    context.looked();
    let mut request = context.request.borrow_mut();
    let request = request.as_mut().ok_or_else(|| io::Error::other("no request is running"))?;
    let mut children = context.children.borrow_mut();
    let children = match children.as_mut() {
        Some(children) => children,
        None => children.insert(Streams::new()?),
    };
    f(children, request)
}

/// Goes on after signals, until the request's time is over.
fn uninterrupted<R>(mut wait: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match wait() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted && !timeout::is_over() => {}
            other => return other,
        }
    }
}

/// Waits for a child, which is ended when the request's time is over.
fn wait(children: &mut Streams, child: &mut Child, request: &mut Request) -> io::Result<i32> {
    let status = uninterrupted(|| children.wait(child, request));
    if status.is_err() {
        let _ = child.kill();
        let _ = child.wait();
    }
    Ok(status?.into_raw())
}

/// Runs a command to its end; gives its wait status.
pub(super) fn execute(command: &[u8]) -> io::Result<i32> {
    context::with(|context| {
        with_children(context, |children, request| {
            let mut child = children.spawn(&mut shell(command, request), request, false, false)?;
            wait(children, &mut child, request)
        })
    })
}

/// A command that the script reads from or writes to.
pub(super) struct Popen {
    child: Child,
    pipe: Option<OwnedFd>,
    flags: PollFlags,
    /// The C stream's buffer, which must live as long as the stream.
    pub(super) buffer: Box<[u8; super::stdio::BUFFER]>,
}

impl Popen {
    pub(super) fn start(command: &[u8], reads: bool) -> io::Result<Self> {
        context::with(|context| {
            with_children(context, |children, request| {
                let mut shell = shell(command, request);
                if reads {
                    shell.stdout(Stdio::piped());
                } else {
                    shell.stdin(Stdio::piped());
                }
                let mut child = children.spawn(&mut shell, request, !reads, reads)?;
                let stdout = child.stdout.take().map(OwnedFd::from);
                let pipe = stdout.or(child.stdin.take().map(OwnedFd::from));
                let flags = if reads { PollFlags::IN } else { PollFlags::OUT };
                Ok(Self { child, pipe, flags, buffer: Box::new([0; super::stdio::BUFFER]) })
            })
        })
    }

    /// Waits until the pipe is ready, and carries what the request's children read and write meanwhile.
    fn ready(&self) -> io::Result<Option<&OwnedFd>> {
        let Some(pipe) = &self.pipe else { return Ok(None) };
        context::with(|context| {
            // Without a request (a module kept the file) there is nothing to carry.
            if context.request.borrow().is_some() {
                with_children(context, |children, request| {
                    uninterrupted(|| children.carry(request, Some((pipe.as_fd(), self.flags)), None))
                })?;
            }
            Ok(Some(pipe))
        })
    }

    /// Ends the pipe and waits for the child; gives its wait status.
    pub(super) fn close(&mut self) -> io::Result<i32> {
        self.pipe = None;
        context::with(|context| {
            if context.timed_out.borrow().is_some() {
                self.child.kill()?;
            }
            if context.request.borrow().is_none() {
                return Ok(self.child.wait()?.into_raw());
            }
            with_children(context, |children, request| wait(children, &mut self.child, request))
        })
    }
}

impl Read for Popen {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self.ready()? {
            Some(pipe) => Ok(rustix::io::read(pipe, buf)?),
            None => Ok(0),
        }
    }
}

impl Write for Popen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full pipe takes some of it once it is ready, and blocks for the rest: no more than it surely takes at once.
        const SURE: usize = 4096;
        match self.ready()? {
            Some(pipe) => Ok(rustix::io::write(pipe, &bytes[..bytes.len().min(SURE)])?),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
