//! Loops inside programs: `while fcgi.accept():`, as in the 1996 paper, and `for request in fcgi.requests():`. What stands
//! before the loop is done once, and everything stays. The requests are those of the runner that runs the script; a program
//! that `python3` runs finds a server by itself ([`own`]).

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use fcgi_core::Server;
use fcgi_core::interpreter::{Loop as ScriptLoop, Requests};
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;

use super::process::Environment;
use super::request::{Request, lock};
use super::stdio::Stdio;
use super::{descriptors, ffi, own, timeout};

type Shared = Arc<Mutex<fcgi_core::Request>>;

thread_local! {
    static LOOP: RefCell<Option<Loop>> = const { RefCell::new(None) };
}

/// Where a program has its requests from, and the one that it has.
pub(super) struct Loop {
    source: Source,
    means: Option<Means>,
    way: Way,
    current: Option<Shared>,
    /// The request that the program has, as an object, once it has been asked for.
    object: Option<Py<Request>>,
    status: u32,
}

/// Where requests come from.
enum Source {
    /// The runner, which has started a script for the first of them.
    Runner(ScriptLoop),
    /// A server of the program's own.
    Server(Arc<Server>),
    /// Whoever has started the process, for one request.
    Process,
}

/// What gives the process's streams and environment to a request.
pub(super) struct Means {
    pub(super) stdio: Py<Stdio>,
    pub(super) environment: Py<Environment>,
    /// Closes the streams of a request, and opens them for the next one.
    pub(super) close: Py<PyAny>,
    pub(super) open: Py<PyAny>,
}

impl Means {
    /// Takes the process's streams and environment from a request, whose program goes on without them: what it prints goes
    /// to the log.
    fn take_from(&self, py: Python<'_>, request: &Shared) -> PyResult<()> {
        let stdio = self.stdio.get();
        let had_children = stdio.had_children();
        py.detach(|| descriptors::end(request, had_children));
        stdio.serve(None);
        stdio.flush_python(py);
        let os = py.import("os")?;
        let environ = os.getattr("environ")?;
        // One that the script has put in its place is its own affair.
        if let Ok(current) = environ.getattr("_data") {
            let own = self.environment.get().of_application(py, current.cast()?)?;
            if !stdio.is_shared() {
                self.environment.get().enter_application(py, &own)?;
            }
            environ.setattr("_data", &own)?;
            os.getattr("environb")?.setattr("_data", own)?;
        }
        Ok(())
    }
}

/// How a program takes its requests.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// It has not asked for one.
    Not,
    /// They get the process's streams and environment.
    Streams,
    /// They are objects.
    Objects,
}

/// How a script leaves that may have looped.
pub(super) struct Left {
    /// The request that it had last.
    pub(super) request: Shared,
    /// The exit status that it wants.
    pub(super) status: u32,
    /// It has the process's descriptors.
    pub(super) has_descriptors: bool,
}

impl Left {
    /// Ends the request with the status that the script ended with, or else with the one that it wants; gives it.
    pub(super) fn finish(&self, ended_with: u32, had_children: bool) -> u32 {
        let status = if ended_with == 0 { self.status } else { ended_with };
        if self.has_descriptors {
            descriptors::finish(&self.request, status, had_children);
        } else {
            descriptors::finish_alone(&self.request, status);
        }
        status
    }
}

impl Loop {
    /// For a script that a runner runs for a request. Without `requests` there is only this one.
    pub(super) fn of_script(
        script: &Path,
        requests: Option<&Rc<RefCell<Requests>>>,
        current: &Shared,
        means: Means,
    ) -> Self {
        let source = match requests {
            Some(requests) => Source::Runner(ScriptLoop::new(script.into(), requests.clone())),
            None => Source::Process,
        };
        Self { source, means: Some(means), way: Way::Not, current: Some(current.clone()), object: None, status: 0 }
    }

    /// For a program that asks for requests; without a server there is one, that of CGI.
    pub(super) fn of_program(server: Option<Arc<Server>>) -> Self {
        let source = server.map_or(Source::Process, Source::Server);
        Self { source, means: None, way: Way::Not, current: None, object: None, status: 0 }
    }

    /// A script runs which may loop.
    pub(super) fn enter(self) {
        LOOP.set(Some(self));
    }

    /// The script has failed. What is said of it goes to the request that it has.
    pub(super) fn fail(py: Python<'_>) {
        let found = LOOP.with_borrow(|this| match this {
            Some(Self { way: Way::Objects, current: Some(current), means: Some(means), .. }) => {
                Some((current.clone(), means.stdio.clone_ref(py)))
            }
            _ => None,
        });
        if let Some((current, stdio)) = found
            && !py.detach(|| lock(&current).is_finished())
        {
            stdio.get().flush_python(py);
            py.detach(descriptors::empty);
            stdio.get().serve(Some(current));
        }
    }

    /// The script has ended.
    pub(super) fn leave() -> Option<Left> {
        let this = LOOP.take()?;
        let has_descriptors = this.way != Way::Objects;
        this.current.map(|request| Left { request, status: this.status, has_descriptors })
    }

    /// Goes this way, and no other. The first time, gives the request that the program was started for.
    fn go(&mut self, way: Way) -> PyResult<Option<Shared>> {
        if self.way == way {
            return Ok(None);
        }
        if self.way != Way::Not {
            let text = "a program takes its requests by accept() or by requests(), not by both";
            return Err(PyRuntimeError::new_err(text));
        }
        self.way = way;
        if let Source::Runner(script) = &mut self.source {
            script.begin();
        }
        Ok(self.current.clone())
    }

