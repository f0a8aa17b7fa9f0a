//! The server as others see it who start and stop it: a service manager, a pid file, a log that is rotated.

use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::time::Instant;

use anyhow::Context;
use fcgi_core::supervisor::Observer;

use crate::log;
use crate::notify::Notifier;
use crate::options::System;
use crate::pid_file::PidFile;

/// The stack of a thread that only tells.
const STACK: usize = 64 << 10;

/// All of it; the end of the server is told when this goes.
#[derive(Debug)]
pub(crate) struct Service {
    notifier: Notifier,
    pid_file: Option<PidFile>,
    serves: bool,
    stops: bool,
}

impl Service {
    /// Takes what the environment and the options say. Called while the process has one thread.
    ///
    /// # Errors
    /// When a living process holds the pid file.
    pub(crate) fn start(system: &System) -> anyhow::Result<Self> {
        let pid_file = system.pid_file.as_deref().map(PidFile::claim).transpose()?;
        Ok(Self { notifier: Notifier::take(), pid_file, serves: false, stops: false })
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

    fn reloads(&mut self) {
        self.notifier.reloading();
    }

    fn becomes_new(&mut self) {
        log::becomes_new();
    }

    fn stops(&mut self) {
        self.stops = true;
        self.notifier.stopping();
    }

    fn reopens_log(&mut self) {
        log::reopen();
    }

    fn looks(&mut self, workers: usize) -> Option<Instant> {
        let what = match (self.stops, self.serves) {
            (true, _) => "stopping",
            (false, true) => "serving",
            (false, false) => "starting",
        };
        self.notifier.tell(|| format!("{what} with {workers} workers"))
    }
}
