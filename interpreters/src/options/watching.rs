//! How the program is watched.

use clap::Args;

/// Pages about the program itself.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Watching")]
pub(crate) struct Watching {
    /// Answer requests for this path with what the pool is doing; ?json, ?html, ?openmetrics choose a form, &full tells of each
    /// interpreter
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) status: Option<String>,

    /// Answer requests for this path with a word, without a script
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub(crate) ping: Option<String>,

    /// The word
    #[arg(long, value_name = "TEXT", default_value = "pong", requires = "ping")]
    pub(crate) ping_response: String,
}

impl Watching {
    /// Whether the scoreboard is to be written, for whoever reads it.
    pub(crate) fn needs_scoreboard(&self) -> bool {
        self.status.is_some()
    }
}

/// A path as it stands in a URL.
fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && !text.contains(['?', '#', ' ']);
    if is_path { Ok(text.to_owned()) } else { Err("write a path such as /status".to_owned()) }
}
