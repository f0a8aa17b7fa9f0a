//! Carries bytes between a request and the child that runs it: the body in, output and errors out, each as fast as the slower
//! side takes it; until the child has said all.

use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, WaitStatus, kill_process_group, pidfd_open, waitpid};

use super::birth::Streams;
use super::ended;
use crate::poll::is_hung_up;
use crate::request::Request;

/// Output that nothing has followed for so long is sent; from then on, all is sent as it comes.
const PATIENCE: Duration = Duration::from_millis(10);
/// How often a silent child's client is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Other processes that hold the output of a child that has ended are waited for so long.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// A child that has closed its output, and does not end within this time, works on without a client.
const LONGEST_END: Duration = Duration::from_millis(500);
/// How long a child that took too long may take to clean up.
const CLEANING: Duration = Duration::from_secs(3);
/// Bytes that are carried at once.
const BLOCK: usize = 64 << 10;
/// Bytes of the error stream that an error page can show.
const SHOWN: usize = 8 << 10;

/// How the request of a child has ended.
pub(super) enum Ended {
    /// By an exit status. What it said on its error stream, where that may be shown.
    Exited { status: u32, said: Vec<u8> },
    /// By a signal.
    Killed { signal: i32, said: Vec<u8> },
    /// It took too long; its client has been told.
    Late,
    /// It has closed its output, which ends the request, and lives.
    WorksOn { child: Pid },
}

pub(super) struct Relay {
    child: Pid,
    /// Becomes readable when the child has ended; `None` where the system has no such thing.
    exited: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Body that the pipe has not taken.
    pending: Vec<u8>,
    /// The request had no more of its body when it was asked.
    starved: bool,
    deadline: Option<Instant>,
    keeps_errors: bool,
    said: Vec<u8>,
    buffer: Vec<u8>,
    status: Option<WaitStatus>,
    /// When it was seen that the child had ended, or that it had closed its output.
    since: Option<Instant>,
    unsent: bool,
    patience: Option<Duration>,
}

impl Relay {
    pub(super) fn new(streams: Streams, timeout: Option<Duration>, keeps_errors: bool) -> Self {
        let Streams { child, stdin, stdout, stderr } = streams;
        Self {
            child,
            exited: pidfd_open(child, PidfdFlags::empty()).ok(),
            stdin,
            stdout: Some(stdout),
            stderr: Some(stderr),
            pending: Vec::new(),
            starved: false,
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
            keeps_errors,
            said: Vec::new(),
            buffer: vec![0; BLOCK],
            status: None,
            since: None,
            unsent: false,
            patience: Some(PATIENCE),
        }
    }

    /// Carries until the child has said all.
    ///
    /// # Errors
    /// When the system cannot wait.
    pub(super) fn carry(mut self, request: &mut Request) -> io::Result<Ended> {
        loop {
            self.feed(request);
            let any = self.wait(request)?;
            let said = self.take_output(request);
            if self.status.is_none() {
                self.status = waitpid(Some(self.child), WaitOptions::NOHANG)?.map(|(_, status)| status);
            }
            if let Some(ended) = self.has_ended() {
                return Ok(ended);
            }
            if self.status.is_none() && self.deadline.is_some_and(|at| Instant::now() >= at) {
                return self.end_late(request);
            }
            if said && self.patience.is_none() || !any && self.unsent {
                self.patience = None;
                self.unsent = false;
                if request.stdout().flush().is_err() {
                    self.give_up();
                }
            }
            if !any && self.stdout.is_some() && request.is_aborted() {
                self.give_up();
            }
        }
    }

    /// Nobody reads the answer: whoever writes on learns it as from a closed pipe.
    fn give_up(&mut self) {
        self.stdout = None;
        self.stdin = None;
    }

