//! The file with the number of the process, for those who do not use a service manager.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};

/// Clocks of files and of processes need not agree better.
const SLACK: Duration = Duration::from_secs(2);

/// A file that is written when the server is ready, and removed when this goes.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    is_written: bool,
}

impl PidFile {
    /// Claims a path.
    ///
    /// # Errors
    /// When a living process holds it.
    pub(crate) fn claim(path: &Path) -> anyhow::Result<Self> {
        let path = std::path::absolute(path)?;
        if let Some(pid) = holder(&path).filter(|pid| *pid != std::process::id()) {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            bail!(
                "{} is held by process {pid} ({}): stop that, or remove the file if it is not its (--pid-file)",
                path.display(),
                name.trim_end()
            );
        }
        Ok(Self { path, is_written: false })
    }

    /// Writes it, at once as a whole.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(&mut self) -> anyhow::Result<()> {
        let new = self.path.with_extension(format!("{}.new", std::process::id()));
        let shown = self.path.display();
        File::create(&new)
            .and_then(|mut file| writeln!(file, "{}", std::process::id()))
            .and_then(|()| fs::rename(&new, &self.path))
            .with_context(|| format!("cannot write {shown} (--pid-file)"))?;
        self.is_written = true;
        Ok(())
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Another server may have it by now.
        if self.is_written && number_in(&self.path) == Some(std::process::id()) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn number_in(path: &Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The living process that a file names. A process that began after the file was written has only been given the number.
fn holder(path: &Path) -> Option<u32> {
    let pid = number_in(path)?;
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(fs::metadata(path).ok()?.mtime()).ok()?);
    let began = began(pid)?;
    (began <= written + SLACK).then_some(pid)
}

/// When a process began, if it lives.
fn began(pid: u32) -> Option<SystemTime> {
    const TICKS_OF_PROC: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // Behind the name, which may hold anything, the twentieth field is the start, in ticks since the system's.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let is_dead = matches!(fields.first(), Some(&("Z" | "X")));
    (!is_dead).then(|| SystemTime::UNIX_EPOCH + Duration::from_secs(booted + ticks / TICKS_OF_PROC))
}
