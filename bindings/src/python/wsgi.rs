//! Applications by the rules of WSGI (PEP 3333): `application(environ, start_response)`.

mod environ;
mod input;
mod path;
mod response;

use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcgi_core::{Request, Setup};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};

use super::flusher::Flusher;
use environ::Environs;
pub(super) use path::put_right;
use response::{StartResponse, Taken};

/// How much of a file is read at once.
const BLOCK: usize = 64 << 10;

type Shared = Arc<Mutex<Request>>;

fn lock(request: &Mutex<Request>) -> MutexGuard<'_, Request> {
    request.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An application, and what its requests have in common.
pub(super) struct Wsgi {
    application: Py<PyAny>,
    environs: Environs,
    file_wrapper: Py<PyAny>,
    /// The application has a URL for itself: what the web server calls a script's name is a path inside of it.
    whole: Option<Vec<u8>>,
    flusher: Arc<Flusher>,
}

impl Wsgi {
    /// An application. `file` is the name of its script when all requests are for it.
    pub(super) fn new(application: &Bound<'_, PyAny>, setup: &Setup, file: Option<Vec<u8>>) -> PyResult<Self> {
        let py = application.py();
        let file_wrapper = py.import("fcgi._wsgi")?.getattr("FileWrapper")?;
        Ok(Self {
            application: application.clone().unbind(),
            environs: Environs::new(py, setup, &file_wrapper)?,
            file_wrapper: file_wrapper.unbind(),
            whole: file,
            flusher: Flusher::start(),
        })
    }

    /// The application itself.
    pub(super) fn application(&self, py: Python<'_>) -> Py<PyAny> {
        self.application.clone_ref(py)
    }

    /// Lets the application answer; gives the exit status. What goes wrong is said on the request's error stream. A body that
    /// has been taken from the request already is in `spooled`.
    pub(super) fn answer(
        &mut self,
        py: Python<'_>,
        request: &Shared,
        spooled: Option<File>,
        display_errors: bool,
    ) -> u32 {
        match self.call(py, request, spooled) {
            Ok(status) => status,
            // A client that has gone is no mistake of the application's.
            Err(e) if e.is_instance_of::<PyOSError>(py) && py.detach(|| lock(request).is_aborted()) => 1,
            Err(e) => fail(py, request, &e, display_errors),
        }
    }

    fn call(&mut self, py: Python<'_>, request: &Shared, spooled: Option<File>) -> PyResult<u32> {
        put_right(lock(request).params_mut(), self.whole.as_deref());
        let start = Bound::new(py, StartResponse::new(request.clone()))?;
        let environ = self.environs.of(py, request, spooled)?;
        let result = self.application.bind(py).call1((environ, &start))?;
        let start = start.get();
        if let Ok(list) = result.cast_exact::<PyList>() {
            // What is all there needs no sending in between.
            send(py, request, start, list.iter().map(Ok), true, || Ok(()))?;
            return Ok(0);
        }
        if let Ok(tuple) = result.cast_exact::<PyTuple>() {
            send(py, request, start, tuple.iter().map(Ok), true, || Ok(()))?;
            return Ok(0);
        }
        let sent = self.stream(request, start, &result);
        // Whatever happened, the application may clean up.
        let closed = result.getattr_opt(intern!(py, "close")).and_then(|close| close.map(|f| f.call0()).transpose());
        sent?;
        // The answer is complete nevertheless.
        if let Err(e) = closed {
            let text = format_error(py, &e);
            py.detach(|| drop(lock(request).stderr().write_all(text.as_bytes())));
            return Ok(1);
        }
        Ok(0)
    }

    /// Sends what an iterable gives, as it comes.
    fn stream(&self, request: &Shared, start: &StartResponse, result: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = result.py();
        let streaming = self.flusher.stream(request);
        if result.get_type().is(&self.file_wrapper) {
            let read = result.getattr(intern!(py, "filelike"))?.getattr(intern!(py, "read"))?;
            let blocks = std::iter::from_fn(|| match read.call1((BLOCK,)).and_then(|b| Ok((b.len()?, b))) {
                Ok((0, _)) => None,
                Ok((_, block)) => Some(Ok(block)),
                Err(e) => Some(Err(e)),
            });
            // A file may go on behind the part that is wanted (PEP 3333, "Optional Platform-Specific File Handling").
            return send(py, request, start, blocks, false, || streaming.written());
        }
        send(py, request, start, result.try_iter()?, true, || streaming.written())
    }
}

/// Sends blocks of an answer, and its head if there are none. `is_all`: they are to be no more than the header says.
fn send<'py>(
    py: Python<'py>,
    request: &Shared,
    start: &StartResponse,
    blocks: impl Iterator<Item = PyResult<Bound<'py, PyAny>>>,
    is_all: bool,
    written: impl Fn() -> io::Result<()>,
) -> PyResult<()> {
    for block in blocks {
        if start.write(py, &block?)? == Taken::Part {
            // PEP 3333, "Handling the Content-Length Header": what is too much is not wanted.
            let text = b"the application gave more than its Content-Length says\n";
            if is_all {
                py.detach(|| drop(lock(request).stderr().write_all(text)));
            }
            break;
        }
        written()?;
    }
    start.end(py)
}

/// Says what went wrong, and gives an error page if nothing was sent; gives the exit status.
pub(super) fn fail(py: Python<'_>, request: &Shared, error: &PyErr, display_errors: bool) -> u32 {
    let text = format_error(py, error);
    py.detach(|| {
        let mut request = lock(request);
        let _ = request.stderr().write_all(text.as_bytes());
        if request.discard() {
            let details = if display_errors { text.as_bytes() } else { b"" };
            request.answer_with_error("500 Internal Server Error", details);
        } else {
            let _ = request.break_off();
        }
    });
    1
}

fn format_error(py: Python<'_>, error: &PyErr) -> String {
    let lines = py
        .import("traceback")
        .and_then(|t| t.call_method1("format_exception", (error.get_type(py), error.value(py), error.traceback(py))));
    let text = lines.and_then(|lines| lines.extract::<Vec<String>>());
    text.map_or_else(|_| format!("{error}\n"), |lines| lines.concat())
}
