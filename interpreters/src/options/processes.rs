//! Processes and threads.

use std::time::Duration;

use clap::Args;
use fcgi_core::affinity::Source;
use fcgi_core::supervisor::Size;

use super::values::{positive_seconds, workers};

/// How many processes and threads, and how they stop.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Processes and threads")]
pub(crate) struct Processes {
    /// Serve with N processes, which a parent restarts when they die; MIN..MAX: with more while all are busy; 0..MAX: with none
    /// while nothing is asked for [default: this one process]
    #[arg(long, value_name = "N|MIN..MAX", value_parser = workers)]
    pub(crate) workers: Option<Size>,

    /// With --workers MIN..MAX: seconds after which a process without a request ends
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = positive_seconds)]
    pub(crate) idle_timeout: Duration,

    /// With --workers: replace a process after about N requests (a tenth more or fewer)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "workers")]
    pub(crate) max_requests: Option<u64>,

    /// With --workers: load the application, or what the script imports, once, and fork the workers from there
    #[arg(long, requires = "workers")]
    pub(crate) preload: bool,

    /// Serve with N interpreters, each in a thread, in each process
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) threads: u16,

    /// With --threads: requests of one session go to the same interpreter; cookie:NAME, header:NAME or param:NAME says where
    /// the session is named
    #[arg(long, value_name = "SOURCE")]
    pub(crate) affinity: Option<Source>,

    /// With --affinity: seconds that a request waits for its interpreter while that works on another one
    #[arg(long, value_name = "SECONDS", default_value = "0.1", value_parser = positive_seconds)]
    pub(crate) affinity_wait: Duration,

    /// When stopping, end workers and HTTP connections that are still busy after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) shutdown_timeout: u64,
}

impl Processes {
    /// How the number of processes comes about, by php-fpm's names.
    pub(crate) fn manager(&self) -> &'static str {
        match self.workers {
            None => "none",
            Some(size) if size.min == size.max => "static",
            Some(size) if size.min == 0 => "ondemand",
            Some(_) => "dynamic",
        }
    }
}
