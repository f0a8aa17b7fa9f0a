//! The log for a script (see [`Role::Logger`]): lines are gathered and handed over, some at a time, each time as the standard
//! input of one request. A request has those lines that came within a second, or as many as are worth a request at once.
//!
//! Clients never wait for it: what a logger cannot keep up with is counted and left out.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Config;
use super::backend::{Answer, Question, Stdin};
use crate::protocol::{Params, Role};

/// Lines that wait at most.
const WAITING: usize = 8192;
/// How long lines are gathered, and how many bytes of them.
const GATHERED_FOR: Duration = Duration::from_secs(1);
const GATHERED_BYTES: usize = 64 << 10;
/// What a script does not take or answer within this time, it will not.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where lines go to.
#[derive(Clone, Debug)]
pub(super) struct Log {
    lines: mpsc::Sender<String>,
    lost: Arc<AtomicUsize>,
}

impl Log {
    /// Hands a line over, without its end.
    pub(super) fn push(&self, line: String) {
        if self.lines.try_send(line).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// What hands lines to the script.
pub(super) struct Logger {
    script: PathBuf,
    backend: PathBuf,
    lines: mpsc::Receiver<String>,
    lost: Arc<AtomicUsize>,
    /// Held until the last line has been handed over.
    _unfinished: mpsc::Sender<()>,
}

/// Both ends of the log, if a script is to have it.
pub(super) fn of(config: &Config, unfinished: mpsc::Sender<()>) -> (Option<Log>, Option<Logger>) {
    let Some(script) = config.roles.logger.clone() else { return (None, None) };
    let (sender, lines) = mpsc::channel(WAITING);
    let lost = Arc::new(AtomicUsize::new(0));
    let log = Log { lines: sender, lost: lost.clone() };
    let logger = Logger { script, backend: config.backend.clone(), lines, lost, _unfinished: unfinished };
    (Some(log), Some(logger))
}

impl Logger {
    /// Until the front has stopped, and all lines have been handed over.
    pub(super) async fn run(mut self) {
        while let Some(text) = self.gather().await {
            match tokio::time::timeout(PATIENCE, self.hand_over(text)).await {
                Ok(Ok(0)) => {}
                Ok(Ok(status)) => tracing::error!("the logger {} ended with status {status}", self.script.display()),
                Ok(Err(why)) => tracing::error!("the logger {}: {why}", self.script.display()),
                Err(_) => tracing::error!("the logger {} takes no lines", self.script.display()),
            }
            let lost = self.lost.swap(0, Relaxed);
            if lost > 0 {
                tracing::warn!("the logger {} is too slow: {lost} lines are lost", self.script.display());
            }
        }
    }

    /// The next lines; `None` when there will be no more.
    async fn gather(&mut self) -> Option<Vec<u8>> {
        let mut text = self.lines.recv().await?.into_bytes();
        text.push(b'\n');
        let until = Instant::now() + GATHERED_FOR;
        while text.len() < GATHERED_BYTES
            && let Ok(Some(line)) = timeout_at(until, self.lines.recv()).await
        {
            text.extend_from_slice(line.as_bytes());
            text.push(b'\n');
        }
        Some(text)
    }

    async fn hand_over(&self, text: Vec<u8>) -> Result<u32, super::BackendError> {
        let mut params = Params::new();
        params.set(b"GATEWAY_INTERFACE", b"CGI/1.1");
        params.set(b"SERVER_SOFTWARE", concat!("fcgi-interpreters/", env!("CARGO_PKG_VERSION")).as_bytes());
        params.set(b"SCRIPT_FILENAME", self.script.as_os_str().as_bytes());
        params.set(b"CONTENT_TYPE", b"text/plain");
        params.set(b"CONTENT_LENGTH", text.len().to_string().as_bytes());
        let question =
            Question { role: Role::Logger, params: &params, stdin: Stdin::Text(text), data: None, body_timeout: None };
        Answer::ask(&self.backend, question).await?.end(None).await
    }
}
