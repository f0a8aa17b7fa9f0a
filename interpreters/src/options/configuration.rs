//! The configuration file.

use std::path::PathBuf;

use clap::Args;

/// Where else options are said.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Configuration file")]
pub(crate) struct Configuration {
    /// Read options from this file (TOML): keys are the long options, and script, arguments; what is on the command line
    /// goes before. Tables [pool.NAME] are servers of their own: all of them are served, or the one that --pool names
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,

    /// Check the file and the command line, say all that is wrong, with file, line and column, and end with status 0 or 2
    #[arg(long)]
    pub(crate) check_config: bool,

    /// With --config: serve this pool alone
    #[arg(long, value_name = "NAME", requires = "config")]
    pub(crate) pool: Option<String>,

    /// Said where a runner calls that of another language: its own one, which sections that name none have.
    #[arg(long, hide = true)]
    pub(crate) called_by: Option<String>,

    /// What the file says, for workers.
    #[arg(skip)]
    pub(crate) text: Option<String>,
}
