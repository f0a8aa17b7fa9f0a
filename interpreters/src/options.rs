//! The command line, the same for every language. Long options are the runner's; short ones stay the interpreter's own.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use fcgi_core::affinity::Source;
use fcgi_core::http::Timeouts;
use fcgi_core::protocol::Limits;
use fcgi_core::{Address, Affinity, AllowList, Isolation, ServerConfig};

use crate::Language;

/// What the user asked for. Each option's text is its documentation.
#[derive(Clone, Debug, Parser)]
#[command(version, disable_help_flag = true, disable_version_flag = true, max_term_width = 100)]
pub struct Options {
    /// Addresses to serve FastCGI at.
    #[arg(
        long,
        value_name = "ADDRESS",
        help_heading = "Where requests come from",
        help = "Serve FastCGI at this address: unix:PATH, HOST:PORT, [IPV6]:PORT, *:PORT or fd:N (repeatable)"
    )]
    pub listen: Vec<Address>,

    /// Serve HTTP/1.1 at this address, for development and small sites
    #[arg(long, value_name = "HOST:PORT", help_heading = "Where requests come from")]
    pub http: Option<String>,

    /// Let only these TCP peers connect: addresses or networks, separated by commas (repeatable; also from
    /// FCGI_WEB_SERVER_ADDRS)
    #[arg(long, value_name = "ADDR[/BITS]", help_heading = "Where requests come from")]
    pub allow: Vec<String>,

    /// With --http: serve files of this directory where their path matches
    #[arg(long = "static", value_name = "DIR", help_heading = "What is served", requires = "http")]
    pub static_dir: Option<PathBuf>,

    /// Without a script: run only scripts below this directory
    #[arg(long, value_name = "DIR", help_heading = "What is served")]
    pub root: Option<PathBuf>,

    /// Without a script: run only files with these extensions, separated by commas; "" for any [default: the language's]
    #[arg(long, value_name = "LIST", help_heading = "What is served")]
    pub extensions: Option<String>,

    /// Show in error pages what went wrong (never where strangers can see it)
    #[arg(long, help_heading = "What is served")]
    pub display_errors: bool,

    /// Serve with N processes, which a parent restarts when they die [default: this one process]
    #[arg(long, value_name = "N", help_heading = "Processes and threads", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,

    /// Serve with N interpreters, each in a thread, in each process
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "Processes and threads", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: u16,

    /// With --threads: requests of one session go to the same interpreter; cookie:NAME, header:NAME or param:NAME says where
    /// the session is named
    #[arg(long, value_name = "SOURCE", help_heading = "Processes and threads")]
    pub affinity: Option<Source>,

    /// With --affinity: seconds that a request waits for its interpreter while that works on another one
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = positive_seconds, help_heading = "Processes and threads")]
    pub affinity_wait: Duration,

    /// When stopping, end workers and HTTP connections that are still busy after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30, help_heading = "Processes and threads")]
    pub shutdown_timeout: u64,

    /// Seconds in which the rest of a request must come, counted anew with each byte; 0: no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Limits")]
    pub read_timeout: u64,

    /// Seconds in which an answer must be read, counted anew with each byte; 0: no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Limits")]
    pub write_timeout: u64,

    /// Seconds after which a connection without a request is closed; 0: never, that is the web server's to do (and with
    /// --http, after --read-timeout)
    #[arg(long, value_name = "SECONDS", default_value_t = 0, help_heading = "Limits")]
    pub keepalive_timeout: u64,

    /// With --http: seconds in which a script must begin to answer, or be given up with status 504; 0: no limit
    #[arg(long, value_name = "SECONDS", default_value_t = 0, help_heading = "Limits", requires = "http")]
    pub answer_timeout: u64,

    /// Connections at once; further ones wait
    #[arg(long, value_name = "N", default_value_t = 16384, help_heading = "Limits")]
    pub max_connections: usize,

    /// Requests at once on one connection; further ones are refused
    #[arg(long, value_name = "N", default_value_t = 256, help_heading = "Limits")]
    pub max_multiplexed: usize,

    /// Bytes of one request's parameters; more are refused with status 431
    #[arg(long, value_name = "SIZE", default_value = "2M", value_parser = size, help_heading = "Limits")]
    pub max_params_size: usize,

    /// Parameters of one request; more are refused with status 431
    #[arg(long, value_name = "N", default_value_t = 4096, help_heading = "Limits")]
    pub max_params_count: usize,

    /// Bytes of a body that are kept before the script reads them
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = size, help_heading = "Limits")]
    pub body_buffer: usize,

    /// Bytes of output that are kept before they are sent
    #[arg(long, value_name = "SIZE", default_value = "64K", value_parser = size, help_heading = "Limits")]
    pub output_buffer: usize,

    /// Seconds that a request may take (such as 30 or 0.5); then its script is interrupted and the client gets status 504
    #[arg(long, value_name = "SECONDS", value_parser = positive_seconds, help_heading = "Limits")]
    pub request_timeout: Option<Duration>,

    /// Bytes that one interpreter may use; a script that wants more fails
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Limits")]
    pub memory_limit: Option<usize>,

    /// What separates requests: one interpreter whose globals are put back, or a fresh one (state) each time
    #[arg(long, value_name = "LEVEL", default_value = "globals", help_heading = "What is served")]
    pub isolation: Level,

    /// What is logged: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: String,

    /// Print this help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Print the version
    #[arg(long, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

