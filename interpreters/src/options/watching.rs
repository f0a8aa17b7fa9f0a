//! How the program is watched.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use fcgi_core::Address;
use fcgi_core::access_log::{AccessLog, Format};
use fcgi_core::slow_log::SlowLog;

use super::values::positive_seconds;

/// Pages about the program itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Watching")]
pub(crate) struct Watching {
    /// Answer requests for this path with what the pool is doing; ?json, ?html, ?openmetrics choose a form, &full tells of each
    /// interpreter
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) status: Option<String>,

    /// Answer for the status and for ping at this address as well, whatever the workers do: by FastCGI and by HTTP
    #[arg(long, value_name = "ADDRESS", requires = "status")]
    pub(crate) status_listen: Option<Address>,

    /// Answer requests for this path with a word, without a script
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) ping: Option<String>,

    /// The word
    #[arg(long, value_name = "TEXT", default_value = "pong", requires = "ping")]
    pub(crate) ping_response: String,

    /// Write a line for each request to this file, or to the standard error stream (stderr)
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,

    /// How such a line looks: json, or a text with fields as of php-fpm (%R %u %t %m %r %Q %q %s %b %d %C %M ...; the README
    /// has all of them)
    #[arg(long, value_name = "FORMAT", default_value = DEFAULT_FORMAT, requires = "access_log")]
    pub(crate) access_format: Format,

    /// Write where its script is to this file, or to the standard error stream (stderr), when a request runs for long
    #[arg(long, value_name = "FILE")]
    pub(crate) slow_log: Option<PathBuf>,

    /// Seconds after which a request is in the slow log (such as 5 or 0.5)
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, default_value = "5", requires = "slow_log")]
    pub(crate) slow_after: Duration,
}

const DEFAULT_FORMAT: &str = "%R - %u [%t] \"%m %r%Q%q\" %s %b %{milliseconds}dms %C%% %{kilo}MK";

impl Watching {
    /// Whether the scoreboard is to be written, for whoever reads it.
    pub(crate) fn needs_scoreboard(&self) -> bool {
        self.status.is_some()
    }

    /// The access log of a pool.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn access_log(&self, pool: &str) -> anyhow::Result<Option<AccessLog>> {
        let Some(path) = &self.access_log else { return Ok(None) };
        let format = self.access_format.clone();
        let log = if path.as_os_str() == "stderr" {
            AccessLog::to_stderr(format, pool)
        } else {
            AccessLog::to_file(path, format, pool)
        };
        log.map(Some).with_context(|| format!("cannot open {} (--access-log)", path.display()))
    }

    /// The slow log of a pool.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn slow_log(&self, pool: &str) -> anyhow::Result<Option<SlowLog>> {
        let (Some(path), after) = (&self.slow_log, self.slow_after) else { return Ok(None) };
        let log = if path.as_os_str() == "stderr" {
            SlowLog::to_stderr(after, pool)
        } else {
            SlowLog::to_file(path, after, pool)
        };
        log.map(Some).with_context(|| format!("cannot open {} (--slow-log)", path.display()))
    }
}

/// A path as it stands in a URL.
fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && !text.contains(['?', '#', ' ']);
    if is_path { Ok(text.to_owned()) } else { Err("write a path such as /status".to_owned()) }
}
