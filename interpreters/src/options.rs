//! The command line, the same for every language. Long options are the runner's; short ones stay the interpreter's own.
//!
//! Each topic is a table of its own, in the order in which `--help` tells them.

mod configuration;
mod limits;
mod listening;
mod logging;
mod processes;
mod roles;
mod serving;
mod system;
mod values;
mod watching;

use std::time::Duration;

use anyhow::{anyhow, bail};
use clap::Parser;
use fcgi_core::http::Timeouts;
use fcgi_core::scoreboard::Scoreboard;
use fcgi_core::status::{self, Desk};
use fcgi_core::supervisor::Size;
use fcgi_core::{Affinity, ServerConfig};

pub(crate) use configuration::Configuration;
pub(crate) use limits::Limits;
pub(crate) use listening::{Listening, WORKER};
pub(crate) use logging::{Format, Logging, Target};
pub(crate) use processes::Processes;
pub(crate) use roles::Roles;
pub(crate) use serving::{Level, Serving};
pub(crate) use system::System;
pub(crate) use values::size;
pub(crate) use watching::Watching;

use values::seconds;

use crate::Language;

/// What the user asked for. Each option's text is its documentation.
#[derive(Clone, Debug, Parser)]
#[command(version, disable_help_flag = true, disable_version_flag = true, max_term_width = 100)]
pub(crate) struct Options {
    /// Where requests come from.
    #[command(flatten)]
    pub(crate) listening: Listening,
    /// What is served.
    #[command(flatten)]
    pub(crate) serving: Serving,
    /// Roles.
    #[command(flatten)]
    pub(crate) roles: Roles,
    /// Processes and threads.
    #[command(flatten)]
    pub(crate) processes: Processes,
    /// Limits.
    #[command(flatten)]
    pub(crate) limits: Limits,
    /// Watching.
    #[command(flatten)]
    pub(crate) watching: Watching,
    /// Privileges and surroundings.
    #[command(flatten)]
    pub(crate) system: System,
    /// The configuration file.
    #[command(flatten)]
    pub(crate) configuration: Configuration,
    /// The log.
    #[command(flatten)]
    pub(crate) logging: Logging,

    /// Print this help
    #[arg(long, help_heading = None::<&str>, action = clap::ArgAction::Help)]
    help: Option<bool>,

    /// Print the version
    #[arg(long, help_heading = None::<&str>, action = clap::ArgAction::Version)]
    version: Option<bool>,
}

impl Options {
    /// What options ask for besides themselves.
    #[must_use]
    pub(crate) fn settled(mut self) -> Self {
        // Only a parent can reload, and knows what has ended a worker.
        if self.serving.watch || self.serving.isolation == Level::Auto {
            self.processes.workers.get_or_insert(Size::fixed(1));
        }
        self
    }

    /// What the pool is called: as in the file, or as the language.
    pub(crate) fn pool_name(&self, language: &Language) -> String {
        self.configuration.pool.clone().unwrap_or_else(|| language.name.to_lowercase())
    }

    /// Where it listens, with the options that say so.
    pub(crate) fn addresses(&self) -> Vec<(&'static str, String)> {
        let mut all: Vec<_> = self.listening.listen.iter().map(|address| ("listen", address.to_string())).collect();
        all.extend(self.listening.http.clone().map(|address| ("http", address)));
        all.extend(self.watching.status_listen.as_ref().map(|address| ("status-listen", address.to_string())));
        all
    }

    /// The scoreboard of a pool with so many workers, if anybody is to read it.
    ///
    /// # Errors
    /// When the system has no shared memory for it.
    pub(crate) fn scoreboard(&self, workers: u16) -> std::io::Result<Option<Scoreboard>> {
        // While workers are replaced, there are those from before as well.
        let lines = (usize::from(workers) * 2 + 2) * usize::from(self.processes.threads);
        let is_read = self.watching.needs_scoreboard() || self.serving.isolation == Level::Auto;
        is_read.then(|| Scoreboard::create(lines)).transpose()
    }

    /// What answers for the program itself.
    pub(crate) fn desk(&self, pools: Vec<status::Pool>) -> Desk {
        let Watching { status, ping, ping_response, .. } = &self.watching;
        Desk { status: status.clone(), ping: ping.clone(), pong: ping_response.clone(), pools }
    }

    /// Limits and timeouts of the server.
    pub(crate) fn server_config(&self) -> ServerConfig {
        ServerConfig {
            threads: usize::from(self.processes.threads),
            max_connections: self.limits.max_connections,
            limits: fcgi_core::protocol::Limits {
                params_bytes: self.limits.max_params_size,
                params_count: self.limits.max_params_count,
                requests: self.limits.max_multiplexed,
            },
            body_buffer: self.limits.body_buffer.max(1),
            output_buffer: self.limits.output_buffer.max(512),
            read_timeout: seconds(self.limits.read_timeout),
            write_timeout: seconds(self.limits.write_timeout),
            keepalive_timeout: seconds(self.limits.keepalive_timeout),
            affinity: self
                .processes
                .affinity
                .clone()
                .map(|source| Affinity { source, patience: self.processes.affinity_wait }),
        }
    }

    /// How many workers have sockets of their own.
    ///
    /// # Errors
    /// When they are to have them, and their number is not fixed.
    pub(crate) fn workers_with_sockets(&self) -> anyhow::Result<u16> {
        if !self.listening.has_own() {
            return Ok(0);
        }
        match self.processes.workers {
            Some(size) if size.min == size.max => Ok(size.max),
            Some(Size { min, max }) => bail!(
                "{WORKER} in --listen goes with a fixed number of workers, for --workers {min}..{max} leaves sockets that nobody \
                 serves: give --workers {max}, or listen on one address for all"
            ),
            None => bail!(
                "{WORKER} in --listen gives each worker a socket of its own: say how many there are (such as --workers 4)"
            ),
        }
    }

