//! Files of logs. Each entry is one write to a file that is opened for appending, so the entries of several processes do not
//! mix. A file that has been moved away, as logrotate does it, is opened anew within a second, without a signal.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::clock;

/// Where entries go.
#[derive(Debug)]
pub(crate) struct LogFile(Target);

#[derive(Debug)]
enum Target {
    Stderr(File),
    File { path: PathBuf, open: Mutex<Open> },
}

#[derive(Debug)]
struct Open {
    file: File,
    /// When it was last looked whether the path still leads to it.
    looked_at: u32,
}

impl LogFile {
    /// A file.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let open = Mutex::new(Open { file: append(path)?, looked_at: clock::seconds() });
        Ok(Self(Target::File { path: path.to_owned(), open }))
    }

    /// Where the standard error stream leads now.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn stderr() -> io::Result<Self> {
        Ok(Self(Target::Stderr(io::stderr().as_fd().try_clone_to_owned()?.into())))
    }

    /// Appends an entry.
    ///
    /// # Errors
    /// When the system refuses it.
    pub(crate) fn write(&self, entry: &[u8]) -> io::Result<()> {
        match &self.0 {
            Target::Stderr(file) => (&*file).write_all(entry),
            Target::File { path, open } => {
                let mut open = open.lock().unwrap_or_else(PoisonError::into_inner);
                let now = clock::seconds();
                if open.looked_at != now {
                    open.looked_at = now;
                    if !is_still(path, &open.file)
                        && let Ok(file) = append(path)
                    {
                        open.file = file;
                    }
                }
                (&open.file).write_all(entry)
            }
        }
    }
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

/// Whether a path leads to a file that is open.
fn is_still(path: &Path, file: &File) -> bool {
    let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    matches!((path.metadata().map(place), file.metadata().map(place)), (Ok(named), Ok(open)) if named == open)
}

/// Writes what clients say, without bytes that could end a field or a line.
pub(crate) fn escape(text: &[u8], out: &mut Vec<u8>) {
    for &byte in text {
        match byte {
            // Writing to a vector does not fail.
            b'"' | b'\\' | 0..=0x1f | 0x7f.. => drop(write!(out, "\\x{byte:02X}")),
            _ => out.push(byte),
        }
    }
}

/// A time of this place, by strftime.
pub(crate) fn time(time: SystemTime, format: Option<&str>) -> String {
    let time = jiff::Timestamp::try_from(time).unwrap_or_default().to_zoned_datetime(jiff::tz::TimeZone::system());
    let mut text = String::new();
    // A format that cannot be written is none.
    if write!(text, "{}", time.strftime(format.unwrap_or("%d/%b/%Y:%H:%M:%S %z"))).is_err() {
        return "-".to_owned();
    }
    // Formats have tabs and line ends.
    text.replace(char::is_control, " ")
}
