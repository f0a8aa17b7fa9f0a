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

/// How many requests take too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    None,
    Some,
    /// No other one is left.
    All,
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

    /// Tells the log of each that takes too long, once.
    pub(super) fn overdue(&self) -> Overdue {
        let Some(limit) = self.limit else { return Overdue::None };
        let mut entries = self.entries();
        for entry in entries.iter_mut().filter(|entry| !entry.is_told && entry.since.elapsed() >= limit) {
            entry.is_told = true;
            let what = &entry.what;
            tracing::error!("a request has not ended after {limit:?}: its process is ended (--kill-after): {what}");
        }
        match entries.iter().filter(|entry| entry.is_told).count() {
            0 => Overdue::None,
            count if count == entries.len() => Overdue::All,
            _ => Overdue::Some,
        }
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