    /// Waits until something can be done; false when nothing has happened for a while.
    fn wait(&self, request: &Request) -> io::Result<bool> {
        let has_ended = self.status.is_some();
        let sources = [
            self.stdout.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.stderr.as_ref().map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.exited.as_ref().filter(|_| !has_ended).map(|fd| (fd.as_fd(), PollFlags::IN)),
            self.stdin.as_ref().filter(|_| !self.pending.is_empty()).map(|fd| (fd.as_fd(), PollFlags::OUT)),
            self.stdin.as_ref().filter(|_| self.pending.is_empty()).map(|fd| (fd.as_fd(), PollFlags::empty())),
            if self.stdin.is_some() && self.starved {
                request.input_source().map(|fd| (fd, PollFlags::IN))
            } else {
                None
            },
        ];
        let mut fds: Vec<PollFd<'_>> =
            sources.iter().flatten().map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        let now = Instant::now();
        let until = |at: Option<Instant>| at.map(|at| at.saturating_duration_since(now));
        let own = match (self.unsent, self.patience) {
            (true, Some(patience)) => patience,
            _ if self.exited.is_none() || self.since.is_some() => Duration::from_millis(5),
            _ => LOOK_EVERY,
        };
        let timeout = [Some(own), until(self.deadline.filter(|_| !has_ended))].into_iter().flatten().min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(count) => Ok(count > 0),
            Err(Errno::INTR) => Ok(true),
            Err(e) => Err(e.into()),
        }
    }

    /// Takes what the child has written; whether there was anything of its output.
    fn take_output(&mut self, request: &mut Request) -> bool {
        let buffer = &mut self.buffer;
        let mut any = false;
        if let Some(stdout) = &self.stdout {
            match rustix::io::read(stdout, &mut **buffer) {
                Ok(0) => self.stdout = None,
                Ok(count) => {
                    any = true;
                    self.unsent = true;
                    if request.stdout().write_all(&buffer[..count]).is_err() {
                        self.give_up();
                    }
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.stdout = None,
            }
        }
        let buffer = &mut self.buffer;
        if let Some(stderr) = &self.stderr {
            match rustix::io::read(stderr, &mut **buffer) {
                Ok(0) => self.stderr = None,
                Ok(count) => {
                    // A client that has gone does not change what the child does.
                    let _ = request.stderr().write_all(&buffer[..count]);
                    let room = if self.keeps_errors { SHOWN.saturating_sub(self.said.len()) } else { 0 };
                    self.said.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => self.stderr = None,
            }
        }
        any
    }

    /// Moves body from the request to the child, as much as there is and the pipe takes.
    fn feed(&mut self, request: &mut Request) {
        while let Some(stdin) = &self.stdin {
            if self.pending.is_empty() {
                let count = match request.try_read_stdin(&mut self.buffer) {
                    Ok(count) => count,
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {
                        self.starved = true;
                        if is_hung_up(stdin) {
                            // A child that has closed its input wants no more of it.
                            self.stdin = None;
                        }
                        return;
                    }
                    // An upload that broke off ends the stream, as it ends a CGI program's pipe.
                    Err(_) => 0,
                };
                self.starved = false;
                if count == 0 {
                    self.stdin = None;
                    return;
                }
                self.pending.extend_from_slice(&self.buffer[..count]);
            }
            match rustix::io::write(stdin, &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => return,
                // Nobody reads it.
                Err(_) => {
                    self.stdin = None;
                    self.pending.clear();
                }
            }
        }
    }

    /// Whether all has been said.
    fn has_ended(&mut self) -> Option<Ended> {
        let is_silent = self.stdout.is_none() && self.stderr.is_none();
        match self.status {
            Some(status) if is_silent => return Some(ended(status, std::mem::take(&mut self.said))),
            None if !is_silent => return None,
            _ => {}
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        match self.status {
            // Others hold its output.
            Some(status) => (since.elapsed() >= LAST_WORDS).then(|| ended(status, std::mem::take(&mut self.said))),
            None => (since.elapsed() >= LONGEST_END).then_some(Ended::WorksOn { child: self.child }),
        }
    }

    /// The time is over: the client is told, and the child is ended, with those that it has started in its group.
    fn end_late(mut self, request: &mut Request) -> io::Result<Ended> {
        // A part of the answer that has left cannot be taken back.
        if request.discard() {
            request.answer_with_error("504 Gateway Timeout", b"");
            let _ = request.finish(1);
        } else {
            let _ = request.break_off();
        }
        let _ = kill_process_group(self.child, Signal::TERM);
        let deadline = Instant::now() + CLEANING;
        let mut killed = false;
        loop {
            if waitpid(Some(self.child), WaitOptions::NOHANG)?.is_some() {
                return Ok(Ended::Late);
            }
            if !killed && Instant::now() >= deadline {
                killed = true;
                let _ = kill_process_group(self.child, Signal::KILL);
            }
            // It may have much to say as it ends, which nobody hears.
            self.wait(request)?;
            self.discard_output();
        }
    }

    fn discard_output(&mut self) {
        for end in [&mut self.stdout, &mut self.stderr] {
            if let Some(fd) = end
                && matches!(rustix::io::read(fd, &mut *self.buffer), Ok(0))
            {
                *end = None;
            }
        }
    }
}
