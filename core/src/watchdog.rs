//! Notices requests that run too long, and says so to their interpreters.
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
    timeout: Duration,
    watched: Arc<Mutex<Vec<Arc<Shared>>>>,
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
    interrupt: Box<dyn Fn() + Send + Sync>,
}

impl Watchdog {
    /// Starts to watch for requests that run longer than `timeout`.
    ///
    /// # Errors
    /// When the system has no thread for it.
    pub fn start(timeout: Duration) -> io::Result<Self> {
        let watched = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::downgrade(&watched);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(timeout, &seen))?;
        Ok(Self { timeout, watched })
    }

    /// How long a request may run.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Watches an interpreter. When a request has run too long, `interrupt` is called by the watchdog's thread, and again
    /// and again until the request ends.
    pub fn watch(&self, interrupt: impl Fn() + Send + Sync + 'static) -> Watched {
        let shared = Arc::new(Shared { phase: AtomicU64::new(0), interrupt: Box::new(interrupt) });
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

fn watch(timeout: Duration, watched: &Weak<Mutex<Vec<Arc<Shared>>>>) {
    let tick = (timeout / 20).clamp(Duration::from_millis(5), Duration::from_secs(1));
    // Which phase each interpreter was in, and since when.
    let mut seen: Vec<(Weak<Shared>, u64, Instant)> = Vec::new();
    while let Some(watched) = watched.upgrade() {
        let now = Instant::now();
        let list = lock(&watched);
        seen.retain(|(shared, ..)| shared.strong_count() > 0);
        for shared in &*list {
            let phase = shared.phase.load(Ordering::Relaxed);
            match seen.iter_mut().find(|(known, ..)| known.as_ptr() == Arc::as_ptr(shared)) {
                None => seen.push((Arc::downgrade(shared), phase, now)),
                Some((_, known, since)) if *known != phase => (*known, *since) = (phase, now),
                Some((_, _, since)) if phase % 2 == 1 && now.duration_since(*since) >= timeout => (shared.interrupt)(),
                Some(_) => {}
            }
        }
        drop(list);
        drop(watched);
        thread::sleep(tick);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn only_what_runs_too_long_is_interrupted() {
        let watchdog = Watchdog::start(Duration::from_millis(100)).unwrap();
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let watched = watchdog.watch(move || {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        // Many short requests, and a long time without one.
        for _ in 0..30 {
            watched.begin();
            thread::sleep(Duration::from_millis(5));
            watched.end();
        }
        thread::sleep(Duration::from_millis(200));
        assert_eq!(count.load(Ordering::Relaxed), 0);
        // One that hangs is interrupted until it ends.
        let begun = Instant::now();
        watched.begin();
        while count.load(Ordering::Relaxed) < 2 {
            assert!(begun.elapsed() < Duration::from_secs(20), "never interrupted");
            thread::sleep(Duration::from_millis(5));
        }
        assert!(begun.elapsed() >= Duration::from_millis(100));
        drop(watched);
        let after = count.load(Ordering::Relaxed);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(count.load(Ordering::Relaxed), after);
    }
}
