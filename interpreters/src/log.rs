//! The log: a line for each event, where `--log-to` says.
//!
//! A server keeps a descriptor for it: a language may need the standard error itself for its scripts. With a file, the parent
//! of several processes alone has it open: its workers, which may be another user's, write to a pipe that is their standard
//! error, so that what interpreters say when they crash is in the file as well, and a thread of the parent writes on what comes.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use anyhow::Context;
use fcgi_core::{inherit, signals};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use crate::Options;
use crate::options::{Format, Target};

/// The pipe of the workers, from one program to the next that it becomes.
const PIPE: &str = "FCGI_LOG_PIPE";
/// The stack of the thread that reads it.
const STACK: usize = 64 << 10;

static FILE: OnceLock<Arc<LogFile>> = OnceLock::new();
static WORKERS: OnceLock<OwnedFd> = OnceLock::new();

/// A file that can be opened again by its name, when it has been renamed.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: Mutex<File>,
}

impl LogFile {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path)?;
        let file = Self::file(&path).with_context(|| format!("cannot open {} (--log-to)", path.display()))?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    fn file(path: &Path) -> io::Result<File> {
        OpenOptions::new().append(true).create(true).open(path)
    }

    fn reopen(&self) -> io::Result<()> {
        let new = Self::file(&self.path)?;
        *self.file.lock().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(())
    }
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A line is written whole, or others' would stand between its parts.
        self.file.lock().unwrap_or_else(PoisonError::into_inner).write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts to log what is at least as important as `--log-level` says. A server keeps a descriptor for it; others have no
/// more descriptors than their script expects.
///
/// # Errors
/// When the file or the journal cannot be opened.
pub(crate) fn start(options: &Options, keeps: bool, is_worker: bool) -> anyhow::Result<()> {
    let logging = &options.logging;
    let target = if is_worker && logging.log_to != Target::Journald { &Target::Stderr } else { &logging.log_to };
    let writer = match target {
        Target::Journald => {
            let journal =
                tracing_journald::layer().context("there is no journal to be logged to (--log-to journald)")?;
            begin(options, journal.with_field_prefix(None).boxed());
            return Ok(());
        }
        Target::File(path) => {
            let file = Arc::new(LogFile::open(path)?);
            BoxMakeWriter::new(FILE.get_or_init(|| file).clone())
        }
        Target::Stderr => {
            match keeps.then(|| rustix::io::fcntl_dupfd_cloexec(io::stderr(), 3)) {
                Some(Ok(log)) => BoxMakeWriter::new(Arc::new(File::from(log))),
                // Without a standard error there is nothing to be logged to.
                Some(Err(_)) => return Ok(()),
                None => BoxMakeWriter::new(io::stderr),
            }
        }
    };
    let lines = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false).with_writer(writer);
    match logging.log_format {
        Format::Text => begin(options, lines.boxed()),
        Format::Json => begin(options, lines.json().flatten_event(true).boxed()),
    }
    Ok(())
}

fn begin(options: &Options, layer: Box<dyn Layer<Registry> + Send + Sync>) {
    let filter = EnvFilter::builder().parse_lossy(&options.logging.log_level);
    // A program that serves a second time has its log.
    if tracing_subscriber::registry().with(layer.with_filter(filter)).try_init().is_ok() {
        std::panic::set_hook(Box::new(|panic| tracing::error!("this is a mistake in the program: {panic}")));
    }
}

/// Opens the file again.
pub(crate) fn reopen() {
    let Some(file) = FILE.get() else { return };
    match file.reopen() {
        Ok(()) => tracing::info!("the log has been opened again"),
        Err(e) => tracing::error!("cannot open {} again: {e} (--log-to)", file.path.display()),
    }
}

/// Begins to write on what workers say, if the log is a file. What is to be in the environment of a program that this one
/// becomes says where they say it.
///
/// # Errors
/// When there can be no pipe or no thread.
pub(crate) fn carry_workers() -> anyhow::Result<Vec<(OsString, OsString)>> {
    let before = inherit::variable(PIPE);
    let Some(file) = FILE.get() else { return Ok(Vec::new()) };
    let pipe = if let Some(number) = before {
        let number = number.to_str().and_then(|number| number.parse().ok());
        inherit::take(number.context(PIPE)?)?
    } else {
        let (pipe, theirs) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::stdio::dup2_stderr(&theirs)?;
        pipe
    };
    let number = pipe.as_raw_fd();
    let from = pipe.try_clone()?;
    let _ = WORKERS.set(pipe);
    let carry = move || carry(&from, file);
    let thread = std::thread::Builder::new().name("log".to_owned()).stack_size(STACK);
    // Signals are for the parent's own thread: what this one heard would be lost when the parent becomes another program.
    signals::all_held_back(|| thread.spawn(carry))?.context("cannot start a thread")?;
    Ok(vec![(PIPE.into(), number.to_string().into())])
}

/// Lets the program that this one becomes read on.
pub(crate) fn becomes_new() {
    if let Some(pipe) = WORKERS.get() {
        let _ = rustix::io::fcntl_setfd(pipe, rustix::io::FdFlags::empty());
    }
}

/// Writes whole lines, for the parent writes between them.
fn carry(from: &OwnedFd, mut file: &LogFile) {
    let mut buffer = [0; 16 << 10];
    let mut held = 0;
    loop {
        match rustix::io::read(from, &mut buffer[held..]) {
            Ok(0) => return,
            Ok(count) => held += count,
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return,
        }
        let whole = buffer[..held].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole = if whole == 0 && held == buffer.len() { held } else { whole };
        // A full disk is not a reason to let workers wait.
        let _ = file.write_all(&buffer[..whole]);
        buffer.copy_within(whole..held, 0);
        held -= whole;
    }
}
