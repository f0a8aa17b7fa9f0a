//! The access log: a line for each request, when its answer has been handed to the system. In a format like that of php-fpm, or
//! as JSON.
//!
//! Several processes may write to one file, which may be moved away: see `log_file`.

mod format;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustix::time::{ClockId, clock_gettime};

use crate::log_file::LogFile;
use crate::protocol::Params;
use crate::response::HeadParser;
pub use format::{BadFormat, Format};

/// Where lines go, and in which format.
#[derive(Debug)]
pub struct AccessLog {
    format: Format,
    pool: String,
    file: LogFile,
}

impl AccessLog {
    /// A log to a file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn to_file(path: &Path, format: Format, pool: &str) -> io::Result<Self> {
        Ok(Self { format, pool: pool.to_owned(), file: LogFile::open(path)? })
    }

    /// A log to where the standard error stream leads now.
    ///
    /// # Errors
    /// When there is none.
    pub fn to_stderr(format: Format, pool: &str) -> io::Result<Self> {
        Ok(Self { format, pool: pool.to_owned(), file: LogFile::stderr()? })
    }

    fn write(&self, line: &[u8]) {
        if let Err(e) = self.file.write(line) {
            tracing::error!("cannot write to the access log: {e}");
        }
    }
}

/// What is known of a request for its line.
#[derive(Debug)]
pub(crate) struct Entry {
    log: Arc<AccessLog>,
    params: Params,
    time: SystemTime,
    since: Duration,
    /// Processor time of the thread, where one thread works on one request.
    cpu: Option<Cpu>,
    head: Head,
    written: u64,
}

/// User and system time.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

/// What comes first of the output, until the head is complete.
#[derive(Debug)]
enum Head {
    Open {
        parser: HeadParser,
        bytes: u64,
    },
    Known {
        status: u16,
        headers: Vec<(Vec<u8>, Vec<u8>)>,
        bytes: u64,
    },
    /// It is none.
    Bad,
}

impl Entry {
    /// A request begins. `is_alone` says that the calling thread works on no other one.
    pub(crate) fn new(log: Arc<AccessLog>, params: &Params, is_alone: bool) -> Self {
        Self {
            log,
            params: params.clone(),
            time: SystemTime::now(),
            since: monotonic(),
            cpu: is_alone.then(|| usage().0),
            head: Head::Open { parser: HeadParser::new(), bytes: 0 },
            written: 0,
        }
    }

    /// The script has written something.
    pub(crate) fn output(&mut self, bytes: &[u8]) {
        self.written += bytes.len() as u64;
        let Head::Open { parser, bytes: length } = &mut self.head else { return };
        let mut rest = bytes;
        match parser.push(&mut rest) {
            Ok(None) => *length += bytes.len() as u64,
            Ok(Some(head)) => {
                let bytes = *length + (bytes.len() - rest.len()) as u64;
                self.head = Head::Known { status: head.status, headers: head.headers, bytes };
            }
            Err(_) => self.head = Head::Bad,
        }
    }

    /// What has been written is no part of the answer after all.
    pub(crate) fn restart(&mut self) {
        self.head = Head::Open { parser: HeadParser::new(), bytes: 0 };
        self.written = 0;
    }

    /// The request has ended.
    pub(crate) fn end(self, exit_status: u32) {
        let (now, memory) = usage();
        let (status, headers, head) = match self.head {
            Head::Known { status, headers, bytes } => (status, headers, bytes),
            // What web servers make of it.
            Head::Open { .. } | Head::Bad => (502, Vec::new(), 0),
        };
        let line = format::Line {
            params: &self.params,
            pool: &self.log.pool,
            begun: self.time,
            duration: monotonic().saturating_sub(self.since),
            user: self.cpu.map(|before| now.user.saturating_sub(before.user)),
            system: self.cpu.map(|before| now.system.saturating_sub(before.system)),
            memory,
            status,
            headers: &headers,
            bytes: self.written.saturating_sub(head),
            exit_status,
        };
        self.log.write(&self.log.format.line(&line));
    }
}

fn monotonic() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Processor time of the calling thread, and the most memory that the process ever had, in bytes.
pub(crate) fn usage() -> (Cpu, u64) {
    use nix::sys::resource::{UsageWho, getrusage};
    let Ok(usage) = getrusage(UsageWho::RUSAGE_THREAD) else { return (Cpu::default(), 0) };
    let time = |value: nix::sys::time::TimeVal| {
        Duration::new(value.tv_sec().unsigned_abs(), 0) + Duration::from_micros(value.tv_usec().unsigned_abs())
    };
    let cpu = Cpu { user: time(usage.user_time()), system: time(usage.system_time()) };
    (cpu, usage.max_rss().unsigned_abs() * 1024)
}
