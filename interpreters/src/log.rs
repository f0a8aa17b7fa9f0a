//! The log: a line for each event, where standard error led when the program was started. (A language may need the
//! descriptor itself for its scripts.)

use std::fs::File;
use std::io;
use std::sync::Arc;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::Options;

/// Starts to log what is at least as important as `--log-level` says. A server keeps a descriptor for it; others have no
/// more descriptors than their script expects.
pub(crate) fn start(options: &Options, keeps: bool) {
    let log_to = if keeps {
        // Without a standard error there is nothing to be logged to.
        let Ok(log) = rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3) else { return };
        BoxMakeWriter::new(Arc::new(File::from(log)))
    } else {
        BoxMakeWriter::new(io::stderr)
    };
    let filter = EnvFilter::builder().parse_lossy(&options.logging.log_level);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_target(false).with_ansi(false);
    // A program that serves a second time has its log.
    if log.with_writer(log_to).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!("this is a mistake in the program: {panic}")));
    }
}
