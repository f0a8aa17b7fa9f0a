//! The log.

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;

/// What is told, and where.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Log")]
#[expect(clippy::struct_field_names, reason = "as the options are called")]
pub(crate) struct Logging {
    /// What is logged: error, warn, info, debug
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub(crate) log_level: String,

    /// Lines for people, or an object of JSON for each event
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: Format,

    /// Where the log goes: stderr, a file (it is opened again on USR1, for logrotate), or systemd's journal
    #[arg(long, value_name = "stderr|journald|FILE", default_value = "stderr", value_hint = clap::ValueHint::FilePath)]
    pub(crate) log_to: Target,
}

/// `--log-format`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// A line with time, level and text.
    Text,
    /// An object with timestamp, level and fields.
    Json,
}

/// `--log-to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stderr,
    Journald,
    File(PathBuf),
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "stderr" => Ok(Self::Stderr),
            "journald" => Ok(Self::Journald),
            "" => Err("write stderr, journald or the name of a file".to_owned()),
            file => Ok(Self::File(file.into())),
        }
    }
}
