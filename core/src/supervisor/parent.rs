//! The loop of the parent: it waits for signals, for what workers say, and for the time.

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::crew::Crew;
use super::reload::{self, Kept};
use super::sources::Sources;
use super::worker::Program;
use super::{Nobody, Observer, Plan, Pool, QUICK};
use crate::listener::Listener;
use crate::signals::{Heard, has_terminal};
use crate::status::window::Window;

/// The exit status of a process that a second SIGINT ends, as shells report it.
const INTERRUPTED: i32 = 130;

/// Looks after pools until the parent is told to stop and all workers have ended.
///
/// # Errors
/// When the first workers cannot be started, or the system cannot wait.
pub fn supervise(plan: Plan, mut kept: Kept, heard: Heard) -> io::Result<()> {
    let mut crews: Vec<Crew> = Vec::new();
    for mut pool in plan.pools {
        if let Some(known) = pool.scoreboard.as_ref().and_then(|new| kept.scoreboard(&pool.name, new)) {
            if let Some(desk) = pool.reception.as_mut().and_then(|reception| Arc::get_mut(&mut reception.desk)) {
                desk.pools
                    .iter_mut()
                    .filter(|told| told.name == pool.name)
                    .for_each(|told| told.scoreboard = known.clone());
            }
            // What is new may be mended.
            known.forget_demoted();
            pool.scoreboard = Some(known);
        }
        let (name, workers) = (pool.name.clone(), kept.workers(&pool.name));
        let channel = |place| kept.channel(&name, place);
        crews.push(Crew::new(pool, workers, channel, plan.shutdown_timeout)?);
    }
    let (no_longer_listened_on, of_no_pool) = kept.rest();
    if !of_no_pool.is_empty() {
        let mut crew = Crew::new(Pool::without_workers("", Vec::new()), of_no_pool, |_| None, plan.shutdown_timeout)?;
        crew.retire();
        crews.push(crew);
    }
    for at in 1..crews.len() {
        if crews[at].pool.forks_requests {
            let elsewhere = crews[at].givers_end()?;
            crews[at - 1].give_to(elsewhere);
        }
    }
    // Before a worker loads anything: what changes behind that is seen.
    let sources = plan.watched.map(Sources::watch).transpose()?;
    for crew in &mut crews {
        crew.begin()?;
    }
    let reception = crews.iter().find_map(|crew| crew.pool.reception.as_ref());
    let window = plan
        .answers_at
        .zip(reception)
        .map(|(listener, reception)| Window::open(listener, reception.allowed.clone(), reception.desk.clone()));
    let window = window.transpose()?;
    let mut program = Program::this();
    program.environment.extend(plan.environment);
    let shutdown_timeout = plan.shutdown_timeout;
    let observer = plan.observer;
    let mut parent = Parent {
        crews,
        heard,
        program,
        shutdown_timeout,
        no_longer_listened_on,
        trial: None,
        stop: None,
        observer,
        has_served: false,
        look_again: None,
        window,
        sources,
    };
    while parent.look_after() {
        parent.wait()?;
    }
    Ok(())
}

struct Parent {
    crews: Vec<Crew>,
    heard: Heard,
    /// What it becomes when it is reloaded.
    program: Program,
    shutdown_timeout: Duration,
    /// Open as long as workers from before a reload may take what waits there.
    no_longer_listened_on: Vec<Listener>,
    /// The new program, and a process that tries it.
    trial: Option<(Program, Child)>,
    stop: Option<Stop>,
    observer: Box<dyn Observer>,
    /// The observer knows that workers serve.
    has_served: bool,
    /// When the observer wants to be asked again.
    look_again: Option<Instant>,
    window: Option<Window>,
    /// Files that reload it when they change.
    sources: Option<Sources>,
}

/// The parent has been told to stop.
struct Stop {
    patience: Duration,
    deadline: Instant,
    has_killed: bool,
}

impl Parent {
    /// Does all that there is to do now; false when nothing is left.
    fn look_after(&mut self) -> bool {
        self.obey();
        let now = Instant::now();
        self.look_at_sources(now);
        for crew in &mut self.crews {
            crew.look_after(now);
        }
        self.bury_strangers();
        if !self.no_longer_listened_on.is_empty() && self.crews.iter().all(|crew| !crew.has_old()) {
            self.no_longer_listened_on.clear();
        }
        self.go_on_with_reload();
        self.go_on_with_stop(now);
        self.tell_observer();
        self.stop.is_none() || !self.crews.iter().all(Crew::is_empty)
    }

    /// Orphans that scripts have left become children of this process when workers do.
    fn bury_strangers(&self) {
        if !self.crews.iter().any(|crew| crew.pool.is_preloaded) {
            return;
        }
        let ended = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG;
        while let Some(pid) = waitid(Id::All, ended | WaitPidFlag::WNOWAIT).ok().and_then(|status| status.pid()) {
            let trial = self.trial.as_ref().is_some_and(|(_, trial)| i64::from(trial.id()) == i64::from(pid.as_raw()));
            // One of ours has its end looked at elsewhere.
            if trial || self.crews.iter().any(|crew| crew.has(pid.as_raw())) {
                return;
            }
            let _ = waitid(Id::Pid(pid), ended);
        }
    }

