//! Ends a script that runs too long (`--request-timeout`): the watchdog sets a flag, which Rhai looks at with each operation.
//! Another flag has an entry written for one that runs for [long](super::slow).

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fcgi_core::Params;
use fcgi_core::interpreter::Setup;
use fcgi_core::slow_log::SlowLog;
use fcgi_core::watchdog::{Notice, Watched};
use rhai::{Engine, FLOAT, INT, NativeCallContext};

use super::error::{Failed, ended};
use super::{context, slow};

/// What a script is told that runs too long.
pub(super) const TOO_LONG: &str = "the request takes too long (--request-timeout)";

/// How long a script sleeps before it looks whether it has been told to end.
const NAP: Duration = Duration::from_millis(20);

/// The time of this thread's requests.
#[derive(Debug, Default)]
pub(super) struct Timeout {
    /// What the watchdog has said of the request that runs: [`SLOW`], [`LATE`].
    said: Arc<AtomicU8>,
    since: Cell<Option<Instant>>,
    log: Option<Arc<SlowLog>>,
    watched: Option<Watched>,
}

/// The request is to have an entry in the slow log.
const SLOW: u8 = 1;
/// It has taken too long.
const LATE: u8 = 2;

impl Timeout {
    /// Watches the requests of this thread, if there is a limit or a slow log.
    pub(super) fn new(setup: &Setup) -> Self {
        let said = Arc::new(AtomicU8::new(0));
        let told = said.clone();
        let tell = move |notice| {
            told.fetch_or(if notice == Notice::Late { LATE } else { SLOW }, Relaxed);
        };
        let watched = setup.watchdog.as_ref().map(|watchdog| watchdog.watch(tell));
        Self { said, since: Cell::new(None), log: setup.slow_log.clone(), watched }
    }

    /// A request begins to run.
    pub(super) fn begin(&self) {
        if let Some(watched) = &self.watched {
            self.said.store(0, Relaxed);
            self.since.set(self.log.as_ref().map(|_| Instant::now()));
            watched.begin();
        }
    }

    /// The request may take its time from now on; whether it has taken too long.
    pub(super) fn end(&self) -> bool {
        self.watched.as_ref().is_some_and(|watched| {
            watched.end();
            self.said.load(Relaxed) & LATE != 0
        })
    }

    /// What asks whether the request that runs has taken too long. It is asked now and then by all that may take long.
    pub(super) fn question(&self) -> impl Fn() -> bool + use<> {
        let said = self.said.clone();
        move || said.load(Relaxed) & LATE != 0
    }

    /// What asks whether the request that runs is to have an entry in the slow log; it says so once.
    pub(super) fn is_slow(&self) -> impl Fn() -> bool + use<> {
        let said = self.said.clone();
        move || said.load(Relaxed) & SLOW != 0 && said.fetch_and(!SLOW, Relaxed) & SLOW != 0
    }

    /// Writes the entry of a slow request; `stack` are lines that tell where it is.
    pub(super) fn report(&self, params: &Params, stack: &[u8]) {
        let (Some(log), Some(since)) = (&self.log, self.since.get()) else { return };
        log.write(params, since.elapsed(), stack);
    }
}

/// Sleeps, unless the request has taken too long: that ends it.
fn sleep(native: &NativeCallContext<'_>, time: Duration) -> Result<(), Failed> {
    let now = Instant::now();
    // Nobody lives longer than a century.
    let end = now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 366 * 86400));
    let is_late = context::with(|context| context.timeout.borrow().question());
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if is_late() {
            return Err(ended(TOO_LONG));
        }
        if left.is_zero() {
            return Ok(());
        }
        slow::tell(native);
        std::thread::sleep(left.min(NAP));
    }
}

/// Adds the functions of this file: they take the place of Rhai's own, which nothing ends.
pub(super) fn add_to(engine: &mut Engine) {
    engine.register_fn("sleep", |native: NativeCallContext<'_>, seconds: INT| {
        sleep(&native, Duration::from_secs(seconds.max(0) as u64))
    });
    engine.register_fn("sleep", |native: NativeCallContext<'_>, seconds: FLOAT| {
        sleep(&native, Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
    });
}
