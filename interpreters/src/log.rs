//! The log: a line for each event, where standard error led when the program was started. (A language may need the
//! descriptor itself for its scripts.)

use std::fs::File;
use std::io::{self, IsTerminal};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use crate::Options;

/// Starts to log what is at least as important as `--log-level` says.
pub(crate) fn start(options: &Options) {
    // Without a standard error there is nothing to be logged to.
    let Ok(log) = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3) else { return };
    let log = File::from(log);
    let filter = EnvFilter::builder().parse_lossy(&options.log_level);
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_target(false)
        .with_ansi(log.is_terminal())
        .with_writer(Arc::new(log))
        .init();
    std::panic::set_hook(Box::new(|panic| tracing::error!("this is a mistake in the program: {panic}")));
}
