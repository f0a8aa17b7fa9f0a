//! Notices requests that run for long, and says so to their interpreters.
//!
//! It costs a request two additions: no clock is read and no timer is set for it. A thread looks now and then which
//! requests it has seen before, so a request may run a little longer than it should, never shorter.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Watches the interpreters of a process, by a thread that ends with the last handle.
#[derive(Clone, Debug)]
pub struct Watchdog {
    limits: Limits,
    watched: Arc<Mutex<Vec<Arc<Shared>>>>,
}

/// What is long.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// A request that has run for so long is [slow](Notice::Slow).
    pub slow: Option<Duration>,
    /// One that has run for so long is [late](Notice::Late).
    pub timeout: Option<Duration>,
}

/// What an interpreter is told of the request that it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It is slow: it has run for so long. Told once.
    Slow(Duration),
    /// It has run too long. Told again and again, twenty times in the time that a request has, until it ends.
    Late,
}

/// One interpreter under watch. Dropping it ends the watch: its function is not called afterwards.
#[derive(Debug)]
pub struct Watched {
    shared: Arc<Shared>,
    all: Arc<Mutex<Vec<Arc<Shared>>>>,
}

struct Shared {
    /// Grows when a request begins and when it ends: odd while one runs.
    phase: AtomicU64,
    tell: Box<dyn Fn(Notice) + Send + Sync>,
}

impl Watchdog {
    /// Starts to watch for requests that run longer than that.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(limits: Limits) -> io::Result<Self> {
        let watched = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::downgrade(&watched);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(limits, &seen))?;
        Ok(Self { limits, watched })
    }

    /// How long a request may run, if there is a limit.
    pub fn timeout(&self) -> Option<Duration> {
        self.limits.timeout
    }

    /// Watches an interpreter. When a request has run for long, `tell` is called by the watchdog's thread.
    pub fn watch(&self, tell: impl Fn(Notice) + Send + Sync + 'static) -> Watched {
        let shared = Arc::new(Shared { phase: AtomicU64::new(0), tell: Box::new(tell) });
        lock(&self.watched).push(shared.clone());
        Watched { shared, all: self.watched.clone() }
    }
}

impl Watched {
    /// A request begins.
    pub fn begin(&self) {
        self.shared.phase.fetch_add(u64::from(!self.is_running()), Ordering::Relaxed);
    }

    /// The request has ended, or need not be watched any longer.
    pub fn end(&self) {
        self.shared.phase.fetch_add(u64::from(self.is_running()), Ordering::Relaxed);
    }

    fn is_running(&self) -> bool {
        self.shared.phase.load(Ordering::Relaxed) % 2 == 1
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        lock(&self.all).retain(|shared| !Arc::ptr_eq(shared, &self.shared));
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("phase", &self.phase).finish_non_exhaustive()
    }
}

/// The lock protects a list that is whole at any time.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is known of an interpreter.
struct Seen {
    shared: Weak<Shared>,
    /// Which phase it was in, and since when.
    phase: u64,
    since: Instant,
    told_slow: bool,
    /// How long the request must have run to be told that it is late.
    late_at: Option<Duration>,
}

impl Seen {
    /// Has the interpreter told what is to be told now.
    fn look(&mut self, shared: &Shared, limits: Limits, now: Instant) {
        let phase = shared.phase.load(Ordering::Relaxed);
        if self.phase != phase {
            (self.phase, self.since, self.told_slow, self.late_at) = (phase, now, false, limits.timeout);
            return;
        }
        if phase.is_multiple_of(2) {
            return;
        }
        let taken = now.duration_since(self.since);
        if !self.told_slow && limits.slow.is_some_and(|slow| taken >= slow) {
            self.told_slow = true;
            (shared.tell)(Notice::Slow(taken));
        }
        if let (Some(late_at), Some(timeout)) = (self.late_at, limits.timeout)
            && taken >= late_at
        {
            self.late_at = Some(taken + tick(timeout));
            (shared.tell)(Notice::Late);
        }
    }
}

/// How often it is looked for requests that run for so long.
fn tick(limit: Duration) -> Duration {
    (limit / 20).clamp(Duration::from_millis(5), Duration::from_secs(1))
}

fn watch(limits: Limits, watched: &Weak<Mutex<Vec<Arc<Shared>>>>) {
    let pause = [limits.slow, limits.timeout].into_iter().flatten().map(tick).min().unwrap_or(Duration::from_secs(1));
    let mut all: Vec<Seen> = Vec::new();
    while let Some(watched) = watched.upgrade() {
        let now = Instant::now();
        let list = lock(&watched);
        all.retain(|seen| seen.shared.strong_count() > 0);
        for shared in &*list {
            if let Some(seen) = all.iter_mut().find(|seen| seen.shared.as_ptr() == Arc::as_ptr(shared)) {
                seen.look(shared, limits, now);
            } else {
                let phase = shared.phase.load(Ordering::Relaxed);
                let shared = Arc::downgrade(shared);
                all.push(Seen { shared, phase, since: now, told_slow: false, late_at: limits.timeout });
            }
        }
        drop(list);
        drop(watched);
        thread::sleep(pause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_runs_for_long_is_told() {
        let (slow, timeout) = (Some(Duration::from_millis(100)), Some(Duration::from_millis(200)));
        let watchdog = Watchdog::start(Limits { slow, timeout }).unwrap();
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = told.clone();
        let watched = watchdog.watch(move |notice| lock(&heard).push(notice));
        // Many short requests, and a long time without one.
        for _ in 0..30 {
            watched.begin();
            thread::sleep(Duration::from_millis(5));
            watched.end();
        }
        thread::sleep(Duration::from_millis(300));
        assert_eq!(*lock(&told), []);
        // One that hangs is said to be slow, once, and late until it ends.
        let begun = Instant::now();
        watched.begin();
        while lock(&told).len() < 4 {
            assert!(begun.elapsed() < Duration::from_secs(20), "never told: {:?}", lock(&told));
            thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.elapsed() >= Duration::from_millis(200));
        drop(watched);
        let after = lock(&told).clone();
        assert!(matches!(after[0], Notice::Slow(taken) if taken >= Duration::from_millis(100)), "{after:?}");
        assert!(after[1..].iter().all(|notice| *notice == Notice::Late), "{after:?}");
        thread::sleep(Duration::from_millis(100));
        assert_eq!(*lock(&told), after);
    }
}
