//! ASGI: what the package's `_asgi` needs of us. The event loop is Python's; it watches our descriptor and calls
//! [`Reactor::turn`], and nothing here waits.

mod exchange;
mod scope;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use fcgi_core::slow_log::SlowLog;
use fcgi_core::{Event, Request, Server, Setup};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString};

use super::engine::refuse_options_of_lua;
use super::{ffi, reload};
use exchange::Exchange;
use scope::Scopes;

/// Serves an ASGI application in the calling thread until the server stops: the one that `--app` names, or the script with
/// `--interface asgi`. False when there is none, or it is for another interface. The interpreter has been started.
///
/// # Errors
/// When the application cannot be loaded, its startup fails, or an option is not for ASGI.
pub fn serve_asgi(setup: &Setup, server: &Arc<Server>) -> anyhow::Result<bool> {
    let interface = setup.option("interface").map(|interface| interface.to_string_lossy());
    let event_loop = match interface.as_deref() {
        None | Some("asgi") => "auto",
        Some("asgi:asyncio") => "asyncio",
        Some("asgi:uvloop") => "uvloop",
        Some("wsgi") => return Ok(false),
        Some(other) => bail!("--interface {other}: write wsgi, asgi, asgi:asyncio or asgi:uvloop"),
    };
    let (spec, script): (Option<&OsStr>, Option<&OsStr>) = match (setup.option("app"), &setup.script) {
        (Some(spec), _) => (Some(spec), None),
        (None, Some(script)) if interface.is_some() => (None, Some(script.as_os_str())),
        (None, None) if interface.is_some() => {
            bail!("--interface asgi needs an application: a script, or --app MODULE:NAME")
        }
        _ => return Ok(false),
    };
    if setup.other_scripts {
        bail!("an application by ASGI has the server for itself: no --authorizer, --filter or --logger");
    }
    refuse_options_of_lua(setup)?;
    ffi::keep_thread_state();
    Python::attach(|py| {
        let name = |name: Option<&OsStr>| name.map(|name| ffi::decode(py, name.as_bytes())).transpose();
        let found = || -> PyResult<bool> {
            let (spec, script) = (name(spec)?, name(script)?);
            let find = py.import("fcgi._asgi")?.getattr("find")?;
            let application = find.call1((&spec, &script, interface.is_some(), setup.shared_process))?;
            if application.is_none() {
                return Ok(false);
            }
            let reactor = fcgi_core::Reactor::new(server.clone());
            run(setup, reactor, &application, spec, script, event_loop, None).map(|()| true)
        };
        found().map_err(|e| why(py, &e))
    })
}

/// Serves the application that a script has turned out to be, in the calling thread until the server stops. The request that
/// the script was started for is its first; a body that has been taken from it already is in `spooled`.
///
/// # Errors
/// When the application's startup fails. The request has been answered.
pub(super) fn take_over(
    setup: &Setup,
    server: &Arc<Server>,
    application: &Bound<'_, PyAny>,
    script: &Path,
    first: (Request, Option<File>),
) -> anyhow::Result<()> {
    let py = application.py();
    let (request, spooled) = first;
    let mut reactor = fcgi_core::Reactor::new(server.clone());
    // It is of this server.
    let Ok(request) = reactor.adopt(request) else { return Ok(()) };
    let serve = || {
        let script = ffi::decode(py, script.as_os_str().as_bytes())?;
        let (key, exchange) = (request.key(), Bound::new(py, Exchange::new(request, spooled))?);
        let result = run(setup, reactor, application, None, Some(script), "auto", Some((key, exchange.clone())));
        // What failed may still hold it.
        exchange.get().fail(&fcgi_core::response::error_page("500 Internal Server Error", b""));
        result
    };
    serve().map_err(|e| why(py, &e))
}

/// The package says in one line what it knows; all else is shown as Python shows it.
fn why(py: Python<'_>, error: &PyErr) -> anyhow::Error {
    if !error.get_type(py).name().is_ok_and(|name| name == "Failed") {
        error.display(py);
    }
    anyhow::anyhow!("{}", error.value(py))
}

