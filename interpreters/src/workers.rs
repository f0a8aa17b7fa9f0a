//! The parent of several processes: it starts them, restarts those that die, and passes the signal to stop on. It runs no
//! script, so no script can harm it.
//!
//! A worker is this same program, started with the same command line and the listening sockets.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use fcgi_core::{Listener, inherit, signals};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::SIGCHLD;

/// A worker that lived shorter than this failed at once.
const TOO_SHORT: Duration = Duration::from_secs(1);
/// Pauses before workers that fail at once are tried again.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(16);

struct Worker {
    child: Option<Child>,
    started: Instant,
    /// When it is to be started again.
    restart_at: Instant,
    pause: Duration,
}

/// When to stop, and how long that may take.
pub(crate) struct Stop {
    /// Becomes readable when the process is told to stop.
    pub(crate) signal: OwnedFd,
    /// With a front, which needs the workers until it has stopped: becomes readable then.
    pub(crate) front_stopped: Option<OwnedFd>,
    /// From the signal on; then workers that are still busy are ended.
    pub(crate) patience: Duration,
}

/// Runs `count` workers on the listeners until it is to stop; then waits for them.
///
/// # Errors
/// When the first workers cannot be started.
pub(crate) fn supervise(listeners: Vec<Listener>, count: u16, stop: &Stop) -> anyhow::Result<()> {
    let (child_died, told) = UnixStream::pair()?;
    child_died.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, told)?;
    // Closed, by us or by our end, it tells the workers to stop.
    let (workers_end, ours) = UnixStream::pair()?;
    let passed = Passed { listeners, stop: workers_end.into() };
    let now = Instant::now();
    let mut workers: Vec<Worker> = Vec::new();
    for _ in 0..count {
        let child = Some(start(&passed)?);
        workers.push(Worker { child, started: now, restart_at: now, pause: FIRST_PAUSE });
    }
    look_after(&mut workers, &passed, stop.signal.as_fd(), &child_died)?;
    let deadline = Instant::now() + stop.patience;
    if let Some(front_stopped) = &stop.front_stopped {
        look_after(&mut workers, &passed, front_stopped.as_fd(), &child_died)?;
    }
    // The workers have their own listeners; what connects from now on is refused once they have closed them.
    drop(passed);
    drop(ours);
    end(&mut workers, deadline, stop.patience);
    Ok(())
}

/// What every worker inherits.
struct Passed {
    listeners: Vec<Listener>,
    stop: OwnedFd,
}

/// Restarts workers that die, until a descriptor becomes readable.
fn look_after(
    workers: &mut [Worker],
    passed: &Passed,
    until: BorrowedFd<'_>,
    child_died: &UnixStream,
) -> io::Result<()> {
    loop {
        let next = workers.iter().filter(|w| w.child.is_none()).map(|w| w.restart_at).min();
        let stopping = wait(until, child_died.as_fd(), next)?;
        let _ = rustix::io::read(child_died, &mut [0; 64]);
        if stopping {
            return Ok(());
        }
        for worker in &mut *workers {
            worker.look_after(passed)?;
        }
    }
}

impl Worker {
    fn look_after(&mut self, passed: &Passed) -> io::Result<()> {
        if let Some(child) = &mut self.child
            && let Some(status) = child.try_wait()?
        {
            let pid = child.id();
            self.child = None;
            let short = self.started.elapsed() < TOO_SHORT;
            self.pause = if short { (self.pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            self.restart_at = Instant::now() + if short { self.pause } else { Duration::ZERO };
            let when = if short { format!(" in {:?}", self.pause) } else { String::new() };
            tracing::error!("worker {pid} {}: it is started again{when}", how_it_ended(status));
        }
        if self.child.is_none() && self.restart_at <= Instant::now() {
            match start(passed) {
                Ok(child) => self.child = Some(child),
                Err(e) => {
                    tracing::error!("cannot start a worker: {e}");
                    self.restart_at = Instant::now() + self.pause;
                }
            }
            self.started = Instant::now();
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(child) = &self.child {
            let _ = kill_process(Pid::from_child(child), signal);
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.as_mut().is_none_or(|child| !matches!(child.try_wait(), Ok(None)))
    }
}

fn start(passed: &Passed) -> io::Result<Child> {
    let fds = passed.listeners.iter().map(Listener::fd).chain([&passed.stop]);
    let numbers: io::Result<Vec<String>> =
        fds.map(|fd| inherit::pass_on(fd).map(|number| number.to_string())).collect();
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments).env(inherit::WORKER_FDS, numbers?.join(",")).stdin(Stdio::null());
    signals::held_back(|| command.spawn())?
}

/// Waits for a death or the time, or until it is to stop: gives whether it is.
fn wait(stop: BorrowedFd<'_>, child_died: BorrowedFd<'_>, until: Option<Instant>) -> io::Result<bool> {
    debug_assert_ne!(stop.as_raw_fd(), child_died.as_raw_fd());
    let mut fds = [PollFd::new(&stop, PollFlags::IN), PollFd::new(&child_died, PollFlags::IN)];
    loop {
        let timeout = until.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            // By a signal that wrote to one of them. To go on would be to restart workers that the same signal ended.
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// Lets the workers finish what they have begun; ends those that take too long.
fn end(workers: &mut [Worker], deadline: Instant, patience: Duration) {
    const LOOK_EVERY: Duration = Duration::from_millis(10);
    for worker in &*workers {
        worker.signal(Signal::TERM);
    }
    let mut killed = false;
    while !workers.iter_mut().all(Worker::has_ended) {
        if !killed && Instant::now() >= deadline {
            killed = true;
            tracing::warn!("some workers are still busy after {patience:?}: they are ended (--shutdown-timeout)");
            for worker in &*workers {
                worker.signal(Signal::KILL);
            }
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with status {code}"),
        (None, Some(signal)) => {
            format!("was killed by {}", signal_hook::low_level::signal_name(signal).unwrap_or("a signal"))
        }
        (None, None) => "ended".to_owned(),
    }
}
