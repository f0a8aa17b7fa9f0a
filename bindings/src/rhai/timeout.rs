//! Ends a script that runs too long (`--request-timeout`): the watchdog sets a flag, which Rhai looks at with each operation.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fcgi_core::watchdog::{Watchdog, Watched};
use rhai::{Engine, FLOAT, INT};

use super::context;
use super::error::{Failed, ended};

/// What a script is told that runs too long.
pub(super) const TOO_LONG: &str = "the request takes too long (--request-timeout)";

/// How long a script sleeps before it looks whether it has been told to end.
const NAP: Duration = Duration::from_millis(20);

/// The time of this thread's requests.
#[derive(Debug, Default)]
pub(super) struct Timeout {
    /// The request that runs has taken too long.
    late: Arc<AtomicBool>,
    watched: Option<Watched>,
}

impl Timeout {
    /// Watches the requests of this thread, if there is a limit.
    pub(super) fn new(watchdog: Option<&Watchdog>) -> Self {
        let late = Arc::new(AtomicBool::new(false));
        let told = late.clone();
        let watched = watchdog.map(|watchdog| watchdog.watch(move || told.store(true, Relaxed)));
        Self { late, watched }
    }

    /// A request begins to run.
    pub(super) fn begin(&self) {
        if let Some(watched) = &self.watched {
            self.late.store(false, Relaxed);
            watched.begin();
        }
    }

    /// The request may take its time from now on; whether it has taken too long.
    pub(super) fn end(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| {
            watched.end();
            self.is_late()
        })
    }

    /// Whether the request that runs has taken too long.
    pub(super) fn is_late(&self) -> bool {
        self.late.load(Relaxed)
    }

    /// What asks whether the request that runs has taken too long.
    pub(super) fn question(&self) -> impl Fn() -> bool + use<> {
        let late = self.late.clone();
        move || late.load(Relaxed)
    }
}

/// Sleeps, unless the request has taken too long: that ends it.
fn sleep(time: Duration) -> Result<(), Failed> {
    let now = Instant::now();
    // Nobody lives longer than a century.
    let end = now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 366 * 86400));
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if context::with(|context| context.timeout.borrow().is_late()) {
            return Err(ended(TOO_LONG));
        }
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(NAP));
    }
}

/// Adds the functions of this file: they take the place of Rhai's own, which nothing ends.
pub(super) fn add_to(engine: &mut Engine) {
    engine.register_fn("sleep", |seconds: INT| sleep(Duration::from_secs(seconds.max(0) as u64)));
    engine.register_fn("sleep", |seconds: FLOAT| {
        sleep(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    });
}
