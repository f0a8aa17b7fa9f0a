//! What is served.

use std::path::PathBuf;

use clap::Args;
use fcgi_core::Isolation;

/// Which scripts, and how they are separated.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "What is served")]
pub(crate) struct Serving {
    /// With --http: serve files of this directory where their path matches
    #[arg(long = "static", value_name = "DIR", requires = "http")]
    pub(crate) static_dir: Option<PathBuf>,

    /// Without a script: run only scripts below this directory
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,

    /// Without a script: run only files with these extensions, separated by commas; "" for any [default: the language's]
    #[arg(long, value_name = "LIST")]
    pub(crate) extensions: Option<String>,

    /// What separates requests: one interpreter whose globals are put back, a fresh one each time (state: Lua), a child
    /// process each time, forked from an interpreter that is warm (fork): all that CGI separates, for a part of what it
    /// costs; or (auto) globals for each script until it leaves something behind for the next request, or ends its process:
    /// from then on fork. It serves with --workers 1 where no other number is given
    #[arg(long, value_name = "LEVEL", default_value = "globals")]
    pub(crate) isolation: Level,

    /// Say in the log what each script leaves behind: what was put back, and what stays (development and staging)
    #[arg(long)]
    pub(crate) audit: bool,

    /// Serve nothing: run the script for two empty GET requests, and tell what of it differs from CGI. Exit status: 0
    /// nothing, 1 something stays for the next request, 2 the script fails
    #[arg(long)]
    pub(crate) check: bool,

    /// Reload the server when sources change, as HUP does (development): files of the language beside the script or the
    /// application, or below, or below --root, and the configuration file. Files that cannot be compiled change nothing. It
    /// serves with --workers 1 where no other number is given
    #[arg(long)]
    pub(crate) watch: bool,

    /// With --watch: this file as well, or all files of this directory and below it, such as templates (repeatable)
    #[arg(long, value_name = "PATH", requires = "watch", value_hint = clap::ValueHint::AnyPath)]
    pub(crate) watch_also: Vec<PathBuf>,

    /// Show in error pages what went wrong (never where strangers can see it)
    #[arg(long)]
    pub(crate) display_errors: bool,
}

/// `--isolation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Level {
    /// What a script changes is put back; modules stay loaded.
    Globals,
    /// Each request gets a fresh interpreter with the compiled script.
    State,
    /// Each request runs in a child process, forked from a warm interpreter.
    Fork,
    /// `Globals` until a script leaves something behind, then `Fork`.
    Auto,
}

impl From<Level> for Isolation {
    fn from(level: Level) -> Self {
        match level {
            // Workers that fork are told so.
            Level::Globals | Level::Auto => Self::Globals,
            Level::State => Self::State,
            Level::Fork => Self::Fork,
        }
    }
}
