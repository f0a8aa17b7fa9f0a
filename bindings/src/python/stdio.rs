//! What the standard streams of Python do with the request that runs. The streams are the real ones, on descriptors 0 to 2;
//! only what goes from their buffers to descriptors 1 and 2 takes a shorter way.

use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

use super::channel::Channel;
use super::descriptors::{self, Output};
use super::ffi;

/// The way from Python's buffers to the request that runs.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Stdio {
    current: Mutex<Option<Arc<Mutex<fcgi_core::Request>>>>,
    /// Nothing is sent before the request's end.
    ending: AtomicBool,
    /// The script has started other processes.
    had_children: AtomicBool,
    /// Several requests run in this process.
    is_shared: bool,
    /// What the request has for descriptors then, and its body until it has them.
    channel: Mutex<Option<Py<Channel>>>,
    body: Mutex<Option<OwnedFd>>,
}

impl Stdio {
    pub(super) fn new(is_shared: bool) -> Self {
        let (ending, had_children) = (AtomicBool::new(false), AtomicBool::new(false));
        let (current, channel, body) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { current, ending, had_children, is_shared, channel, body }
    }

    fn current(&self) -> MutexGuard<'_, Option<Arc<Mutex<fcgi_core::Request>>>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether several requests run in this process.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Takes what a request has for descriptors; this may wait for its body.
    ///
    /// # Errors
    /// When its body cannot be read, or the system has no pipe for it.
    pub(super) fn begin(&self, request: &Arc<Mutex<fcgi_core::Request>>) -> io::Result<()> {
        if !self.is_shared {
            return descriptors::begin(request);
        }
        let body = descriptors::body(&mut request.lock().unwrap_or_else(PoisonError::into_inner))?;
        *self.body.lock().unwrap_or_else(PoisonError::into_inner) = body;
        Ok(())
    }

    /// A request begins, or (`None`) has ended.
    pub(super) fn serve(&self, request: Option<Arc<Mutex<fcgi_core::Request>>>) {
        self.ending.store(false, Ordering::Relaxed);
        self.had_children.store(false, Ordering::Relaxed);
        *self.current() = request;
    }

    /// The body that lies in descriptor 0, or in what the request has in its place.
    pub(super) fn spooled_body(&self) -> Option<std::fs::File> {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        channel.as_ref().map_or_else(descriptors::spooled_body, |channel| channel.get().body())
    }

    /// Sends what is flushed, or keeps it until the request's end.
    fn set_ending(&self, ending: bool) {
        self.ending.store(ending, Ordering::Relaxed);
        if let Some(channel) = &*self.channel.lock().unwrap_or_else(PoisonError::into_inner) {
            channel.get().set_ending(ending);
        }
    }

    /// Writes out what Python's streams hold, without sending it.
    pub(super) fn flush_python(&self, py: Python<'_>) {
        self.set_ending(true);
        let stdout = py.import("sys").and_then(|sys| sys.getattr("stdout"));
        // A stream that a script has broken is its own affair.
        let _ = stdout.and_then(|stdout| stdout.call_method0("flush"));
        self.set_ending(false);
    }

    /// Whether the script has started other processes.
    pub(super) fn had_children(&self) -> bool {
        self.had_children.load(Ordering::Relaxed)
    }

    fn put(&self, py: Python<'_>, data: &Bound<'_, PyAny>, output: Output) -> PyResult<usize> {
        let bytes = ffi::as_bytes(data)?;
        let bytes = bytes.as_bytes();
        let request = self.current().clone();
        let written = py.detach(|| match request {
            Some(request) if descriptors::is_ours(output) => {
                let mut request = request.lock().unwrap_or_else(PoisonError::into_inner);
                descriptors::write(&mut request, output, bytes).map(|()| bytes.len())
            }
            _ => descriptors::write_through(output, bytes),
        });
        written.map_err(|e| match e.raw_os_error() {
            // The number tells Python which exception it is.
            None if e.kind() == io::ErrorKind::BrokenPipe => PyOSError::new_err((libc::EPIPE, "Broken pipe")),
            _ => e.into(),
        })
    }
}

#[pymethods]
impl Stdio {
    /// What writing to descriptor 1 does: it writes to the answer, unless the script has put something else there.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.put(py, data, Output::Stdout)
    }

    /// What writing to descriptor 2 does.
    fn write_error(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.put(py, data, Output::Stderr)
    }

    /// What the request has for descriptors, where several requests run in one process.
    fn channel(&self, py: Python<'_>) -> PyResult<Option<Py<Channel>>> {
        let current = self.current().clone();
        let body = self.body.lock().unwrap_or_else(PoisonError::into_inner).take();
        let channel = current.map(|request| Py::new(py, Channel::new(&request, body))).transpose()?;
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = channel.as_ref().map(|c| c.clone_ref(py));
        Ok(channel)
    }

    /// Sends what has been written, unless the request ends anyway.
    pub(super) fn flush(&self, py: Python<'_>) -> PyResult<()> {
        // What is to be sent is the server's: a child that a script has forked would send it a second time.
        if self.ending.load(Ordering::Relaxed) || descriptors::is_forked() {
            return Ok(());
        }
        let request = self.current().clone();
        let Some(request) = request else { return Ok(()) };
        Ok(py.detach(|| request.lock().unwrap_or_else(PoisonError::into_inner).stdout().flush())?)
    }

    /// From now on nothing is sent before the request's end.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Notes the events of Python's own library that start processes (`sys.addaudithook`).
    fn audit(&self, event: &Bound<'_, pyo3::types::PyString>, _arguments: &Bound<'_, PyAny>) {
        const STARTS: [&str; 5] = ["subprocess.Popen", "os.system", "os.posix_spawn", "os.fork", "os.forkpty"];
        if event.to_cow().is_ok_and(|event| STARTS.contains(&&*event)) {
            self.had_children.store(true, Ordering::Relaxed);
        }
    }

    /// The script is about to fork.
    fn forks(&self) {
        self.had_children.store(true, Ordering::Relaxed);
    }

    /// Ends the request where its script stands: what is still in buffers of Python's is not said.
    fn abandon(&self, py: Python<'_>, status: u32) {
        let request = self.current().clone();
        let had_children = self.had_children();
        if let Some(request) = request {
            py.detach(|| descriptors::finish(&request, status, had_children));
        }
    }
}

/// Flushing the buffer of standard output, after which what was written is sent.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Flush {
    plain: Py<PyAny>,
    stdio: Py<Stdio>,
}

#[pymethods]
impl Flush {
    /// For the buffer's own method.
    #[new]
    fn new(plain: Py<PyAny>, stdio: Py<Stdio>) -> Self {
        Self { plain, stdio }
    }

    /// What is called in its place.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        self.plain.call0(py)?;
        self.stdio.get().flush(py)
    }
}
