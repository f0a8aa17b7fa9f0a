//! One child process: how it is started, what is said to it, how it ended.

use std::ffi::OsString;
use std::fmt::{self, Display, Formatter};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, kill_process, waitpid};

use super::control::{FromWorker, ToWorker};
use super::{TEMPLATE, template};
use crate::inherit::{self, Passed};
use crate::signals;

/// What is started as a worker.
#[derive(Clone, Debug)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// By what name it is called.
    pub name: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// What is set in its environment, besides what the parent has.
    pub environment: Vec<(OsString, OsString)>,
}

impl Program {
    /// This program, called as it was called. The path is that of the file: when it has been replaced, it is the new one
    /// that is started.
    pub fn this() -> Self {
        let mut arguments = std::env::args_os();
        let path = std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into());
        let name = arguments.next().unwrap_or_else(|| path.clone().into());
        Self { path, name, arguments: arguments.collect(), environment: Vec::new() }
    }

    /// As a command that is still to be run.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A descriptor that is passed on, and its name.
pub(super) type Named<'a> = (String, BorrowedFd<'a>);

/// How far a worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// It has not yet said that it serves.
    Starting,
    /// It serves.
    Ready,
    /// It has been told to end.
    Leaving,
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) pid: Pid,
    control: UnixStream,
    pub(super) stage: Stage,
    pub(super) started: Instant,
    /// Which sockets are its own; 0 where workers have none.
    pub(super) place: u16,
    /// Of the generation before a reload.
    pub(super) is_old: bool,
    /// Asks to be replaced.
    pub(super) is_spent: bool,
    /// It has closed its end, or has died.
    pub(super) is_deaf: bool,
    /// It has said that it has had nothing to do for long.
    pub(super) is_idle: bool,
    /// It has said that it is about to end itself, with a request that does not end.
    pub(super) is_late: bool,
    /// When it is told more plainly that it is to end.
    pub(super) leave_by: Option<Instant>,
    /// It has been told more plainly.
    pub(super) is_hurried: bool,
}

impl Worker {
    /// Starts a worker with descriptors by name. It has a process group of its own, so that it does not hear what a
    /// terminal says to its parent.
    /// `numbers` are passed by their names, too.
    pub(super) fn start(
        program: &Program,
        descriptors: Vec<Named<'_>>,
        place: u16,
        numbers: Vec<(String, i32)>,
    ) -> io::Result<Self> {
        Ok(Self { place, ..Self::start_with(program, descriptors, numbers)? })
    }

    /// Starts a process that forks workers.
    pub(super) fn start_template(program: &Program, descriptors: Vec<Named<'_>>) -> io::Result<Self> {
        Self::start_with(program, descriptors, vec![(TEMPLATE.to_owned(), 1)])
    }

    /// Lets this process, which is a template, fork a worker.
    pub(super) fn fork(&self, place: u16) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        Ok(Self { place, ..Self::new(template::ask(&self.control, theirs.into(), place)?, control, Stage::Starting) })
    }

    fn start_with(program: &Program, descriptors: Vec<Named<'_>>, mut pairs: Vec<(String, i32)>) -> io::Result<Self> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let mut copies: Vec<OwnedFd> = Vec::new();
        for (name, fd) in descriptors.into_iter().chain([("control".to_owned(), theirs.as_fd())]) {
            let copy = inherit::inheritable(fd)?;
            pairs.push((name, copy.as_raw_fd()));
            copies.push(copy);
        }
        let mut command = program.command();
        command.env(inherit::WORKER_FDS, Passed::to_text(&pairs)).stdin(Stdio::null()).process_group(0);
        let child = signals::held_back(|| command.spawn())??;
        Ok(Self::new(Pid::from_child(&child), control, Stage::Starting))
    }

    /// Takes over a worker that an earlier generation of this process started.
    pub(super) fn kept(pid: Pid, control: OwnedFd, place: u16, is_leaving: bool) -> Self {
        let stage = if is_leaving { Stage::Leaving } else { Stage::Ready };
        Self { is_old: true, place, ..Self::new(pid, UnixStream::from(control), stage) }
    }

    fn new(pid: Pid, control: UnixStream, stage: Stage) -> Self {
        Self {
            pid,
            control,
            stage,
            started: Instant::now(),
            place: 0,
            is_old: false,
            is_spent: false,
            is_deaf: false,
            is_idle: false,
            is_late: false,
            leave_by: None,
            is_hurried: false,
        }
    }

    /// Whether it works or is about to, and has not been told to end.
    pub(super) fn stays(&self) -> bool {
        self.stage != Stage::Leaving
    }

    /// Whether it fills a place in its pool: of this generation, and not to be replaced.
    pub(super) fn counts(&self) -> bool {
        self.stays() && !self.is_old && !self.is_spent
    }

    /// Tells it to end, until a certain time.
    pub(super) fn tell(&mut self, what: ToWorker, leave_by: Instant) {
        self.stage = Stage::Leaving;
        self.leave_by = Some(leave_by);
        // One that has died needs no telling.
        let _ = self.control.write_all(&[what as u8]);
    }

    /// Notes what it has said.
    pub(super) fn listen(&mut self) {
        let mut said = [0; 16];
        while let Ok(count) = rustix::io::read(&self.control, &mut said) {
            if count == 0 {
                self.is_deaf = true;
                return;
            }
            for byte in &said[..count] {
                match FromWorker::from_byte(*byte) {
                    Some(FromWorker::Ready) if self.stage == Stage::Starting => self.stage = Stage::Ready,
                    Some(FromWorker::Spent) => self.is_spent = true,
                    Some(FromWorker::Idle) => self.is_idle = true,
                    Some(FromWorker::Late) => self.is_late = true,
                    _ => {}
                }
            }
        }
    }

    /// Bytes that it keeps in memory.
    pub(super) fn memory(&self) -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.pid.as_raw_nonzero())).ok()?;
        let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
        Some(pages * rustix::param::page_size() as u64)
    }

    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process(self.pid, signal);
    }

    /// How it ended, if it has.
    pub(super) fn ended(&self) -> Option<End> {
        match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(None) | Err(rustix::io::Errno::INTR) => None,
            Ok(Some((_, status))) => Some(End { words: how_it_ended(status), is_its_own: is_its_own(status) }),
            // Somebody else has waited for it.
            Err(_) => Some(End { words: "has ended".to_owned(), is_its_own: false }),
        }
    }

    /// The parent's end of what both tell each other.
    pub(super) fn control(&self) -> &UnixStream {
        &self.control
    }
}

/// How a process ended.
#[derive(Debug)]
pub(super) struct End {
    /// In words.
    words: String,
    /// What it ran has ended it, as far as can be seen.
    pub(super) is_its_own: bool,
}

impl Display for End {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// Whether a process ended by itself, or by a signal that others do not send.
fn is_its_own(status: WaitStatus) -> bool {
    let of_others = [Signal::KILL, Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT];
    !status.terminating_signal().is_some_and(|signal| of_others.iter().any(|other| other.as_raw() == signal))
}

/// How a process ended, in words that follow its name.
pub fn how_it_ended(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => {
            format!("was killed by {}", signal_hook::low_level::signal_name(signal).unwrap_or("a signal"))
        }
        (None, None) => "ended".to_owned(),
    }
}
