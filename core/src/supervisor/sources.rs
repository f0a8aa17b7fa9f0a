//! Source files that are watched, so that the server is reloaded when one of them changes (development). The kernel watches
//! them (inotify) and the parent's loop hears of it: no thread, and no file is read.
//!
//! Editors write a file in several steps, and tools write many: what has changed is told when nothing has for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

/// What has changed is told when nothing has for so long.
const QUIET: Duration = Duration::from_millis(150);
/// Files that never come to rest are told of all the same.
const LONGEST: Duration = Duration::from_secs(2);
/// Directories that are watched: the parent stays small.
const MOST: usize = 4096;
/// Names that are remembered of what has changed.
const TOLD: usize = 64;
/// Directories in which no sources of the program's own lie.
const FOREIGN: [&str; 3] = ["__pycache__", "node_modules", "site-packages"];
/// What lies in the root of a virtual environment of Python's.
const ENVIRONMENT: &str = "pyvenv.cfg";

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Files, whatever their names.
    pub files: Vec<PathBuf>,
    /// Directories with all that lies below them, but for hidden files and directories, and those that hold foreign code.
    pub trees: Vec<Tree>,
}

/// A directory with sources. All paths are absolute, and no directory in them is a symbolic link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The directory.
    pub root: PathBuf,
    /// Extensions of files that are sources, without the dot; any when there are none.
    pub extensions: Vec<OsString>,
}

impl Watched {
    /// Whether a file is to be told of.
    fn has(&self, path: &Path) -> bool {
        let in_tree = |tree: &Tree| {
            let Ok(rest) = path.strip_prefix(&tree.root) else { return false };
            let is_source = |extension: &OsStr| tree.extensions.iter().any(|known| known == extension);
            (tree.extensions.is_empty() || path.extension().is_some_and(is_source))
                && rest.iter().all(|name| !is_passed_over(name))
        };
        self.files.iter().any(|file| file == path) || self.trees.iter().any(in_tree)
    }

    /// Whether a directory is one of those below which sources lie.
    fn has_directory(&self, path: &Path) -> bool {
        let in_tree =
            |tree: &Tree| path.strip_prefix(&tree.root).is_ok_and(|rest| rest.iter().all(|name| !is_passed_over(name)));
        self.trees.iter().any(in_tree)
    }
}

fn is_passed_over(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".") || FOREIGN.iter().any(|foreign| name == *foreign)
}

/// What has changed since it was last told.
#[derive(Debug)]
struct Changed {
    files: BTreeSet<PathBuf>,
    first: Instant,
    last: Instant,
}

/// The kernel's watch over them.
#[derive(Debug)]
pub(super) struct Sources {
    watched: Watched,
    inotify: OwnedFd,
    /// By the kernel's number for them.
    directories: BTreeMap<i32, PathBuf>,
    changed: Option<Changed>,
    /// It has been said that there are too many directories.
    is_full: bool,
}

impl Sources {
    /// Watches from now on.
    ///
    /// # Errors
    /// When the system watches nothing more for this user.
    pub(super) fn watch(watched: Watched) -> io::Result<Self> {
        let inotify = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let mut sources = Self { watched, inotify, directories: BTreeMap::new(), changed: None, is_full: false };
        for tree in sources.watched.trees.clone() {
            sources.add_tree(&tree.root, &mut |_| {});
        }
        // A file is watched by its directory: editors put another one in its place.
        for file in sources.watched.files.clone() {
            sources.add(file.parent().unwrap_or(Path::new("/")));
        }
        Ok(sources)
    }

