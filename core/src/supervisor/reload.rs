//! From one program to the next: what a parent leaves to the program that it becomes, by its environment and open
//! descriptors.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use rustix::process::Pid;

use super::crew::Crew;
use super::worker::{Program, Worker};
use crate::handover::Channel;
use crate::inherit::{self, numbered, without_number};
use crate::listener::Listener;
use crate::scoreboard::Scoreboard;
use crate::signals::{self, Heard};

/// The variable that says what is left. Lines, the first of them a word that says why.
const KEPT: &str = "FCGI_SUPERVISOR";
/// The variable that names files which have changed, one in a line, to the program that is tried.
const CHANGED: &str = "FCGI_CHANGED";
const TRIAL: &str = "trial";
const RELOAD: &str = "reload";

/// What an earlier generation of this process has left: open sockets, and workers.
#[derive(Debug, Default)]
pub struct Kept {
    is_reload: bool,
    is_trial: bool,
    listeners: Vec<Listener>,
    workers: Vec<(String, Worker)>,
    channels: Vec<(String, u16, OwnedFd, OwnedFd)>,
    scoreboards: Vec<(String, OwnedFd)>,
    /// The first end of a channel, whose second one follows.
    giving: Option<OwnedFd>,
    changed: Vec<PathBuf>,
}

impl Kept {
    /// Takes what was left, if anything was. Called once, before the process has a second thread.
    ///
    /// # Errors
    /// When the variable names what is not there.
    pub fn take() -> io::Result<Self> {
        let Some(text) = inherit::variable(KEPT) else { return Ok(Self::default()) };
        let text = text.to_string_lossy();
        let mut lines = text.lines();
        let why = lines.next().unwrap_or_default();
        let mut kept = Self { is_reload: true, is_trial: why == TRIAL, ..Self::default() };
        let changed = inherit::variable(CHANGED).unwrap_or_default();
        let files = changed.as_bytes().split(|byte| *byte == b'\n').filter(|file| !file.is_empty());
        kept.changed = files.map(|file| OsStr::from_bytes(file).into()).collect();
        for line in lines {
            let bad = || io::Error::other(format!("{KEPT} has a line that says nothing: {line}"));
            kept.take_line(line).ok_or_else(bad)??;
        }
        Ok(kept)
    }

    fn take_line(&mut self, line: &str) -> Option<io::Result<()>> {
        let mut words = line.splitn(4, ' ');
        let (what, fd) = (words.next()?, words.next()?.parse::<RawFd>().ok()?);
        let (number, name) = (words.next()?.parse::<i32>().ok()?, words.next()?);
        let (what, place) = without_number(what);
        let fd = match inherit::take(fd) {
            Ok(fd) => fd,
            Err(e) => return Some(Err(e)),
        };
        match what {
            "listener" => match Listener::kept(fd, name, u32::try_from(number).ok().filter(|owner| *owner > 0)) {
                Ok(listener) => self.listeners.push(listener),
                Err(e) => return Some(Err(e)),
            },
            "scoreboard" => self.scoreboards.push((name.to_owned(), fd)),
            "give" => self.giving = Some(fd),
            "take" => self.channels.push((name.to_owned(), place, self.giving.take()?, fd)),
            "worker" | "leaving" => {
                let worker = Worker::kept(Pid::from_raw(number)?, fd, place, what == "leaving");
                self.workers.push((name.to_owned(), worker));
            }
            _ => return None,
        }
        Some(Ok(()))
    }

    /// Whether there is something to [take](Self::take).
    pub fn are_there() -> bool {
        std::env::var_os(KEPT).is_some()
    }

    /// Whether this process goes on from an earlier program: sockets that are not known by a name were passed to that one.
    pub fn is_reload(&self) -> bool {
        self.is_reload
    }

    /// Whether this process is only to try whether it could serve, and to end then. Its exit status tells.
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// Of one that is only tried: files that are said to have changed.
    pub fn changed(&self) -> &[PathBuf] {
        &self.changed
    }

    /// The socket of a [name](Listener::name), if it was left.
    pub fn listener(&mut self, name: &str) -> Option<Listener> {
        let at = self.listeners.iter().position(|listener| listener.name() == name)?;
        Some(self.listeners.swap_remove(at))
    }

