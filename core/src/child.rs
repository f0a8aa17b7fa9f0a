//! Child processes of a script: what they read is the request's body, what they write belongs to its answer.
//!
//! Under CGI a child simply has the program's descriptors 0, 1 and 2. Here it gets pipes, and whoever waits for the child
//! carries the bytes meanwhile ([`Streams::carry`]); so it needs no thread, no temporary file, and holds no more than a
//! pipe does, however much a child says. A pipe is kept for the whole request: what one child leaves unread the
//! next one finds, as under CGI.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::request::Request;

/// A child that says nothing for so long is waited for while what was written before is sent.
const PATIENCE: Duration = Duration::from_millis(50);
/// Children that are still writing when the script has ended are waited for so long, as a CGI server would.
const LAST_WORDS: Duration = Duration::from_secs(10);

/// The pipes of one request's children.
#[derive(Debug)]
pub struct Streams {
    stdout: Pipe,
    stderr: Pipe,
    stdin: Body,
}

#[derive(Debug)]
struct Pipe {
    read: Option<OwnedFd>,
    /// Our copy of the end that children get; closed to learn when they have all gone.
    write: Option<OwnedFd>,
}

/// The request's body on its way to children.
#[derive(Debug)]
struct Body {
    read: OwnedFd,
    /// Closed when the whole body has gone in.
    write: Option<OwnedFd>,
    /// Taken from the request, not yet in the pipe.
    pending: Vec<u8>,
}

impl Streams {
    /// Makes the pipes. The body is taken from the request from now on: read it with [`read_body`](Self::read_body).
    ///
    /// # Errors
    /// When the process is out of descriptors.
    pub fn new() -> io::Result<Self> {
        let pipe = || -> io::Result<Pipe> {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            Ok(Pipe { read: Some(read), write: Some(write) })
        };
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        let stdin = Body { read, write: Some(write), pending: Vec::new() };
        Ok(Self { stdout: pipe()?, stderr: pipe()?, stdin })
    }

