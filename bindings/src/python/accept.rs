//! Accept loops inside scripts: `while fcgi.accept():`, as in the 1996 paper. What stands before the loop is done once, and
//! everything stays. Without a server (as a CGI program, on a terminal) the body runs once.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use fcgi_core::interpreter::Requests;
use fcgi_core::script::Watch;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use super::process::Environment;
use super::request::Request;
use super::stdio::Stdio;
use super::{descriptors, ffi, limit};

type Shared = Arc<Mutex<fcgi_core::Request>>;

thread_local! {
    static LOOP: RefCell<Option<Loop>> = const { RefCell::new(None) };
}

/// A process without a server has given its one request.
static GIVEN: AtomicBool = AtomicBool::new(false);
/// The exit status that it is to have.
static STATUS: AtomicU32 = AtomicU32::new(0);

/// The exit status that a process without a server is to have, unless it fails.
#[cfg(not(feature = "python-extension"))]
pub(super) fn wanted_status() -> u32 {
    STATUS.load(Ordering::Relaxed)
}

/// What an accept loop needs of the engine, and the request that it has.
pub(super) struct Loop {
    script: PathBuf,
    requests: Rc<RefCell<Requests>>,
    stdio: Py<Stdio>,
    environment: Py<Environment>,
    /// Closes the streams of a request, and opens them for the next one.
    close: Py<PyAny>,
    open: Py<PyAny>,
    /// Watches the script, once it loops.
    watch: Option<Watch>,
    current: Shared,
    status: u32,
}

impl Loop {
    pub(super) fn new(
        script: &Path,
        requests: &Rc<RefCell<Requests>>,
        current: &Shared,
        engine: (Py<Stdio>, Py<Environment>, Py<PyAny>, Py<PyAny>),
    ) -> Self {
        let (stdio, environment, close, open) = engine;
        let (script, requests, current) = (script.to_owned(), requests.clone(), current.clone());
        Self { script, requests, stdio, environment, close, open, watch: None, current, status: 0 }
    }

    /// A script runs which may loop.
    pub(super) fn enter(self) {
        LOOP.set(Some(self));
    }

    /// The script has ended; gives the request that it had last, and what exit status it wants.
    pub(super) fn leave() -> Option<(Shared, u32)> {
        LOOP.take().map(|this| (this.current, this.status))
    }

    fn finish(&self, py: Python<'_>) -> PyResult<()> {
        self.close.call1(py, (0,))?;
        limit::end(py);
        let had_children = self.stdio.get().had_children();
        let (current, status) = (&self.current, self.status);
        py.detach(|| {
            ffi::flush_c_streams();
            descriptors::finish(current, status, had_children);
        });
        Ok(())
    }

    fn accept(&mut self, py: Python<'_>) -> PyResult<bool> {
        let Some(watch) = &mut self.watch else {
            // The one that the script was started for.
            self.watch = Some(Watch::new(&self.script));
            return Ok(true);
        };
        let has_changed = watch.has_changed();
        limit::arm(false);
        self.finish(py)?;
        if has_changed {
            return Ok(false);
        }
        let requests = &self.requests;
        let next = ffi::without_interpreter(py, || requests.borrow_mut().accept_for(&self.script))?;
        let Some(request) = next else { return Ok(false) };
        let request = Request::new(request);
        self.current = request.shared().clone();
        self.status = 0;
        let current = &self.current;
        py.detach(|| descriptors::begin(current))?;
        self.stdio.get().serve(Some(self.current.clone()));
        let environment = self.environment.get().enter(py, request.lock().params())?;
        self.open.call1(py, (environment, descriptors::has_body()))?;
        limit::begin(&self.current);
        Ok(true)
    }
}

/// Gives the next request to the script's streams and environment; the first one is that which the script was started for.
/// False when there is none any more: the server stops, the script has changed, or there is no server.
#[pyfunction]
pub(super) fn accept(py: Python<'_>) -> PyResult<bool> {
    // Whatever runs meanwhile in this thread must not find it borrowed.
    let Some(mut this) = LOOP.take() else { return Ok(!GIVEN.swap(true, Ordering::Relaxed)) };
    let accepted = this.accept(py);
    LOOP.set(Some(this));
    accepted
}

/// Sends the answer; the script goes on, and nobody hears of what it says until it accepts the next request.
#[pyfunction]
#[pyo3(signature = (status=None))]
pub(super) fn finish(py: Python<'_>, status: Option<u32>) -> PyResult<()> {
    LOOP.with_borrow_mut(|this| {
        if let (Some(this), Some(status)) = (this, status) {
            this.status = status;
        }
    });
    let Some(this) = LOOP.take() else { return Ok(()) };
    let finished = this.finish(py);
    LOOP.set(Some(this));
    finished
}

/// The exit status of the request, unless the script ends otherwise.
#[pyfunction]
pub(super) fn set_exit_status(status: u32) -> PyResult<()> {
    LOOP.with_borrow_mut(|this| match this {
        Some(this) => {
            this.status = status;
            Ok(())
        }
        None if GIVEN.load(Ordering::Relaxed) => {
            STATUS.store(status, Ordering::Relaxed);
            Ok(())
        }
        None => Err(PyOSError::new_err("there is no request whose status could be set")),
    })
}
