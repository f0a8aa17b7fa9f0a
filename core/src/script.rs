//! Which file a request runs, and what is known of it: the same for every language.
//!
//! Either one script is given for all requests, or each request names its own in `SCRIPT_FILENAME`. Such a name comes from
//! outside, so it is confined: to a list of extensions, and, when there is one, to a root directory that neither `..` nor
//! a symbolic link leaves.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::Metadata;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;
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
    Named(Named),
    /// Those, and some more that it may name wherever they lie.
    Besides {
        /// Where all others come from.
        rest: Box<Scripts>,
        /// Absolute paths.
        named: Vec<PathBuf>,
    },
}

/// Scripts that requests name, and where they may lie.
#[derive(Clone, Debug)]
pub struct Named {
    root: Option<PathBuf>,
    extensions: Vec<OsString>,
    /// Names that were found to be scripts a moment ago.
    known: HashMap<Vec<u8>, (PathBuf, Duration)>,
}

impl Named {
    /// Scripts below `root` (anywhere without one), with one of these extensions, given without the dot (any when there
    /// are none).
    pub fn new(root: Option<PathBuf>, extensions: Vec<OsString>) -> Self {
        Self { root, extensions, known: HashMap::new() }
    }

    /// The directory that scripts must lie in.
    pub fn root(&self) -> Option<&Path> {
        self.root.as_deref()
    }

    /// The extensions that scripts may have.
    pub fn extensions(&self) -> &[OsString] {
        &self.extensions
    }

    fn locate(&mut self, params: &mut Params) -> Result<PathBuf, NoScript> {
        let name = params.get(b"SCRIPT_FILENAME");
        if let Some((path, looked_at)) = name.and_then(|name| self.known.get(name))
            && clock::since(*looked_at) < BELIEVED
        {
            return Ok(path.clone());
        }
        let name = name.map(<[u8]>::to_vec);
        let path = self.look_for(params)?;
        // Not when the name went on behind the script: the variables must be put right for each request.
        if let Some(name) = name.filter(|name| name == path.as_os_str().as_bytes()) {
            if self.known.len() >= REMEMBERED {
                self.known.clear();
            }
            self.known.insert(name, (path.clone(), clock::now()));
        }
        Ok(path)
    }

    fn look_for(&self, params: &mut Params) -> Result<PathBuf, NoScript> {
        let shown = params.get(b"SCRIPT_FILENAME").map_or_else(
            || "the web server sent no SCRIPT_FILENAME (give a script, or see the server's configuration)".to_owned(),
            |name| name.escape_ascii().to_string(),
        );
        let path = gateway::split_script_path(params).ok_or_else(|| NoScript::NotFound(shown.clone()))?;
        let is_allowed = |extension| self.extensions.iter().any(|x| x == extension);
        if !self.extensions.is_empty() && !path.extension().is_some_and(is_allowed) {
            return Err(NoScript::Forbidden(shown, "its extension is not among those allowed (--extensions)"));
        }
        if let Some(root) = &self.root {
            let root = root.canonicalize();
            if !path.canonicalize().is_ok_and(|real| root.is_ok_and(|root| real.starts_with(root))) {
                return Err(NoScript::Forbidden(shown, "it lies outside of the root directory (--root)"));
            }
        }
        Ok(path)
    }
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
    /// The script of a request. Its variables are put right where the path went on behind the script. What was found is
    /// believed for a second.
    ///
    /// # Errors
    /// [`NoScript`].
    pub fn locate(&mut self, params: &mut Params) -> Result<PathBuf, NoScript> {
        match self {
            Self::One(path) => Ok(path.clone()),
            Self::Named(named) => named.locate(params),
            Self::Besides { rest, named } => {
                let name = params.get(b"SCRIPT_FILENAME").unwrap_or_default();
                match named.iter().find(|path| path.as_os_str().as_bytes() == name) {
                    Some(path) => Ok(path.clone()),
                    None => rest.locate(params),
                }
            }
        }
    }
}

/// Compiled scripts by path. A file is looked at once a second at most, and compiled again when it has changed.
#[derive(Debug)]
pub struct Cache<T> {
    /// By path, as a text: few scripts are found by a comparison or two, which costs less than a hash.
    entries: BTreeMap<OsString, Entry<T>>,
}

#[derive(Debug)]
struct Entry<T> {
    compiled: T,
    version: Version,
    looked_at: Duration,
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

/// Watches whether a file stays as it is, looking at it once a second at most.
#[derive(Clone, Debug)]
pub struct Watch {
    path: PathBuf,
    version: Option<Version>,
    looked_at: Duration,
}

impl Watch {
    /// Watches a file from now on.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), version: look_at(path).ok(), looked_at: clock::now() }
    }

    /// Whether the file has changed, or has gone.
    pub fn has_changed(&mut self) -> bool {
        let now = clock::now();
        if now.saturating_sub(self.looked_at) < BELIEVED {
            return false;
        }
        self.looked_at = now;
        look_at(&self.path).ok() != self.version
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }
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
        Self { entries: BTreeMap::new() }
    }
}

impl<T> Cache<T> {
    /// The compiled script, from `compile` when it is not known or has changed. What fails is not remembered, so a file
    /// that is mended works at once.
    ///
    /// # Errors
    /// What `compile` says, which is called, too, when the file cannot be looked at: it knows how to say so.
    pub fn get<E>(&mut self, path: &Path, compile: impl FnOnce(&Path) -> Result<T, E>) -> Result<&T, E> {
        let now = clock::now();
        let known = self.entries.get_mut(path.as_os_str()).is_some_and(|entry| {
            if now.saturating_sub(entry.looked_at) < BELIEVED {
                return true;
            }
            entry.looked_at = now;
            look_at(path).is_ok_and(|version| version == entry.version)
        });
        if !known {
            self.entries.remove(path.as_os_str());
            // Looked at before it is compiled: a change in between is seen the next time.
            let version = look_at(path);
            let compiled = compile(path)?;
            if self.entries.len() >= REMEMBERED {
                self.forget_half();
            }
            let version =
                version.unwrap_or(Version { device: 0, inode: 0, size: 0, modified: (0, 0), changed: (0, 0) });
            self.entries.insert(path.as_os_str().to_owned(), Entry { compiled, version, looked_at: now });
        }
        Ok(&self.entries[path.as_os_str()].compiled)
    }

    fn forget_half(&mut self) {
        let mut times: Vec<Duration> = self.entries.values().map(|e| e.looked_at).collect();
        times.sort_unstable();
        let median = times[times.len() / 2];
        self.entries.retain(|_, e| e.looked_at > median);
    }
}

fn look_at(path: &Path) -> io::Result<Version> {
    std::fs::metadata(path).map(|meta| Version::from(&meta))
}