    /// Takes what the kernel has seen.
    pub(super) fn listen(&mut self, now: Instant) {
        // Room for an event with the longest name.
        let mut buffer = [MaybeUninit::uninit(); 8 << 10];
        let Ok(inotify) = self.inotify.try_clone() else { return };
        let mut reader = Reader::new(inotify, &mut buffer);
        let mut seen = Vec::new();
        loop {
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()).to_owned());
                    seen.push((event.wd(), event.events(), name));
                }
                Err(Errno::INTR) => {}
                Err(_) => break,
            }
        }
        for (number, what, name) in seen {
            self.note(number, what, name, now);
        }
    }

    fn note(&mut self, number: i32, what: ReadFlags, name: Option<OsString>, now: Instant) {
        if what.contains(ReadFlags::IGNORED) {
            self.directories.remove(&number);
            return;
        }
        let Some(directory) = self.directories.get(&number) else {
            // More has happened than the kernel remembers.
            if what.contains(ReadFlags::QUEUE_OVERFLOW) {
                let first = self.watched.trees.first().map(|tree| tree.root.clone());
                self.changed(first.unwrap_or_default(), now);
            }
            return;
        };
        let Some(name) = name else { return };
        let path = directory.join(name);
        if !what.contains(ReadFlags::ISDIR) {
            if self.watched.has(&path) {
                self.changed(path, now);
            }
        } else if self.watched.has_directory(&path) {
            if what.contains(ReadFlags::MOVED_FROM) {
                self.changed(path, now);
            } else if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
                let mut found = Vec::new();
                self.add_tree(&path, &mut |file| found.push(file));
                found
                    .into_iter()
                    .filter(|file| self.watched.has(file))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .for_each(|file| self.changed(file, now));
            }
        }
    }

    fn changed(&mut self, path: PathBuf, now: Instant) {
        let changed = self.changed.get_or_insert_with(|| Changed { files: BTreeSet::new(), first: now, last: now });
        changed.last = now;
        if changed.files.len() < TOLD {
            changed.files.insert(path);
        }
    }

    /// What has changed, once nothing has for a moment.
    pub(super) fn settled(&mut self, now: Instant) -> Option<BTreeSet<PathBuf>> {
        if self.next_look()? > now {
            return None;
        }
        self.changed.take().map(|changed| changed.files)
    }

    /// When to ask again what has settled.
    pub(super) fn next_look(&self) -> Option<Instant> {
        self.changed.as_ref().map(|changed| (changed.last + QUIET).min(changed.first + LONGEST))
    }

    /// A file as it is told: by its path below the directory that is watched.
    pub(super) fn shown<'a>(&self, path: &'a Path) -> &'a Path {
        let below = self.watched.trees.iter().filter_map(|tree| path.strip_prefix(&tree.root).ok());
        below.min_by_key(|rest| rest.as_os_str().len()).filter(|rest| !rest.as_os_str().is_empty()).unwrap_or(path)
    }

    /// Watches a directory and all below it. What lies there is given to `found`.
    fn add_tree(&mut self, root: &Path, found: &mut impl FnMut(PathBuf)) {
        let mut left = vec![root.to_owned()];
        while let Some(directory) = left.pop() {
            if directory != root && directory.join(ENVIRONMENT).exists() {
                continue;
            }
            if !self.add(&directory) {
                continue;
            }
            // Listed behind that: what comes meanwhile is seen twice rather than never.
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                // No symbolic link is followed: some lead in circles.
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => {
                        if !is_passed_over(&entry.file_name()) {
                            left.push(entry.path());
                        }
                    }
                    _ => found(entry.path()),
                }
            }
        }
    }

    /// Watches one directory; whether that could be done.
    fn add(&mut self, directory: &Path) -> bool {
        let flags = WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::MOVED_FROM
            | WatchFlags::MOVED_TO
            | WatchFlags::ONLYDIR;
        if self.directories.len() >= MOST {
            self.say_full(directory, "more directories than are watched at a time");
            return false;
        }
        match inotify::add_watch(&self.inotify, directory, flags) {
            Ok(number) => {
                self.directories.insert(number, directory.to_owned());
                true
            }
            Err(Errno::NOSPC) => {
                self.say_full(directory, "the system watches no more for this user (fs.inotify.max_user_watches)");
                false
            }
            Err(e) => {
                tracing::warn!("{} is not watched: {e}", directory.display());
                false
            }
        }
    }

    fn say_full(&mut self, directory: &Path, why: &str) {
        if !std::mem::replace(&mut self.is_full, true) {
            tracing::warn!("{} and others are not watched: {why}", directory.display());
        }
    }
}

