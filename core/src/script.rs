//! Which file a request runs, and what is known of it: the same for every language.
//!
//! Either one script is given for all requests, or each request names its own in `SCRIPT_FILENAME`. Such a name comes from
//! outside, so it is confined: to a list of extensions, and, when there is one, to a root directory that neither `..` nor
//! a symbolic link leaves.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::gateway;
use crate::protocol::Params;

/// How long what is known of a file is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// Scripts that are remembered. Beyond it, the least recently looked at half is forgotten.
const REMEMBERED: usize = 1024;

/// Where scripts come from.
#[derive(Clone, Debug)]
pub enum Scripts {
    /// One script for all requests.
    One(PathBuf),
    /// The script that `SCRIPT_FILENAME` names.
    Named {
        /// The directory that it must lie in; `None`: anywhere.
        root: Option<PathBuf>,
        /// Extensions that a script may have, without the dot; none: any.
        extensions: Vec<OsString>,
    },
}

/// Why a request has no script.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoScript {
    /// There is no such file, or the server sent no name.
    #[error("no such script: {0}")]
    NotFound(String),
    /// There is one, and it may not be run.
    #[error("{0} may not be run: {1}")]
    Forbidden(String, &'static str),
}

impl NoScript {
    /// The HTTP status that says so.
    pub fn status(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "404 Not Found",
            Self::Forbidden(..) => "403 Forbidden",
        }
    }
}

impl Scripts {
    /// The script of a request. Its variables are put right where the path went on behind the script.
    ///
    /// # Errors
    /// [`NoScript`].
    pub fn locate(&self, params: &mut Params) -> Result<PathBuf, NoScript> {
        let (root, extensions) = match self {
            Self::One(path) => return Ok(path.clone()),
            Self::Named { root, extensions } => (root, extensions),
        };
        let shown = params.get(b"SCRIPT_FILENAME").map_or_else(
            || "the web server sent no SCRIPT_FILENAME (give a script, or see the server's configuration)".to_owned(),
            |name| name.escape_ascii().to_string(),
        );
        let path = gateway::split_script_path(params).ok_or_else(|| NoScript::NotFound(shown.clone()))?;
        if !extensions.is_empty() && !path.extension().is_some_and(|e| extensions.iter().any(|x| x == e)) {
            return Err(NoScript::Forbidden(shown, "its extension is not among those allowed (--extensions)"));
        }
        if let Some(root) = root {
            let inside =
                path.canonicalize().is_ok_and(|real| root.canonicalize().is_ok_and(|root| real.starts_with(root)));
            if !inside {
                return Err(NoScript::Forbidden(shown, "it lies outside of the root directory (--root)"));
            }
        }
        Ok(path)
    }
}

/// Compiled scripts by path. A file is looked at once a second at most, and compiled again when it has changed.
#[derive(Debug)]
pub struct Cache<T> {
    entries: HashMap<PathBuf, Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    compiled: T,
    version: Version,
    looked_at: Instant,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Version {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl From<&Metadata> for Version {
    fn from(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { entries: HashMap::new() }
    }
}

impl<T> Cache<T> {
    /// The compiled script, from `compile` when it is not known or has changed. What fails is not remembered, so a file
    /// that is mended works at once.
    ///
    /// # Errors
    /// What `compile` says, which is called, too, when the file cannot be looked at: it knows how to say so.
    pub fn get<E>(&mut self, path: &Path, compile: impl FnOnce(&Path) -> Result<T, E>) -> Result<&T, E> {
        let now = Instant::now();
        let known = self.entries.get_mut(path).is_some_and(|entry| {
            if now.duration_since(entry.looked_at) < BELIEVED {
                return true;
            }
            entry.looked_at = now;
            look_at(path).is_ok_and(|version| version == entry.version)
        });
        if !known {
            self.entries.remove(path);
            // Looked at before it is compiled: a change in between is seen the next time.
            let version = look_at(path);
            let compiled = compile(path)?;
            if self.entries.len() >= REMEMBERED {
                self.forget_half();
            }
            let version =
                version.unwrap_or(Version { device: 0, inode: 0, size: 0, modified: (0, 0), changed: (0, 0) });
            self.entries.insert(path.to_owned(), Entry { compiled, version, looked_at: now });
        }
        Ok(&self.entries[path].compiled)
    }

    fn forget_half(&mut self) {
        let mut times: Vec<Instant> = self.entries.values().map(|e| e.looked_at).collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        self.entries.retain(|_, e| e.looked_at > median);
    }
}

fn look_at(path: &Path) -> io::Result<Version> {
    std::fs::metadata(path).map(|meta| Version::from(&meta))
}