    /// The workers of a pool.
    pub(super) fn workers(&mut self, pool: &str) -> Vec<Worker> {
        let (wanted, rest) = std::mem::take(&mut self.workers).into_iter().partition(|(name, _)| name == pool);
        self.workers = rest;
        wanted.into_iter().map(|(_, worker): (String, Worker)| worker).collect()
    }

    /// The channel of a place in a pool.
    pub(super) fn channel(&mut self, pool: &str, place: u16) -> Option<Channel> {
        let at = self.channels.iter().position(|(name, of, ..)| name == pool && *of == place)?;
        let (.., give, take) = self.channels.swap_remove(at);
        Some(Channel::from_ends(give, take))
    }

    /// The scoreboard of a pool, if it has as much room as the one that would be new.
    pub(super) fn scoreboard(&mut self, pool: &str, new: &Scoreboard) -> Option<Scoreboard> {
        let at = self.scoreboards.iter().position(|(name, _)| name == pool)?;
        let (_, fd) = self.scoreboards.swap_remove(at);
        let size = |fd: &dyn AsFd| rustix::fs::fstat(fd.as_fd()).ok().map(|stat| stat.st_size);
        if size(&fd) == size(new) { Scoreboard::open(fd).ok() } else { None }
    }

    /// What nobody has asked for: sockets that are no longer listened on, workers of pools that are no more.
    pub(super) fn rest(self) -> (Vec<Listener>, Vec<Worker>) {
        (self.listeners, self.workers.into_iter().map(|(_, worker)| worker).collect())
    }
}

/// Descriptors that the next program inherits, and the text that tells it so.
struct Left {
    text: String,
    descriptors: Vec<OwnedFd>,
}

impl Left {
    fn new(why: &str, crews: &[Crew]) -> io::Result<Self> {
        let mut left = Self { text: why.to_owned(), descriptors: Vec::new() };
        for crew in crews {
            for entrance in &crew.entrances {
                for listener in &entrance.listeners {
                    let owner = listener.owner().unwrap_or(0) as i32;
                    left.line("listener", listener.as_fd(), owner, listener.name())?;
                }
                for (what, end) in entrance.ends() {
                    left.line(&what, end, 0, &crew.pool.name)?;
                }
            }
            if let Some(scoreboard) = &crew.pool.scoreboard {
                left.line("scoreboard", scoreboard, 0, &crew.pool.name)?;
            }
            for worker in crew.workers() {
                let what = numbered(if worker.stays() { "worker" } else { "leaving" }, worker.place);
                left.line(&what, worker.control().as_fd(), worker.pid.as_raw_nonzero().get(), &crew.pool.name)?;
            }
        }
        Ok(left)
    }

    fn line(&mut self, what: &str, fd: impl AsFd, number: i32, name: &str) -> io::Result<()> {
        use std::fmt::Write;
        let copy = inherit::inheritable(fd)?;
        let _ = write!(self.text, "\n{what} {} {number} {name}", copy.as_raw_fd());
        self.descriptors.push(copy);
        Ok(())
    }
}

/// Starts the new program to see whether it could serve.
///
/// # Errors
/// When it cannot be started.
pub(super) fn start_trial(program: &Program, crews: &[Crew], changed: &BTreeSet<PathBuf>) -> io::Result<Child> {
    let left = Left::new(TRIAL, crews)?;
    let changed = changed.iter().map(|file| file.as_os_str()).collect::<Vec<_>>().join(OsStr::new("\n"));
    program.command().env(KEPT, &left.text).env(CHANGED, changed).stdin(Stdio::null()).stdout(Stdio::null()).spawn()
}

/// Becomes the new program; comes back only with an error.
pub(super) fn become_new(program: &Program, crews: &[Crew], heard: &Heard) -> io::Error {
    let left = match Left::new(RELOAD, crews) {
        Ok(left) => left,
        Err(e) => return e,
    };
    let mut command = program.command();
    command.env(KEPT, &left.text);
    let left = signals::all_held_back(|| {
        heard.leave();
        command.exec()
    });
    left.unwrap_or_else(|e| e)
}