    /// What the sockets of each worker are called, where workers have some of their own.
    pub(crate) fn names_of_own(&self) -> Vec<String> {
        let names =
            |worker| self.listening.own(worker).map(|address| address.to_string()).collect::<Vec<_>>().join(" ");
        (1..=self.workers_with_sockets().unwrap_or(0)).map(names).collect()
    }

    /// What is wrong with them together, and with what they name.
    pub(crate) fn check(&self) -> Vec<anyhow::Error> {
        let mut wrong = Vec::new();
        wrong.extend(self.listening.allow_list().err());
        wrong.extend(self.workers_with_sockets().err());
        if self.watching.status_listen.as_ref().is_some_and(|address| address.to_string().contains(WORKER)) {
            wrong.push(anyhow!("--status-listen is one socket, which tells of all workers: leave {WORKER} out"));
        }
        if self.processes.affinity.is_some() && self.processes.threads == 1 {
            wrong.push(anyhow!("--affinity chooses among the interpreters of one process: give --threads, too"));
        }
        if self.serving.isolation == Level::Fork && self.processes.threads > 1 {
            wrong.push(anyhow!(
                "--threads is not for --isolation fork: a process with threads cannot be forked (give --workers)"
            ));
        }
        if self.serving.isolation == Level::Auto && self.processes.threads > 1 {
            wrong.push(anyhow!(
                "--threads is not for --isolation auto, which tells by a process what its one request has done (give --workers)"
            ));
        }
        if self.serving.isolation == Level::Auto && self.serving.audit {
            wrong.push(anyhow!("--audit is not for --isolation auto, which looks at what scripts leave behind by itself, and says why it does not trust one"));
        }
        if self.serving.audit && (self.processes.threads > 1 || self.serving.isolation == Level::Fork) {
            wrong.push(anyhow!("--audit looks at one request at a time of one interpreter: it goes with neither --threads nor --isolation fork"));
        }
        if self.serving.isolation == Level::Fork && self.watching.slow_log.is_some() {
            wrong.push(anyhow!(
                "--slow-log is not for --isolation fork, whose requests run in processes of their own: choose another --isolation"
            ));
        }
        if self.serving.isolation == Level::Auto && self.limits.memory_limit.is_some() {
            wrong.push(anyhow!("--memory-limit is not for --isolation auto: it means one thing for an interpreter and another one for a process"));
        }
        if let Some(directory) = self.serving.static_dir.as_ref().filter(|directory| !directory.is_dir()) {
            wrong.push(anyhow!("{} is not a directory (--static)", directory.display()));
        }
        if self.system.chroot.is_some() && self.listening.http.is_some() {
            wrong.push(anyhow!("--chroot does not go with --http, which looks at files from outside"));
        }
        if self.system.chroot.is_some() && self.processes.preload {
            wrong.push(anyhow!("--chroot does not go with --preload, which looks at files from outside"));
        }
        if let (Target::Journald, Some(root)) = (&self.logging.log_to, &self.system.chroot)
            && !root.join("run/systemd/journal/socket").exists()
        {
            wrong.push(anyhow!(
                "--log-to journald needs run/systemd/journal/socket below --chroot: bind it there, or log elsewhere"
            ));
        }
        wrong.extend(self.system.check());
        wrong
    }

    /// Timeouts of the HTTP front: for its clients those of the server, which knows only the front.
    pub(crate) fn front_timeouts(&self) -> Timeouts {
        Timeouts {
            // HTTP tells a kept connection from a late request only when the request begins: the shorter time it is.
            head: [self.limits.read_timeout, self.limits.keepalive_timeout].into_iter().filter_map(seconds).min(),
            body: seconds(self.limits.read_timeout),
            write: seconds(self.limits.write_timeout),
            answer: seconds(self.limits.answer_timeout),
            stop: Duration::from_secs(self.processes.shutdown_timeout),
        }
    }
}

/// What `--help` ends with.
pub(crate) fn examples(language: &Language) -> String {
    let Language { program, own, .. } = language;
    let extension = language.known().extension;
    let own = own.told.iter().map(|(option, does)| ((*option).to_owned(), *does)).collect();
    let below = format!("every .{extension} file below /srv/www");
    let examples = vec![
        (format!("{program} --http 127.0.0.1:8080 hello.{extension}"), "try a script in the browser"),
        (format!("{program} --listen unix:/run/app.sock --workers 4 app.{extension}"), "behind a web server"),
        (format!("{program} --listen 127.0.0.1:9000 --root /srv/www"), &*below),
        (format!("{program} hello.{extension} one two"), "the plain interpreter"),
    ];
    format!(
        "{}How it was started it finds out itself: --listen, --http, a systemd socket or a listening descriptor 0 mean \
         FastCGI; CGI variables in the environment mean CGI; otherwise it is the plain interpreter.\n\n{}",
        columns("The interpreter's own options, before the script:", own),
        columns("Examples:", examples)
    )
}

/// Lines below a heading, with what they do in a second column; nothing where there are none.
fn columns(heading: &str, lines: Vec<(String, &str)>) -> String {
    let Some(width) = lines.iter().map(|(first, _)| first.len()).max() else { return String::new() };
    let lines = lines.into_iter().map(|(first, second)| format!("  {first:width$}  {second}\n"));
    format!("{heading}\n{}\n", lines.collect::<Vec<_>>().concat())
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
}
