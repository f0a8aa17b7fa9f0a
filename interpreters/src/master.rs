//! The master of several pools, those of one configuration file: it starts the parent of each as a process of its own, passes
//! on the signals that it hears, and starts again what dies. It runs no script, and has nothing to do with requests: one
//! pool's trouble does not touch another.
//!
//! What a parent tells (that it is ready, reloads, how it is) it tells the master as it would tell a service manager; the
//! master tells the real one when all are ready. A reload is a look at the file: what is new in it is started, what has gone
//! is stopped gracefully, and all others are told to reload.
//!
//! file -> what each pool needs (`definition`) -> its parent (`member`) -> the loop

mod definition;
mod member;

use std::ffi::OsString;
use std::time::Instant;

use fcgi_core::signals::{Heard, has_terminal};
use nix::sys::signal::Signal as Heeded;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;

use crate::command_line::Order;
use crate::service::Service;
use crate::{Language, log};
use definition::{Definition, Sockets};
use fcgi_core::supervisor::Observer;
use member::Member;

/// The exit status of a process that a second SIGINT ends, as shells report it.
const INTERRUPTED: u8 = 130;

/// How far all of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Not all pools have served yet; none may fail.
    Starting,
    Serving,
    /// Those that are new, or were told to reload, are waited for.
    Reloading,
    /// With this exit status in the end.
    Stopping(u8),
}

struct Master<'a> {
    language: &'a Language,
    /// The command line, which is read again by a reload.
    words: Vec<OsString>,
    sockets: Sockets,
    heard: Heard,
    service: Service,
    members: Vec<Member>,
    stage: Stage,
    look_again: Option<Instant>,
}

/// Serves all pools of a file until it is told to stop; gives the exit status.
///
/// # Errors
/// What the user must mend before anything is started.
pub(crate) fn run(language: &Language, order: &Order) -> anyhow::Result<u8> {
    let sockets = Sockets::take()?;
    let definitions = definition::of(language, order, &sockets)?;
    let Some(first) = order.pools.first() else { return Ok(0) };
    log::start(&first.options, true, false)?;
    let heard = Heard::catch()?;
    let service = Service::start(&first.options)?;
    let words = first.line.whole.clone();
    let members = definitions.into_iter().map(Member::new).collect();
    let mut master =
        Master { language, words, sockets, heard, service, members, stage: Stage::Starting, look_again: None };
    loop {
        master.look_after();
        if let (Stage::Stopping(status), true) = (master.stage, master.members.is_empty()) {
            return Ok(status);
        }
        master.wait()?;
    }
}

impl Master<'_> {
    /// Does all that there is to do now.
    fn look_after(&mut self) {
        self.obey();
        let now = Instant::now();
        for member in &mut self.members {
            member.look_after(now);
        }
        self.members.retain(|member| member.is_wanted || member.is_running());
        match self.stage {
            Stage::Starting => {
                if let Some(member) = self.members.iter().find(|member| member.does_not_start()) {
                    tracing::error!("the pool \"{}\" does not start: all are stopped", member.name());
                    self.stop(Signal::TERM, crate::USAGE);
                } else if self.members.iter().all(|member| member.serves) {
                    self.serves();
                }
            }
            // One that fails now is started again and again, and the log says so: the others serve.
            Stage::Reloading if self.members.iter().all(Member::is_settled) => self.serves(),
            _ => {}
        }
        let state = || {
            let states = self.members.iter().map(|member| format!("{} ({})", member.name(), member.state));
            format!("{} pools: {}", self.members.len(), states.collect::<Vec<_>>().join(", "))
        };
        self.look_again = self.service.tell(state);
    }

    fn serves(&mut self) {
        self.stage = Stage::Serving;
        self.service.serves();
    }

    fn obey(&mut self) {
        self.heard.woken();
        let heard = |signal| self.heard.take(signal);
        // All of them are asked: each is heard once.
        let (int, term) = (heard(Heeded::SIGINT), heard(Heeded::SIGTERM));
        let (quit, winch) = (heard(Heeded::SIGQUIT), heard(Heeded::SIGWINCH) && !has_terminal());
        let (hup, usr2) = (heard(Heeded::SIGHUP), heard(Heeded::SIGUSR2));
        let _ = heard(Heeded::SIGCHLD);
        if heard(Heeded::SIGUSR1) {
            self.service.reopens_log();
            self.members.iter().for_each(|member| member.signal(Signal::USR1));
        }
        if int {
            let again = matches!(self.stage, Stage::Stopping(_));
            self.stop(Signal::INT, if again { INTERRUPTED } else { 0 });
        } else if term {
            self.stop(Signal::TERM, 0);
        } else if quit || winch {
            self.stop(Signal::QUIT, 0);
        } else if hup || usr2 {
            self.reload();
        }
    }

    /// Passes on how to stop. Each parent keeps to its pool's times.
    fn stop(&mut self, signal: Signal, status: u8) {
        let mut status = status;
        if let Stage::Stopping(before) = self.stage {
            status = status.max(before);
        } else {
            self.service.stops();
        }
        self.stage = Stage::Stopping(status);
        self.members.iter_mut().for_each(|member| member.end(signal));
    }

    fn reload(&mut self) {
        if matches!(self.stage, Stage::Stopping(_)) {
            return;
        }
        self.service.reloads();
        match definition::read(self.language, &self.words, &self.sockets) {
            Ok(definitions) => self.go_by(definitions),
            Err(mistakes) => {
                for mistake in mistakes {
                    tracing::error!("{mistake}");
                }
                tracing::error!("not reloaded: all pools go on as before");
                if self.stage == Stage::Serving {
                    self.service.serves();
                }
            }
        }
    }

    /// Makes the pools those of the file.
    fn go_by(&mut self, mut definitions: Vec<Definition>) {
        for member in self.members.iter_mut().filter(|member| member.is_wanted) {
            if let Some(at) = definitions.iter().position(|definition| definition.name == member.name()) {
                member.reload(definitions.swap_remove(at));
            } else {
                tracing::info!("the pool \"{}\" is no longer in the file: it is stopped", member.name());
                member.end(Signal::QUIT);
            }
        }
        self.members.extend(definitions.into_iter().map(Member::new));
        if self.stage == Stage::Serving {
            self.stage = Stage::Reloading;
        }
    }

    /// Waits until something happens, or is to be done.
    fn wait(&self) -> anyhow::Result<()> {
        let mut fds = vec![PollFd::new(&self.heard, PollFlags::IN)];
        fds.extend(
            self.members.iter().filter_map(Member::descriptor).map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)),
        );
        let times = self.members.iter().filter_map(Member::next_look).chain(self.look_again);
        let timeout = times.min().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}
