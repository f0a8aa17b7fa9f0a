//! A program that `python3` runs and that asks for requests: it finds by itself where they come from, as the runner does. A
//! listening socket as descriptor 0 or from systemd makes it a FastCGI server; otherwise there is one request, that of CGI.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use fcgi_core::{AllowList, Listener, Server, ServerConfig, Setup, inherit, signals};
use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::MutexExt;

use super::accept::{self, Loop, Means};
use super::descriptors;
use super::process::Environment;
use super::stdio::Stdio;

/// The runner whose process this is.
static RUNNER: OnceLock<Setup> = OnceLock::new();
/// What the surroundings have asked for, once they have been looked at.
static FOUND: Mutex<Option<Found>> = Mutex::new(None);
/// A process without a server has given its one request.
static GIVEN: AtomicBool = AtomicBool::new(false);
/// The exit status of that request.
static STATUS: AtomicU32 = AtomicU32::new(0);
/// A thread has the process's streams for its requests.
static HAS_STREAMS: AtomicBool = AtomicBool::new(false);

/// Where a program's requests come from.
#[derive(Clone)]
enum Found {
    /// A server, which all threads share.
    Server(Arc<Server>),
    /// Whoever has started the process.
    Process,
}

/// Says that a runner serves in this process: requests are those that it gives.
pub(super) fn belongs_to(runner: &Setup) {
    let _ = RUNNER.set(runner.clone());
}

/// The runner whose process this is.
pub(super) fn runner() -> Option<&'static Setup> {
    RUNNER.get()
}

/// What gives requests to a thread of the program.
pub(super) fn find(py: Python<'_>) -> PyResult<Loop> {
    if runner().is_some() {
        let text = "the runner gives requests: ask for them in the thread that runs the script";
        return Err(PyRuntimeError::new_err(text));
    }
    Ok(Loop::of_program(match look(py, sockets_passed)? {
        Found::Server(server) => Some(server),
        Found::Process => None,
    }))
}

/// Looks once where requests come from: `sockets` gives the listening ones, with the number of threads.
fn look(py: Python<'_>, sockets: impl FnOnce() -> PyResult<(Vec<Listener>, usize)>) -> PyResult<Found> {
    let mut found = FOUND.lock_py_attached(py).unwrap_or_else(PoisonError::into_inner);
    if let Some(found) = &*found {
        return Ok(found.clone());
    }
    let (listeners, threads) = sockets()?;
    let is_server = !listeners.is_empty();
    py.import("fcgi._loop")?.getattr("begin")?.call1((is_server,))?;
    let looked = if is_server { Found::Server(Arc::new(start(listeners, threads)?)) } else { Found::Process };
    *found = Some(looked.clone());
    Ok(looked)
}

fn sockets_passed() -> PyResult<(Vec<Listener>, usize)> {
    let mut sockets = inherit::systemd()?;
    if sockets.is_empty() {
        sockets.extend(inherit::standard_input()?);
    }
    Ok((sockets.into_iter().map(Listener::inherited).collect::<Result<_, _>>()?, 1))
}

fn start(listeners: Vec<Listener>, threads: usize) -> PyResult<Server> {
    let mut allowed = AllowList::everybody();
    if let Ok(list) = std::env::var("FCGI_WEB_SERVER_ADDRS")
        && !list.trim().is_empty()
    {
        allowed.add(&list).map_err(|e| PyValueError::new_err(format!("FCGI_WEB_SERVER_ADDRS: {e}")))?;
    }
    let config = ServerConfig { threads, ..ServerConfig::default() };
    // Handlers that the program has set are called, too.
    let mut builder = Server::builder().allow(allowed).config(config).drain_on(signals::catch()?);
    for listener in listeners {
        builder = builder.listener(listener);
    }
    Ok(builder.start()?)
}

/// Says where a program's requests are to come from: from sockets at these addresses, or (without any) from where its
/// surroundings say, or, if it `is_cgi`, from there. To be called before the program takes requests.
///
/// Gives what the program is: `"server"` or `"cgi"`, or part of a runner, which serves at addresses of its own (`"runner"`,
/// `"workers"` if it has several processes).
#[pyfunction]
pub(super) fn serve_at(py: Python<'_>, addresses: Vec<String>, threads: usize, is_cgi: bool) -> PyResult<&'static str> {
    if let Some(runner) = runner() {
        return Ok(if runner.several_processes { "workers" } else { "runner" });
    }
    let sockets = || -> PyResult<(Vec<Listener>, usize)> {
        if is_cgi {
            return Ok((Vec::new(), 1));
        }
        if addresses.is_empty() {
            return Ok((sockets_passed()?.0, threads));
        }
        let bind = |address: String| {
            let address = address.parse().map_err(|e| PyValueError::new_err(format!("{address}: {e}")))?;
            Listener::bind(&address).map_err(|e| PyOSError::new_err(e.to_string()))
        };
        Ok((addresses.into_iter().map(bind).collect::<PyResult<_>>()?, threads))
    };
    Ok(match look(py, sockets)? {
        Found::Server(_) => "server",
        Found::Process => "cgi",
    })
}

/// Lets requests have the process's streams and environment.
pub(super) fn means(py: Python<'_>) -> PyResult<Means> {
    if HAS_STREAMS.swap(true, Relaxed) {
        let text = "another thread has the standard streams: take requests by requests()";
        return Err(PyRuntimeError::new_err(text));
    }
    let stdio = Py::new(py, Stdio::new(false))?;
    let environment = Py::new(py, Environment::new(py, true)?)?;
    let streams = py.import("fcgi._loop")?.getattr("Streams")?.call1((&stdio,))?;
    let (close, open) = (streams.getattr("close")?.unbind(), streams.getattr("open")?.unbind());
    descriptors::take()?;
    Ok(Means { stdio, environment, close, open })
}

/// Whether a process without a server is asked for its one request.
pub(super) fn is_first() -> bool {
    !GIVEN.swap(true, Relaxed)
}

/// Notes the exit status of a request.
pub(super) fn want_status(status: u32) {
    STATUS.store(status, Relaxed);
}

/// The exit status that a process with one request is to have, unless it fails.
pub(super) fn wanted_status() -> u32 {
    match &*FOUND.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(Found::Process) => STATUS.load(Relaxed),
        _ => 0,
    }
}

/// The program ends: so does the request that it has, and its descriptors are its own again.
#[pyfunction]
pub(super) fn end(py: Python<'_>, has_failed: bool) -> PyResult<()> {
    if descriptors::is_forked() {
        return Ok(());
    }
    accept::finish(py, has_failed.then_some(1))?;
    py.detach(descriptors::give_back);
    Ok(())
}