/// `--isolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// What a script changes is put back; modules stay loaded.
    Globals,
    /// Each request gets a fresh interpreter with the compiled script.
    State,
}

impl From<Level> for Isolation {
    fn from(level: Level) -> Self {
        match level {
            Level::Globals => Self::Globals,
            Level::State => Self::State,
        }
    }
}

impl Options {
    /// Limits and timeouts of the server.
    pub(crate) fn server_config(&self) -> ServerConfig {
        ServerConfig {
            threads: usize::from(self.threads),
            max_connections: self.max_connections,
            limits: Limits {
                params_bytes: self.max_params_size,
                params_count: self.max_params_count,
                requests: self.max_multiplexed,
            },
            body_buffer: self.body_buffer.max(1),
            output_buffer: self.output_buffer.max(512),
            read_timeout: seconds(self.read_timeout),
            write_timeout: seconds(self.write_timeout),
            keepalive_timeout: seconds(self.keepalive_timeout),
            affinity: self.affinity.clone().map(|source| Affinity { source, patience: self.affinity_wait }),
        }
    }

    /// Timeouts of the HTTP front: for its clients those of the server, which knows only the front.
    pub(crate) fn front_timeouts(&self) -> Timeouts {
        Timeouts {
            // HTTP tells a kept connection from a late request only when the request begins: the shorter time it is.
            head: [self.read_timeout, self.keepalive_timeout].into_iter().filter_map(seconds).min(),
            body: seconds(self.read_timeout),
            write: seconds(self.write_timeout),
            answer: seconds(self.answer_timeout),
            stop: Duration::from_secs(self.shutdown_timeout),
        }
    }

    /// The peers of `--allow` and `FCGI_WEB_SERVER_ADDRS`.
    pub(crate) fn allow_list(&self) -> anyhow::Result<AllowList> {
        let mut allowed = AllowList::everybody();
        let environment = std::env::var("FCGI_WEB_SERVER_ADDRS").ok().filter(|list| !list.trim().is_empty());
        for list in self.allow.iter().chain(&environment) {
            allowed.add(list)?;
        }
        Ok(allowed)
    }
}

/// A time in seconds, more than none.
fn positive_seconds(text: &str) -> Result<Duration, String> {
    let count: f64 = text.parse().map_err(|_| "write a number of seconds such as 30 or 0.5".to_owned())?;
    match Duration::try_from_secs_f64(count) {
        Ok(time) if !time.is_zero() => Ok(time),
        _ => Err("write a number of seconds that is more than 0".to_owned()),
    }
}

/// A timeout; 0 is none.
fn seconds(count: u64) -> Option<Duration> {
    (count > 0).then(|| Duration::from_secs(count))
}

/// A number of bytes, with K, M or G behind it for multiples of 1024.
fn size(text: &str) -> Result<usize, String> {
    let (digits, shift) = match text.trim_end_matches(['B', 'b']).char_indices().last() {
        Some((at, 'K' | 'k')) => (&text[..at], 10),
        Some((at, 'M' | 'm')) => (&text[..at], 20),
        Some((at, 'G' | 'g')) => (&text[..at], 30),
        _ => (text, 0),
    };
    let number: usize = digits.parse().map_err(|_| "write a number of bytes such as 4096, 64K or 2M".to_owned())?;
    number.checked_mul(1 << shift).ok_or_else(|| "too large".to_owned())
}

/// What `--help` ends with.
pub(crate) fn examples(language: &Language) -> String {
    let Language { program, extension, .. } = language;
    format!(
        "How it was started it finds out itself: --listen, --http, a systemd socket or a listening descriptor 0 mean \
         FastCGI; CGI variables in the environment mean CGI; otherwise it is the plain interpreter.

Examples:
  {program} --http 127.0.0.1:8080 hello.{extension}              try a script in the browser
  {program} --listen unix:/run/app.sock --workers 4 app.{extension}  behind a web server
  {program} --listen 127.0.0.1:9000 --root /srv/www         every .{extension} file below /srv/www
  {program} hello.{extension} one two                            the plain interpreter"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_table_is_sound() {
        Options::command().debug_assert();
        assert!(
            Options::command().get_arguments().all(|a| a.get_short().is_none()),
            "short options are the interpreter's"
        );
    }

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("64K", 65536), ("64kb", 65536), ("2M", 2 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "K", "-1", "1.5M", "many", "99999999999999999999"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }
}
