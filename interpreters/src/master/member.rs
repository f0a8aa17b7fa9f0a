//! One pool, seen by the master: the process that is its parent, started, told, heard, started again.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use fcgi_core::supervisor::how_it_ended;
use fcgi_core::{inherit, signals};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

use super::definition::Definition;
use crate::{mode, notify};

/// What has lived so long has not failed at its start.
const LONG: Duration = Duration::from_secs(10);
/// Pauses before it is started again. After the first one, workers of the one that died have left its sockets.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

/// What it is to say next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Nothing,
    Ready,
    /// That it reloads, and then that it is ready.
    Reloading,
}

#[derive(Debug)]
struct Running {
    pid: Pid,
    /// Where it says how it is.
    socket: UnixDatagram,
    began: Instant,
    awaited: Awaited,
}

/// A pool, and its parent if that runs.
#[derive(Debug)]
pub(super) struct Member {
    definition: Definition,
    running: Option<Running>,
    /// It is ready, and has been told nothing new.
    pub(super) serves: bool,
    /// It has served at some time.
    has_served: bool,
    /// It is to run.
    pub(super) is_wanted: bool,
    /// What it said last of itself.
    pub(super) state: String,
    /// When it is started, if it does not run.
    not_before: Option<Instant>,
    pause: Duration,
}

impl Member {
    pub(super) fn new(definition: Definition) -> Self {
        Self {
            definition,
            running: None,
            serves: false,
            has_served: false,
            is_wanted: true,
            state: "starting".to_owned(),
            not_before: None,
            pause: FIRST_PAUSE,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.definition.name
    }

    pub(super) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// It has ended, and nobody told it to.
    fn has_failed(&self) -> bool {
        self.running.is_none() && self.not_before.is_some()
    }

    /// It has failed before it ever served.
    pub(super) fn does_not_start(&self) -> bool {
        self.has_failed() && !self.has_served
    }

    /// It serves, or has been seen to fail.
    pub(super) fn is_settled(&self) -> bool {
        self.serves || self.has_failed() || !self.is_wanted
    }

    /// Looks what it has said, and whether it has ended; starts it when that is due.
    pub(super) fn look_after(&mut self, now: Instant) {
        self.listen();
        self.bury(now);
        if self.is_wanted && self.running.is_none() && self.not_before.is_none_or(|at| at <= now) {
            match self.start() {
                Ok(running) => self.running = Some(running),
                Err(e) => {
                    let name = &self.definition.name;
                    tracing::error!("pool \"{name}\": cannot start {}: {e}", self.definition.program.path.display());
                    self.wait_longer(now);
                }
            }
        }
    }

    /// The signals of a parent are held back until it hears them: before, they would end it.
    fn start(&mut self) -> io::Result<Running> {
        let Definition { program, sockets, .. } = &self.definition;
        let (socket, theirs) = UnixDatagram::pair()?;
        socket.set_nonblocking(true)?;
        // A master that does not listen is not waited for.
        theirs.set_nonblocking(true)?;
        let theirs = inherit::inheritable(&theirs)?;
        let copies: Vec<OwnedFd> = sockets.iter().map(inherit::inheritable).collect::<Result<_, _>>()?;
        let mut command = program.command();
        command.env(notify::MASTER, format!("{} {}", std::process::id(), theirs.as_raw_fd()));
        if !copies.is_empty() {
            let numbers: Vec<String> = copies.iter().map(|copy| copy.as_raw_fd().to_string()).collect();
            command.env(mode::SOCKETS, numbers.join(" "));
        }
        // A terminal speaks to the master.
        command.stdin(Stdio::null()).process_group(0);
        let child = signals::all_held_back(|| command.spawn())??;
        (self.not_before, self.serves, self.state) = (None, false, "starting".to_owned());
        Ok(Running { pid: Pid::from_child(&child), socket, began: Instant::now(), awaited: Awaited::Ready })
    }

    fn listen(&mut self) {
        let Some(running) = &mut self.running else { return };
        let mut said = [0; 1024];
        while let Ok(count) = running.socket.recv(&mut said) {
            for line in String::from_utf8_lossy(&said[..count]).lines() {
                match (line, running.awaited) {
                    ("READY=1", Awaited::Ready) => {
                        tracing::info!(
                            "pool \"{}\" serves: process {}",
                            self.definition.name,
                            running.pid.as_raw_nonzero()
                        );
                        (running.awaited, self.serves, self.has_served) = (Awaited::Nothing, true, true);
                    }
                    ("RELOADING=1", Awaited::Reloading) => running.awaited = Awaited::Ready,
                    _ => {
                        if let Some(state) = line.strip_prefix("STATUS=") {
                            state.clone_into(&mut self.state);
                        }
                    }
                }
            }
        }
    }

    fn bury(&mut self, now: Instant) {
        let Some(running) = &self.running else { return };
        let how = match waitpid(Some(running.pid), WaitOptions::NOHANG) {
            Ok(None) | Err(rustix::io::Errno::INTR) => return,
            Ok(Some((_, status))) => how_it_ended(status),
            Err(_) => "has ended".to_owned(),
        };
        let (pid, lived) = (running.pid.as_raw_nonzero(), now.saturating_duration_since(running.began));
        (self.running, self.serves) = (None, false);
        if !self.is_wanted {
            return;
        }
        if lived >= LONG {
            self.pause = FIRST_PAUSE;
        }
        let pause = self.wait_longer(now);
        tracing::error!("pool \"{}\": process {pid} {how}: it is started again in {pause:?}", self.name());
    }

    /// What fails must not burn the processor. Gives the pause before the next attempt.
    fn wait_longer(&mut self, now: Instant) -> Duration {
        let pause = self.pause;
        self.not_before = Some(now + pause);
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        "waiting to be started again".clone_into(&mut self.state);
        pause
    }

    /// It is to be as the file has it now.
    pub(super) fn reload(&mut self, definition: Definition) {
        self.definition = definition;
        self.signal(Signal::HUP);
        if let Some(running) = &mut self.running {
            (running.awaited, self.serves) = (Awaited::Reloading, false);
        } else {
            // What the file says now may be what makes it start.
            (self.not_before, self.pause) = (None, FIRST_PAUSE);
        }
    }

    /// Tells it to end, and does not start it again.
    pub(super) fn end(&mut self, signal: Signal) {
        self.is_wanted = false;
        self.signal(signal);
    }

    pub(super) fn signal(&self, signal: Signal) {
        if let Some(running) = &self.running {
            // One that has just ended is buried soon.
            let _ = kill_process(running.pid, signal);
        }
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.running.as_ref().map(|running| running.socket.as_fd())
    }

    /// When it is to be started.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.not_before.filter(|_| self.is_wanted && self.running.is_none())
    }
}
