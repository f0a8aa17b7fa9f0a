//! The time that a request may take (`--request-timeout`). What runs longer is ended by an exception, which scripts and
//! applications can clean up behind; the client is told by status 504.
//!
//! In the main thread it is raised by the handler of a signal, which ends what waits for the system, too. In other threads it
//! comes with the next instruction of Python's. If the code does not end all the same, the client is told without it.
//!
//! What runs for long has an entry in the slow log: see [`slow`](super::slow).

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use fcgi_core::Request;
use fcgi_core::interpreter::Setup;
use fcgi_core::watchdog::{Notice, Watched};
use pyo3::create_exception;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;

use super::ffi;
use super::slow::Slow;

create_exception!(
    fcgi,
    RequestTimeout,
    PyBaseException,
    "The request takes longer than --request-timeout. Not an Exception, so that few keep it by accident."
);

type Shared = Arc<Mutex<Request>>;

/// Looks of the watchdog, of which there are twenty in the time that a request has: after so many the client is answered
/// without the code.
const PATIENCE: u32 = 5;
/// After so many more the code, which may be cleaning up, is told again.
const AGAIN: u32 = 10;

thread_local! {
    static LIMIT: RefCell<Option<Limit>> = const { RefCell::new(None) };
}

/// The watch over the interpreter of one thread.
struct Limit {
    watched: Watched,
    target: Arc<Target>,
    slow: Option<Arc<Slow>>,
}

/// Whom the watchdog tells.
struct Target {
    thread: ffi::Thread,
    /// The signal whose handler raises the exception; in the main thread only.
    signal: Option<i32>,
    /// What is said of code that is ended; without a limit, nobody is told.
    timeout: Duration,
    running: Mutex<Option<Shared>>,
    /// The code that runs is the script's, not ours.
    armed: AtomicBool,
    /// The exception has been raised in the request that runs.
    raised: AtomicBool,
    told: AtomicU32,
}

/// Has the interpreter of this thread watched, if requests have a limit or a slow log.
///
/// # Errors
/// When Python refuses the handler of the signal.
pub(super) fn set_up(py: Python<'_>, setup: &Setup) -> PyResult<()> {
    let Some(watchdog) = &setup.watchdog else { return Ok(()) };
    let slow = setup.slow_log.as_ref().map(|log| Slow::new(py, log)).transpose()?.map(Arc::new);
    let number = ffi::time_limit_signal();
    let handler = wrap_pyfunction!(time_is_over, py)?;
    // Others than the main thread have none.
    let is_main =
        watchdog.timeout().is_some() && py.import("_signal")?.call_method1("signal", (number, handler)).is_ok();
    let target = Arc::new(Target {
        thread: ffi::Thread::current(),
        signal: is_main.then_some(number),
        timeout: watchdog.timeout().unwrap_or_default(),
        running: Mutex::default(),
        armed: AtomicBool::new(false),
        raised: AtomicBool::new(false),
        told: AtomicU32::new(0),
    });
    let (late, long) = (target.clone(), slow.clone());
    let watched = watchdog.watch(move |notice| match (notice, &long) {
        (Notice::Late, _) => late.tell(),
        (Notice::Slow(_), Some(slow)) => slow.report(),
        (Notice::Slow(_), None) => {}
    });
    LIMIT.set(Some(Limit { watched, target, slow }));
    Ok(())
}

/// A request's code begins to run.
pub(super) fn begin(request: &Shared) {
    ffi::settle_exceptions();
    LIMIT.with_borrow(|limit| {
        let Some(Limit { watched, target, slow }) = limit else { return };
        if let Some(slow) = slow {
            slow.begin(request.lock().unwrap_or_else(PoisonError::into_inner).params());
        }
        *target.running() = Some(request.clone());
        target.raised.store(false, Relaxed);
        target.told.store(0, Relaxed);
        target.armed.store(true, Relaxed);
        watched.begin();
    });
}

/// Code of ours runs (`false`), or the request's again; gives which it was before. To be called as Python calls it: nothing can
/// be raised in between.
pub(super) fn arm(armed: bool) -> bool {
    LIMIT.with_borrow(|limit| limit.as_ref().is_some_and(|limit| limit.target.armed.swap(armed, Relaxed)))
}

/// The request's code has ended. When it was made to, an answer that has not been sent is replaced by a page that says so.
pub(super) fn end(py: Python<'_>) {
    let late = LIMIT.with_borrow(|limit| {
        let Limit { watched, target, slow } = limit.as_ref()?;
        watched.end();
        if let Some(slow) = slow {
            slow.end();
        }
        target.armed.store(false, Relaxed);
        let request = target.running().take()?;
        if target.signal.is_none() && target.told.load(Relaxed) > 0 {
            // It may not have met it. Who runs next must not.
            target.thread.forget_exception(py);
            target.raised.store(true, Relaxed);
        }
        target.raised.load(Relaxed).then_some(request)
    });
    if let Some(request) = late {
        py.detach(|| say_late(&mut request.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

fn say_late(request: &mut Request) {
    if !request.is_finished() && request.discard() {
        request.answer_with_error("504 Gateway Timeout", b"");
    }
}

impl Target {
    fn running(&self) -> std::sync::MutexGuard<'_, Option<Shared>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the code end; called by the watchdog again and again until it has.
    fn tell(&self) {
        let told = self.told.fetch_add(1, Relaxed);
        if told == PATIENCE {
            self.answer();
        }
        if !told.is_multiple_of(AGAIN) {
            return;
        }
        if let Some(signal) = self.signal {
            self.thread.signal(signal);
        } else {
            Python::attach(|py| {
                let running = self.running();
                if running.is_some() {
                    self.thread.raise(&py.get_type::<RequestTimeout>());
                }
            });
        }
    }

    /// Answers in place of code that does not end.
    fn answer(&self) {
        let running = self.running().clone();
        // Who holds it sends something to its client, which has a limit of its own.
        let Some(mut request) = running.as_ref().and_then(|request| request.try_lock().ok()) else { return };
        if !request.is_finished() {
            tracing::warn!("a request that took longer than {:?} does not end (--request-timeout)", self.timeout);
            say_late(&mut request);
            let _ = request.finish(1);
        }
    }
}

/// The handler of the signal.
#[pyfunction]
fn time_is_over(_number: i32, _frame: &Bound<'_, PyAny>) -> PyResult<()> {
    LIMIT.with_borrow(|limit| {
        let Some(target) = limit.as_ref().map(|limit| &limit.target) else { return Ok(()) };
        if !target.armed.load(Relaxed) || target.running().is_none() {
            return Ok(());
        }
        target.raised.store(true, Relaxed);
        let timeout = target.timeout;
        Err(RequestTimeout::new_err(format!("the request takes longer than {timeout:?} (--request-timeout)")))
    })
}