impl AsFd for Sources {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inotify.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_source() {
        let watched = Watched {
            files: vec!["/etc/fcgi.toml".into(), "/srv/.hidden.py".into()],
            trees: vec![
                Tree { root: "/srv/.app".into(), extensions: vec!["py".into()] },
                Tree { root: "/srv/pages".into(), extensions: Vec::new() },
            ],
        };
        for (path, is_source) in [
            ("/etc/fcgi.toml", true),
            ("/etc/other.toml", false),
            ("/srv/.hidden.py", true),
            ("/srv/.app/a.py", true),
            ("/srv/.app/b/c/a.py", true),
            ("/srv/.app/a.pyc", false),
            ("/srv/.app/py", false),
            ("/srv/.app/.#a.py", false),
            ("/srv/.app/.git/a.py", false),
            ("/srv/.app/__pycache__/a.py", false),
            ("/srv/.apple/a.py", false),
            ("/srv/pages/a", true),
            ("/srv/pages/.a.swp", false),
        ] {
            assert_eq!(watched.has(Path::new(path)), is_source, "{path}");
        }
    }

    /// Waits for what is told next.
    fn next(sources: &mut Sources) -> BTreeSet<PathBuf> {
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            sources.listen(Instant::now());
            if let Some(files) = sources.settled(Instant::now()) {
                return files;
            }
            assert!(Instant::now() < end, "nothing is told");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn changes_are_told_together_wherever_they_are() {
        let root = std::env::temp_dir().join(format!("fcgi-sources-{}", std::process::id()));
        for directory in ["a/b", ".git", "venv/lib"] {
            std::fs::create_dir_all(root.join(directory)).unwrap();
        }
        std::fs::write(root.join("venv").join(ENVIRONMENT), "").unwrap();
        let tree = Tree { root: root.clone(), extensions: vec!["lua".into()] };
        let mut sources = Sources::watch(Watched { files: vec![root.join("x.toml")], trees: vec![tree] }).unwrap();
        let write = |name: &str| std::fs::write(root.join(name), "").unwrap();
        let of = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<BTreeSet<_>>();
        ["1.lua", "a/b/2.lua", "a/b/3.txt", ".git/4.lua", "venv/lib/5.lua", "x.toml"].into_iter().for_each(write);
        assert_eq!(next(&mut sources), of(&["1.lua", "a/b/2.lua", "x.toml"]));
        // A directory that is new, and one whose files came before it was watched.
        std::fs::create_dir_all(root.join("c/d")).unwrap();
        write("c/d/6.lua");
        assert_eq!(next(&mut sources), of(&["c/d/6.lua"]));
        std::fs::rename(root.join("c"), root.join("e")).unwrap();
        assert_eq!(next(&mut sources), of(&["c", "e/d/6.lua"]));
        // As editors do.
        write("a/.7.tmp");
        std::fs::rename(root.join("a/.7.tmp"), root.join("a/7.lua")).unwrap();
        assert_eq!(next(&mut sources), of(&["a/7.lua"]));
        std::fs::remove_file(root.join("e/d/6.lua")).unwrap();
        let files = next(&mut sources);
        assert_eq!(files, of(&["e/d/6.lua"]));
        assert_eq!(sources.shown(files.first().unwrap()), Path::new("e/d/6.lua"));
        assert_eq!(sources.shown(Path::new("/etc/x")), Path::new("/etc/x"));
        std::fs::remove_dir_all(root).unwrap();
    }
}