    fn finish(&mut self, py: Python<'_>) -> PyResult<()> {
        let Some(current) = &self.current else { return Ok(()) };
        let status = self.status;
        let Some(means) = self.means.as_ref().filter(|_| self.way != Way::Objects) else {
            timeout::end(py);
            py.detach(|| descriptors::finish_alone(current, status));
            return Ok(());
        };
        means.close.call1(py, (0,))?;
        timeout::end(py);
        let had_children = means.stdio.get().had_children();
        py.detach(|| {
            ffi::flush_c_streams();
            descriptors::finish(current, status, had_children);
        });
        Ok(())
    }

    /// The next request; the one before it is finished.
    fn next(&mut self, py: Python<'_>) -> PyResult<Option<Request>> {
        timeout::arm(false);
        self.finish(py)?;
        self.status = 0;
        let next = match &mut self.source {
            Source::Runner(script) => ffi::without_interpreter(py, || script.next())?,
            Source::Server(server) => ffi::without_interpreter(py, || server.accept())?,
            Source::Process => None,
        };
        let next = next.map(Request::new);
        self.object = None;
        if let Some(next) = &next {
            self.current = Some(next.shared().clone());
        }
        Ok(next)
    }

    fn accept(&mut self, py: Python<'_>) -> PyResult<bool> {
        if self.way == Way::Not && self.current.is_none() && matches!(self.source, Source::Process) {
            self.way = Way::Streams;
            return Ok(own::is_first());
        }
        if self.go(Way::Streams)?.is_some() {
            return Ok(true);
        }
        if matches!(self.source, Source::Process) {
            self.finish(py)?;
            return Ok(false);
        }
        if self.means.is_none() {
            self.means = Some(own::means(py)?);
        }
        let next = self.next(py)?;
        let Some(means) = &self.means else { return Ok(false) };
        let Some(request) = next else {
            // What the program still says is for the log.
            means.stdio.get().serve(None);
            return Ok(false);
        };
        let current = request.shared();
        let stdio = means.stdio.get();
        py.detach(|| stdio.begin(current))?;
        stdio.serve(Some(current.clone()));
        let environment = means.environment.get().enter(py, request.lock().params())?;
        means.open.call1(py, (environment, descriptors::has_body()))?;
        timeout::begin(current);
        Ok(true)
    }

    fn object(&mut self, py: Python<'_>) -> PyResult<Option<Request>> {
        let is_new = self.way == Way::Not;
        if let Some(current) = self.go(Way::Objects)? {
            let Some(means) = &self.means else { return Ok(None) };
            let body = means.stdio.get().spooled_body();
            means.take_from(py, &current)?;
            return Ok(Some(Request::begun(current, body)));
        }
        if is_new && matches!(self.source, Source::Process) && own::is_first() {
            let request = Request::new(fcgi_core::cgi::request());
            self.current = Some(request.shared().clone());
            return Ok(Some(request));
        }
        let next = self.next(py)?;
        if let Some(request) = &next {
            timeout::begin(request.shared());
        }
        Ok(next)
    }
}

/// The request that this thread's program has, as an object; `None` where it has none, as under CGI.
#[pyfunction]
pub(super) fn current(py: Python<'_>) -> PyResult<Option<Py<Request>>> {
    LOOP.with_borrow_mut(|this| {
        let Some(Loop { current: Some(current), object, .. }) = this else { return Ok(None) };
        if object.is_none() {
            *object = Some(Py::new(py, Request::begun(current.clone(), None))?);
        }
        Ok(object.as_ref().map(|object| object.clone_ref(py)))
    })
}

/// Does something with the loop of this thread; whatever runs meanwhile in this thread must not find it borrowed.
fn with<R: Default>(py: Python<'_>, f: impl FnOnce(&mut Loop, Python<'_>) -> PyResult<R>) -> PyResult<R> {
    if descriptors::is_forked() {
        // Requests are those of the process that this one was forked off by.
        return Ok(R::default());
    }
    let mut this = match LOOP.take() {
        Some(this) => this,
        None => own::find(py)?,
    };
    let result = f(&mut this, py);
    LOOP.set(Some(this));
    result
}

/// Whether this thread has a loop.
pub(super) fn is_looping() -> bool {
    LOOP.with_borrow(Option::is_some)
}

/// This process was forked off by a program: the request that it has is not this process's to end.
pub(super) fn forget() {
    std::mem::forget(LOOP.take());
}

/// Gives the next request to the script's streams and environment; the first one is that which the script was started for.
/// False when there is none any more: the server stops, the script has changed, or there is no server.
#[pyfunction]
pub(super) fn accept(py: Python<'_>) -> PyResult<bool> {
    with(py, Loop::accept)
}

/// The next request as an object; `None` when there is none any more.
#[pyfunction]
pub(super) fn next_request(py: Python<'_>) -> PyResult<Option<Request>> {
    with(py, Loop::object)
}

/// Sends the answer; the script goes on, and nobody hears of what it says until it accepts the next request.
#[pyfunction]
#[pyo3(signature = (status=None))]
pub(super) fn finish(py: Python<'_>, status: Option<u32>) -> PyResult<()> {
    if !is_looping() {
        return Ok(());
    }
    with(py, |this, py| {
        this.status = status.unwrap_or(this.status);
        this.finish(py)
    })
}

/// The exit status of the request, unless the script ends otherwise.
#[pyfunction]
pub(super) fn set_exit_status(status: u32) -> PyResult<()> {
    LOOP.with_borrow_mut(|this| match this {
        Some(this) => {
            this.status = status;
            if matches!(this.source, Source::Process) {
                own::want_status(status);
            }
            Ok(())
        }
        None => Err(PyOSError::new_err("there is no request whose status could be set")),
    })
}
