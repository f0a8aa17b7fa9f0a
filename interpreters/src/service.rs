//! The server as others see it who start and stop it: a service manager, a pid file, a log that is rotated.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::Instant;

use anyhow::{Context, ensure};
use fcgi_core::supervisor::Observer;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::config::{self, Source};
use crate::notify::Notifier;
use crate::pid_file::PidFile;
use crate::{Options, log};

/// The stack of a thread that only tells.
const STACK: usize = 64 << 10;

/// All of it; the end of the server is told when this goes.
#[derive(Debug)]
pub(crate) struct Service {
    notifier: Notifier,
    pid_file: Option<PidFile>,
    /// The file that says what is served.
    configuration: Option<PathBuf>,
    serves: bool,
    stops: bool,
}

impl Service {
    /// Takes what the environment and the options say. Called while the process has one thread.
    ///
    /// # Errors
    /// When a living process holds the pid file.
    pub(crate) fn start(options: &Options) -> anyhow::Result<Self> {
        let notifier = Notifier::take();
        // The file of several pools is their master's.
        let path = options.system.pid_file.as_deref().filter(|_| notifier.master().is_none());
        let pid_file = path.map(PidFile::claim).transpose()?;
        if let Some(master) = notifier.master() {
            // Nobody would stop or reload it.
            set_parent_process_death_signal(Some(Signal::TERM))?;
            ensure!(getppid().is_some_and(|pid| pid.as_raw_nonzero().get() == master), "the master has ended");
        }
        let configuration = options.configuration.config.clone();
        Ok(Self { notifier, pid_file, configuration, serves: false, stops: false })
    }

    /// Tells how it is, in words, when it is time to; gives the next time.
    pub(crate) fn tell(&mut self, how: impl FnOnce() -> String) -> Option<Instant> {
        let what = match (self.stops, self.serves) {
            (true, _) => "stopping",
            (false, true) => "serving",
            (false, false) => "starting",
        };
        self.notifier.tell(|| format!("{what} {}", how()))
    }

    /// What a program that this one becomes must know.
    pub(crate) fn environment(&self) -> Vec<(std::ffi::OsString, std::ffi::OsString)> {
        self.notifier.variables()
    }

    /// Tells that a process serves that serves alone. What comes back is kept until it has served.
    ///
    /// # Errors
    /// When there can be no thread to tell that it lives.
    pub(crate) fn serve_alone(mut self) -> anyhow::Result<Alone> {
        self.serves();
        let (end, ended) = std::sync::mpsc::channel();
        let pulse = self.notifier.alive_every().map(|period| {
            let pulse = self.notifier.pulse()?;
            let beat = move || {
                while ended.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                    pulse.alive();
                }
            };
            std::thread::Builder::new().name("watchdog".to_owned()).stack_size(STACK).spawn(beat)
        });
        pulse.transpose().context("cannot start a thread")?;
        Ok(Alone { service: self, _end: end })
    }
}

/// A process that serves alone.
#[derive(Debug)]
pub(crate) struct Alone {
    service: Service,
    /// Ends the thread that tells that it lives.
    _end: Sender<()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.service.stops();
    }
}

impl Observer for Service {
    fn serves(&mut self) {
        if let Some(Err(e)) = self.pid_file.as_mut().map(PidFile::write) {
            tracing::error!("{e:#}");
        }
        self.serves = true;
        self.notifier.ready();
    }

    fn reloads(&mut self) -> Vec<(OsString, OsString)> {
        self.notifier.reloading();
        let said = self.configuration.as_deref().and_then(|file| Source::read(file).ok()?.passed_on());
        said.map(|text| (config::TEXT.into(), text.into())).into_iter().collect()
    }

    fn becomes_new(&mut self) {
        log::becomes_new();
        self.notifier.becomes_new();
    }

    fn stops(&mut self) {
        self.stops = true;
        self.notifier.stopping();
    }

    fn reopens_log(&mut self) {
        log::reopen();
    }

    fn looks(&mut self, workers: usize) -> Option<Instant> {
        self.tell(|| format!("with {workers} workers"))
    }
}