    /// Starts a command on the request's streams, except for those in `command` that were set already (`set_stdin`,
    /// `set_stdout` say so).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(
        &mut self,
        command: &mut Command,
        request: &mut Request,
        set_stdin: bool,
        set_stdout: bool,
    ) -> io::Result<Child> {
        if !set_stdin {
            self.feed(request);
            command.stdin(Stdio::from(self.stdin.read.try_clone()?));
        }
        let copy = |pipe: &Pipe| match &pipe.write {
            Some(write) => write.try_clone().map(Stdio::from),
            None => Ok(Stdio::null()),
        };
        if !set_stdout {
            command.stdout(copy(&self.stdout)?);
        }
        command.stderr(copy(&self.stderr)?);
        command.spawn()
    }

    /// Carries bytes between children and request until a child has exited.
    ///
    /// # Errors
    /// When it cannot be waited for; `Interrupted` when a signal came: called again, it waits on.
    pub fn wait(&mut self, child: &mut Child, request: &mut Request) -> io::Result<ExitStatus> {
        let pid = Pid::from_child(child);
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(exited) => self.carry(request, Some((exited.as_fd(), PollFlags::IN)), None)?,
            // A system without pidfd: look now and then.
            Err(_) => {
                while child.try_wait()?.is_none() {
                    self.carry(request, None, Some(Instant::now() + Duration::from_millis(5)))?;
                }
            }
        }
        let status = child.wait()?;
        // What it said last is in the pipes now.
        self.carry(request, None, Some(Instant::now()))?;
        Ok(status)
    }

    /// Carries bytes until `until` is ready, or the time has come; with neither, until all children have closed their
    /// ends.
    ///
    /// # Errors
    /// When the system cannot wait for descriptors; `Interrupted` when a signal came: called again, it goes on.
    pub fn carry(
        &mut self,
        request: &mut Request,
        until: Option<(BorrowedFd<'_>, PollFlags)>,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        let mut patience = Some(PATIENCE);
        loop {
            let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
            let timeout = [left, patience].into_iter().flatten().min();
            let ready = self.poll(until, timeout)?;
            if !ready.any() {
                if left.is_some_and(|l| l.is_zero()) {
                    return Ok(());
                }
                // The child takes its time: what was written before need not wait for it.
                if timeout == patience && patience.take().is_some() {
                    let _ = request.stdout().flush();
                }
                continue;
            }
            if ready.stdout {
                self.stdout.copy_to(&mut request.stdout());
            }
            if ready.stderr {
                self.stderr.copy_to(&mut request.stderr());
            }
            if ready.stdin {
                self.feed(request);
            }
            let all_closed = self.stdout.read.is_none() && self.stderr.read.is_none();
            let all_said = ready.until && !ready.stdout && !ready.stderr;
            let too_late = until.is_none() && deadline.is_some_and(|d| d + LAST_WORDS < Instant::now());
            if all_said || too_late || (until.is_none() && all_closed) {
                return Ok(());
            }
            if patience.is_none() && (ready.stdout || ready.stderr) {
                let _ = request.stdout().flush();
            }
        }
    }

    fn poll(&self, until: Option<(BorrowedFd<'_>, PollFlags)>, timeout: Option<Duration>) -> io::Result<Ready> {
        let sources = [
            self.stdout.read.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.stderr.read.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.stdin.write.as_ref().map(|fd| (fd.as_fd(), PollFlags::OUT)),
            until,
        ];
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut watched = fds.iter();
        let mut ready =
            sources.iter().map(|source| source.is_some() && watched.next().is_some_and(|fd| !fd.revents().is_empty()));
        let mut next = || ready.next().unwrap_or(false);
        Ok(Ready { stdout: next(), stderr: next(), stdin: next(), until: next() })
    }

    /// Moves body from the request into the pipe, as much as the pipe takes.
    fn feed(&mut self, request: &mut Request) {
        let Some(write) = &self.stdin.write else { return };
        loop {
            if self.stdin.pending.is_empty() {
                let mut block = vec![0; 16 << 10];
                match request.stdin().read(&mut block) {
                    Ok(count) if count > 0 => {
                        block.truncate(count);
                        self.stdin.pending = block;
                    }
                    _ => {
                        self.stdin.write = None;
                        return;
                    }
                }
            }
            match rustix::io::write(write, &self.stdin.pending) {
                Ok(count) => drop(self.stdin.pending.drain(..count)),
                Err(_) => return,
            }
        }
    }

    /// Reads the request's body where children have left it.
    ///
    /// # Errors
    /// As for the request's own stream.
    pub fn read_body(&mut self, request: &mut Request, buf: &mut [u8]) -> io::Result<usize> {
        let mut fds = [PollFd::new(&self.stdin.read, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let waiting = poll(&mut fds, Some(&now)).is_ok_and(|n| n > 0) && fds[0].revents().contains(PollFlags::IN);
        if waiting {
            return Ok(rustix::io::read(&self.stdin.read, buf)?);
        }
        if !self.stdin.pending.is_empty() {
            let count = buf.len().min(self.stdin.pending.len());
            buf[..count].copy_from_slice(&self.stdin.pending[..count]);
            self.stdin.pending.drain(..count);
            return Ok(count);
        }
        request.stdin().read(buf)
    }

    /// The script has ended: takes what children still say, until they have closed their streams or ten seconds are over.
    pub fn finish(mut self, request: &mut Request) {
        self.stdout.write = None;
        self.stderr.write = None;
        let deadline = Instant::now() + LAST_WORDS;
        while self.carry(request, None, Some(deadline)).is_err_and(|e| e.kind() == io::ErrorKind::Interrupted) {}
    }
}

struct Ready {
    stdout: bool,
    stderr: bool,
    stdin: bool,
    until: bool,
}

impl Ready {
    fn any(&self) -> bool {
        self.stdout || self.stderr || self.stdin || self.until
    }
}

impl Pipe {
    /// Copies what is in the pipe, once. Closes it at its end, and when nobody wants it any more: its writers then learn
    /// it as they would from a client that has left.
    fn copy_to(&mut self, to: &mut dyn Write) {
        let Some(from) = &self.read else { return };
        let mut block = [0; 16 << 10];
        let open = match rustix::io::read(from, &mut block) {
            Ok(0) => false,
            Ok(count) => to.write_all(&block[..count]).is_ok(),
            Err(e) => e == rustix::io::Errno::INTR,
        };
        if !open {
            self.read = None;
        }
    }
}