    fn obey(&mut self) {
        self.heard.woken();
        let heard = |signal| self.heard.take(signal);
        // All of them are asked: each is heard once.
        let (int, term) = (heard(Signal::SIGINT), heard(Signal::SIGTERM));
        let (quit, winch) = (heard(Signal::SIGQUIT), heard(Signal::SIGWINCH) && !has_terminal());
        let (hup, usr2) = (heard(Signal::SIGHUP), heard(Signal::SIGUSR2));
        let _ = heard(Signal::SIGCHLD);
        if heard(Signal::SIGUSR1) {
            self.observer.reopens_log();
        }
        if int && self.stop.is_some() {
            for crew in &self.crews {
                crew.kill();
            }
            // Ends are the system's now; sockets' files are ours.
            self.crews.clear();
            self.observer = Box::new(Nobody);
            std::process::exit(INTERRUPTED);
        }
        if int || term {
            self.stop(QUICK.min(self.shutdown_timeout));
        } else if quit || winch {
            self.stop(self.shutdown_timeout);
        } else if hup || usr2 {
            self.reload(&BTreeSet::new());
        }
    }

    /// Reloads when files have changed that are watched.
    fn look_at_sources(&mut self, now: Instant) {
        let Some(sources) = &mut self.sources else { return };
        sources.listen(now);
        let Some(files) = sources.settled(now).filter(|_| self.stop.is_none()) else { return };
        let first = files.first().map(|file| sources.shown(file).display().to_string()).unwrap_or_default();
        match files.len() {
            0 | 1 => tracing::info!("{first} changed: reloading"),
            count => tracing::info!("{first} and {} more changed: reloading", count - 1),
        }
        self.reload(&files);
    }

    fn tell_observer(&mut self) {
        if !self.has_served && self.stop.is_none() && self.crews.iter().all(Crew::serves) {
            self.has_served = true;
            self.observer.serves();
        }
        let workers = self.crews.iter().map(|crew| crew.workers().len()).sum();
        self.look_again = self.observer.looks(workers);
    }

    /// Begins to stop, or to stop sooner.
    fn stop(&mut self, patience: Duration) {
        let deadline = Instant::now() + patience;
        if self.stop.is_none() {
            self.observer.stops();
        }
        if self.stop.as_ref().is_none_or(|stop| stop.deadline > deadline) {
            self.stop = Some(Stop { patience, deadline, has_killed: false });
        }
    }

    fn go_on_with_stop(&mut self, now: Instant) {
        let Some(stop) = &mut self.stop else { return };
        self.no_longer_listened_on.clear();
        // What stands before the others needs them to the end of its requests.
        for crew in &mut self.crews {
            crew.stop(stop.deadline);
            if crew.pool.is_front && !crew.is_empty() {
                break;
            }
        }
        if !stop.has_killed && now >= stop.deadline && !self.crews.iter().all(Crew::is_empty) {
            stop.has_killed = true;
            tracing::warn!(
                "some workers are still busy after {:?}: they are ended (--shutdown-timeout)",
                stop.patience
            );
            for crew in &mut self.crews {
                crew.stop(now);
                crew.kill();
            }
        }
    }

    /// Tries what is new. `changed`: files that are said to have changed.
    fn reload(&mut self, changed: &BTreeSet<PathBuf>) {
        if self.stop.is_some() {
            return;
        }
        if let Some((_, mut earlier)) = self.trial.take() {
            // What it has read may be what has changed since.
            let _ = earlier.kill().and_then(|()| earlier.wait());
        }
        let mut program = self.program.clone();
        program.environment.extend(self.observer.reloads());
        match reload::start_trial(&program, &self.crews, changed) {
            Ok(child) => self.trial = Some((program, child)),
            Err(e) => {
                tracing::error!("cannot reload: {}: {e}", program.path.display());
                self.observer.serves();
            }
        }
    }

    /// Becomes the new program when that has been found fit.
    fn go_on_with_reload(&mut self) {
        let Some((_, process)) = &mut self.trial else { return };
        let Ok(Some(status)) = process.try_wait() else { return };
        let Some((program, _)) = self.trial.take() else { return };
        if self.stop.is_some() {
            return;
        }
        if !status.success() {
            tracing::error!("not reloaded: what is new does not start ({status}); all goes on as before");
            self.observer.serves();
            return;
        }
        tracing::info!("reloading");
        for crew in &mut self.crews {
            crew.put_back();
            crew.dismiss_template();
        }
        self.observer.becomes_new();
        let _nothing_is_accepted = self.window.as_ref().map(Window::pause);
        let why = reload::become_new(&program, &self.crews, &self.heard);
        tracing::error!("not reloaded: {}: {why}", program.path.display());
        self.observer.serves();
    }

    /// Waits until something happens, or is to be done.
    fn wait(&self) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.heard, PollFlags::IN)];
        let descriptors: Vec<_> = self.crews.iter().flat_map(Crew::descriptors).collect();
        fds.extend(self.sources.iter().map(|sources| PollFd::new(sources, PollFlags::IN)));
        fds.extend(descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)));
        let now = Instant::now();
        let times = self.crews.iter().filter_map(|crew| crew.next_look(now));
        let deadline = self.stop.iter().filter(|stop| !stop.has_killed).map(|stop| stop.deadline);
        let settled = self.sources.as_ref().and_then(Sources::next_look);
        let timeout = times
            .chain(deadline)
            .chain(self.look_again)
            .chain(settled)
            .min()
            .map(|at| at.saturating_duration_since(now));
        let timeout = timeout.and_then(|t| Timespec::try_from(t).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