fn run<'py>(
    setup: &Setup,
    reactor: fcgi_core::Reactor,
    application: &Bound<'py, PyAny>,
    spec: Option<Bound<'py, PyString>>,
    script: Option<Bound<'py, PyString>>,
    event_loop: &str,
    first: Option<(u64, Bound<'py, Exchange>)>,
) -> PyResult<()> {
    let py = application.py();
    let arguments: PyResult<Vec<_>> = setup.arguments.iter().map(|a| ffi::decode(py, a.as_bytes())).collect();
    let options = PyDict::new(py);
    options.set_item("event_loop", event_loop)?;
    options.set_item("shutdown_timeout", setup.shutdown_timeout.as_secs_f64())?;
    options.set_item("request_timeout", setup.request_timeout.map(|timeout| timeout.as_secs_f64()))?;
    options.set_item("slow_after", setup.slow_log.as_ref().map(|log| log.after().as_secs_f64()))?;
    options.set_item("display_errors", setup.display_errors)?;
    options.set_item("reload", reload::is_wanted(setup))?;
    let slow_log = setup.slow_log.clone();
    let reactor = Reactor { inner: Mutex::new(Turning { reactor, events: Vec::new() }), slow_log };
    let serve = py.import("fcgi._asgi")?.getattr("serve")?;
    serve.call((reactor, application, spec, script, arguments?, first), Some(&options))?;
    Ok(())
}

/// Adds the classes of this file to the native module.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Reactor>()?;
    module.add_class::<Exchange>()?;
    module.add_class::<Scopes>()
}

/// A server in the hands of an event loop.
#[pyclass(frozen, module = "fcgi._fcgi")]
struct Reactor {
    inner: Mutex<Turning>,
    slow_log: Option<Arc<SlowLog>>,
}

struct Turning {
    reactor: fcgi_core::Reactor,
    events: Vec<Event>,
}

/// Kinds of events, as `_asgi` knows them.
const REQUEST: u8 = 0;
const READABLE: u8 = 1;
const WRITABLE: u8 = 2;
const ABORTED: u8 = 3;

impl Reactor {
    fn with<R>(&self, f: impl FnOnce(&mut Turning) -> R) -> R {
        f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[pymethods]
impl Reactor {
    /// The descriptor to be watched for reading.
    fn fileno(&self) -> RawFd {
        self.with(|turning| turning.reactor.as_fd().as_raw_fd())
    }

    /// Does what can be done now. Gives whether the server still serves, and events: a kind, the number of a request, and the
    /// request if it is new.
    fn turn<'py>(&self, py: Python<'py>) -> PyResult<(bool, Bound<'py, PyList>)> {
        let (serving, events) = self.with(|turning| -> std::io::Result<_> {
            let serving = turning.reactor.turn(&mut turning.events)?;
            Ok((serving, std::mem::take(&mut turning.events)))
        })?;
        let list = PyList::empty(py);
        for event in events {
            let (kind, key) = match event {
                Event::Request(request) => {
                    list.append((REQUEST, request.key(), Py::new(py, Exchange::new(request, None))?))?;
                    continue;
                }
                Event::Readable(key) => (READABLE, key),
                Event::Writable(key) => (WRITABLE, key),
                Event::Aborted(key) => (ABORTED, key),
            };
            list.append((kind, key, py.None()))?;
        }
        Ok((serving, list))
    }

    /// Whether the server has been told to stop.
    #[getter]
    fn draining(&self) -> bool {
        self.with(|turning| turning.reactor.server().is_draining())
    }

    /// Whether it has been, also while nobody looks for requests.
    #[getter]
    fn is_to_drain(&self) -> bool {
        self.with(|turning| turning.reactor.server().is_to_drain())
    }

    /// Writes an entry of the slow log: the request, seconds, lines of its stack.
    fn tell_slow(&self, py: Python<'_>, exchange: &Exchange, seconds: f64, stack: &[u8]) {
        let taken = Duration::try_from_secs_f64(seconds).unwrap_or_default();
        py.detach(|| {
            if let Some(log) = &self.slow_log {
                exchange.with_params(|params| log.write(params, taken, stack));
            }
        });
    }

    /// Tells the server to stop.
    fn drain(&self) {
        self.with(|turning| turning.reactor.server().drain());
    }
}
