//! The slow log: an entry for each request that has run for long, with the place in its script where it is then.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::log_file::{LogFile, escape, time};
use crate::protocol::Params;
use crate::scoreboard::{Counter, Scoreboard};

/// Where entries go, and when a request has one.
#[derive(Debug)]
pub struct SlowLog {
    file: LogFile,
    after: Duration,
    pool: String,
    script: Option<OsString>,
    scoreboard: Option<Scoreboard>,
}

impl SlowLog {
    /// A log of requests that run for longer than `after`, to a file. Several processes may write to it, and it may be moved
    /// away: it is opened anew then.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn to_file(path: &Path, after: Duration, pool: &str) -> io::Result<Self> {
        LogFile::open(path).map(|file| Self { file, after, pool: pool.to_owned(), script: None, scoreboard: None })
    }

    /// A log to where the standard error stream leads now.
    ///
    /// # Errors
    /// When there is none.
    pub fn to_stderr(after: Duration, pool: &str) -> io::Result<Self> {
        LogFile::stderr().map(|file| Self { file, after, pool: pool.to_owned(), script: None, scoreboard: None })
    }

    /// Names the one script, or the application, that all requests are for. Otherwise entries say what the web server says.
    #[must_use]
    pub fn script(self, script: Option<OsString>) -> Self {
        Self { script, ..self }
    }

    /// Counts entries there, too.
    #[must_use]
    pub fn scoreboard(self, scoreboard: Option<Scoreboard>) -> Self {
        Self { scoreboard, ..self }
    }

    /// After how long a request has an entry.
    pub fn after(&self) -> Duration {
        self.after
    }

    /// Writes the entry of a request that has run for so long; `stack` are lines that tell where it is.
    pub fn write(&self, params: &Params, taken: Duration, stack: &[u8]) {
        if let Some(scoreboard) = &self.scoreboard {
            scoreboard.count(Counter::SlowRequests);
        }
        if let Err(e) = self.file.write(&self.entry(params, taken, stack)) {
            tracing::error!("cannot write to the slow log: {e}");
        }
    }

    /// The entry: a line that tells of the request, the stack, an empty line.
    fn entry(&self, params: &Params, taken: Duration, stack: &[u8]) -> Vec<u8> {
        let variable = |name: &[u8]| params.get(name).unwrap_or_default();
        let mut uri = variable(b"REQUEST_URI").to_vec();
        if uri.is_empty() {
            uri = [variable(b"SCRIPT_NAME"), variable(b"PATH_INFO")].concat();
            if !variable(b"QUERY_STRING").is_empty() {
                uri.extend([b"?", variable(b"QUERY_STRING")].concat());
            }
        }
        let script = self.script.as_deref().map_or(variable(b"SCRIPT_FILENAME"), OsStr::as_bytes);
        let mut out = Vec::with_capacity(256 + stack.len());
        let begin = format!(
            "[{}] pool {} pid {} script \"",
            time(SystemTime::now(), Some("%Y-%m-%dT%H:%M:%S%.3f%:z")),
            self.pool,
            std::process::id()
        );
        out.extend_from_slice(begin.as_bytes());
        escape(if script.is_empty() { b"-" } else { script }, &mut out);
        out.extend_from_slice(b"\" request \"");
        escape(variable(b"REQUEST_METHOD"), &mut out);
        out.push(b' ');
        escape(if uri.is_empty() { b"-" } else { &uri }, &mut out);
        // Writing to a vector does not fail.
        drop(writeln!(out, "\" has run for {:.3} s", taken.as_secs_f64()));
        for line in stack.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
        out.push(b'\n');
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry() {
        let log = SlowLog::to_stderr(Duration::from_secs(1), "web").unwrap();
        let params =
            [("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/a\n"), ("QUERY_STRING", "b"), ("SCRIPT_FILENAME", "/s")];
        let params: Params = params.into_iter().collect();
        let entry =
            |log: &SlowLog| String::from_utf8(log.entry(&params, Duration::from_millis(1500), b"one\n\ntwo")).unwrap();
        let (pid, text) = (std::process::id(), entry(&log));
        let rest =
            format!("] pool web pid {pid} script \"/s\" request \"GET /a\\x0A?b\" has run for 1.500 s\none\ntwo\n\n");
        assert!(text.starts_with('[') && text.ends_with(&rest), "{text}");
        let text = entry(&log.script(Some("/named".into())));
        assert!(text.contains("script \"/named\""), "{text}");
    }
}
