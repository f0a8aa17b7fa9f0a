//! What requests run, where it must be known when one takes too long (`--kill-after`).

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use super::Server;
use crate::protocol::Params;

/// The requests that run.
#[derive(Debug)]
pub(super) struct Running {
    /// How long one may take; without a limit nothing is noted.
    limit: Option<Duration>,
    entries: Mutex<Vec<Entry>>,
}

/// Who works on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Thread(ThreadId),
    /// An event loop, which has a number for it.
    Loop(u64),
}

#[derive(Debug)]
struct Entry {
    by: By,
    since: Instant,
    /// Its script and what was asked for.
    what: String,
    /// It has been said that it takes too long.
    is_told: bool,
}

/// Requests that take too long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Overdue {
    pub(super) count: usize,
    /// How many others run.
    pub(super) others: usize,
    /// For how long the first of them has been overdue.
    pub(super) since: Duration,
}

impl Running {
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { limit, entries: Mutex::default() }
    }

    pub(super) fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    fn entries(&self) -> MutexGuard<'_, Vec<Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, by: By, params: &Params) {
        if self.limit.is_none() {
            return;
        }
        let text = |name: &[u8]| params.get(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let what = [b"SCRIPT_FILENAME".as_slice(), b"REQUEST_METHOD", b"REQUEST_URI"].into_iter().filter_map(text);
        let what = what.collect::<Vec<_>>().join(" ");
        self.entries().push(Entry { by, since: Instant::now(), what, is_told: false });
    }

    fn end(&self, by: By) {
        if self.limit.is_some() {
            self.entries().retain(|entry| entry.by != by);
        }
    }

    /// The calling thread goes to work.
    pub(super) fn begin_in_thread(&self, params: &Params) {
        self.begin(By::Thread(thread::current().id()), params);
    }

    /// The calling thread no longer works on what it began.
    pub(super) fn end_in_thread(&self) {
        self.end(By::Thread(thread::current().id()));
    }

    /// What takes too long, if anything does. Tells the log of each, once.
    pub(super) fn overdue(&self) -> Option<Overdue> {
        let limit = self.limit?;
        let mut entries = self.entries();
        for entry in entries.iter_mut().filter(|entry| !entry.is_told && entry.since.elapsed() >= limit) {
            entry.is_told = true;
            let what = &entry.what;
            tracing::error!("a request has not ended after {limit:?}: its process is ended (--kill-after): {what}");
        }
        let count = entries.iter().filter(|entry| entry.is_told).count();
        let longest = entries.iter().map(|entry| entry.since.elapsed()).max().unwrap_or_default();
        (count > 0).then(|| Overdue { count, others: entries.len() - count, since: longest.saturating_sub(limit) })
    }
}

/// A request that an event loop works on, until this is dropped.
#[derive(Debug)]
pub(super) struct Work {
    server: Arc<Server>,
    key: u64,
}

impl Work {
    pub(super) fn begin(server: &Arc<Server>, key: u64, params: &Params) -> Self {
        server.at_work.fetch_add(1, Relaxed);
        server.running.begin(By::Loop(key), params);
        Self { server: server.clone(), key }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.server.at_work.fetch_sub(1, Relaxed);
        self.server.running.end(By::Loop(self.key));
    }
}
