//! What a script leaves behind: the process is compared before and after each request, and so is the interpreter, by its
//! language ([`found`]). For development and staging: it costs much more than a request does.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::interpreter::{Interpreter, Requests};
use crate::request::Request;

/// Threads that are being ended, and files that are being closed, are waited for so long.
const PATIENCE: Duration = Duration::from_millis(200);

thread_local! {
    static FOUND: RefCell<Vec<Finding>> = const { RefCell::new(Vec::new()) };
    static IS_WANTED: Cell<bool> = const { Cell::new(false) };
}

/// One thing that a script has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is, and where in the script, if that is known.
    pub what: String,
    /// The next request finds it so; otherwise it was put back.
    pub stays: bool,
}

/// Notes what the language has found after the request that this thread has just served.
pub fn found(what: String, stays: bool) {
    FOUND.with_borrow_mut(|found| found.push(Finding { what, stays }));
}

/// Whether what the request of this thread leaves behind is to be found.
pub fn is_wanted() -> bool {
    IS_WANTED.get()
}

/// Serves by another interpreter, and says in the log what each script has left behind.
pub struct Audited {
    inner: Box<dyn Interpreter>,
    /// Told once for each script and thing: most scripts do the same again.
    told: BTreeSet<(Vec<u8>, String)>,
    stays: bool,
}

impl Audited {
    /// Looks after an interpreter.
    pub fn new(inner: Box<dyn Interpreter>) -> Self {
        Self { inner, told: BTreeSet::new(), stays: false }
    }

    /// Whether anything has stayed, of any request so far.
    pub fn has_left(&self) -> bool {
        self.stays
    }

    /// As [`Interpreter::serve`], without a look at what is left.
    pub(crate) fn pass_on(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        self.inner.serve(script, request, more);
    }

    /// As [`Interpreter::serve`]; gives what the script has changed.
    pub fn look_at(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) -> Vec<Finding> {
        let before = Process::look();
        FOUND.take();
        IS_WANTED.set(true);
        self.inner.serve(script, request, more);
        IS_WANTED.set(false);
        let mut findings = FOUND.take();
        let servers: BTreeSet<i32> = more.borrow().server().descriptors().into_iter().collect();
        let deadline = Instant::now() + PATIENCE;
        let mut left = before.compare(&Process::look(), &servers);
        while !left.is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
            left = before.compare(&Process::look(), &servers);
        }
        findings.extend(left.into_iter().map(|what| Finding { what, stays: true }));
        findings
    }
}

impl Interpreter for Audited {
    fn serve(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        for Finding { what, stays } in self.look_at(script, request, more) {
            self.stays |= stays;
            let key = (script.as_os_str().as_encoded_bytes().to_vec(), what.clone());
            if self.told.insert(key) {
                let end = if stays { "stays" } else { "was put back" };
                tracing::warn!("audit: {}: {what}: {end}", script.display());
            }
        }
    }
}

/// What the system knows of this process that scripts can change.
struct Process {
    /// What each open descriptor leads to.
    files: BTreeMap<i32, String>,
    /// The names of threads.
    threads: BTreeMap<String, String>,
    /// Lines of `/proc/self/status` that tell of signals and of the umask.
    status: BTreeMap<&'static str, String>,
}

/// Of the process's status: its names there, and what they are.
const STATUS: [(&str, &str); 3] =
    [("Umask", "the umask"), ("SigIgn", "the signals that are ignored"), ("SigBlk", "the signals that are blocked")];

impl Process {
    fn look() -> Self {
        let list = |directory: &str| fs::read_dir(directory).into_iter().flatten().flatten();
        let files = list("/proc/self/fd").filter_map(|entry| {
            let number: i32 = entry.file_name().to_str()?.parse().ok()?;
            let target = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            (number > 2 && !target.starts_with("/proc/")).then_some((number, target))
        });
        let threads = list("/proc/self/task").filter_map(|entry| {
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), name.trim_end().to_owned()))
        });
        let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let status = STATUS.into_iter().filter_map(|(name, _)| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"))?;
            Some((name, line.to_owned()))
        });
        Self { files: files.collect(), threads: threads.collect(), status: status.collect() }
    }

    /// What has come since. `servers` are descriptors that are none of a script's.
    fn compare(&self, now: &Self, servers: &BTreeSet<i32>) -> Vec<String> {
        // Pipes of the interpreter's own are made anew now and then: what counts is whether there are more of them.
        let is_pipe = |target: &str| target.starts_with("pipe:") || target.starts_with("anon_inode:");
        let pipes = |process: &Self| process.files.values().filter(|target| is_pipe(target)).count();
        let mut left = Vec::new();
        for (number, target) in &now.files {
            if self.files.get(number) != Some(target) && !servers.contains(number) && !is_pipe(target) {
                left.push(format!("descriptor {number} is open ({target})"));
            }
        }
        if pipes(now) > pipes(self) {
            left.push(format!("{} more pipes are open", pipes(now) - pipes(self)));
        }
        for (number, name) in &now.threads {
            if !self.threads.contains_key(number) {
                left.push(format!("a thread runs ({name})"));
            }
        }
        for (name, what) in STATUS {
            let (before, after) = (self.status.get(name), now.status.get(name));
            if before != after {
                let shown = |text: Option<&String>| text.map_or("?", |text| text.trim_start_matches('0')).to_owned();
                left.push(format!("{what} changed from 0{} to 0{}", shown(before), shown(after)));
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_come_is_found() {
        let before = Process::look();
        assert_eq!(before.compare(&before, &BTreeSet::new()), Vec::<String>::new());
        let file = tempfile();
        let left = before.compare(&Process::look(), &BTreeSet::new());
        // Other tests run beside this one.
        assert!(left.iter().any(|what| what.starts_with("descriptor ") && what.contains("fcgi-audit")), "{left:?}");
        drop(file);
    }

    fn tempfile() -> fs::File {
        let path = std::env::temp_dir().join(format!("fcgi-audit-{}", std::process::id()));
        let file = fs::File::create(&path).unwrap();
        fs::remove_file(path).unwrap();
        file
    }
}
