//! The log: a line for each event, on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::Options;

/// Starts to log what is at least as important as `--log-level` says.
pub(crate) fn start(options: &Options) {
    let filter = EnvFilter::builder().parse_lossy(&options.log_level);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
