//! The class `Request`: what Python code sees of a request.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcgi_core::request::Input;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::ffi;

/// Bytes that are read at once when all of a stream is wanted.
const PIECE: usize = 64 << 10;

/// A request: its role, its variables, its streams, its end.
///
/// Its methods may be called from any thread; while one of them waits, other threads run.
#[pyclass(frozen, module = "fcgi")]
pub struct Request {
    inner: Arc<Mutex<fcgi_core::Request>>,
}

impl Request {
    pub(super) fn new(request: fcgi_core::Request) -> Self {
        Self { inner: Arc::new(Mutex::new(request)) }
    }

    /// The request itself, for code that may wait: the interpreter must not be held.
    pub(super) fn lock(&self) -> MutexGuard<'_, fcgi_core::Request> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request, to be shared with what carries its descriptors.
    pub(super) fn shared(&self) -> &Arc<Mutex<fcgi_core::Request>> {
        &self.inner
    }

    /// Does something with the request while other threads run.
    pub(super) fn with<R: Send>(&self, py: Python<'_>, f: impl FnOnce(&mut fcgi_core::Request) -> R + Send) -> R {
        py.detach(|| f(&mut self.lock()))
    }

    fn read_from(&self, py: Python<'_>, input: Input, size: Option<isize>) -> PyResult<Py<PyBytes>> {
        let wanted = size.and_then(|size| usize::try_from(size).ok());
        let bytes = self.with(py, |request| {
            let mut stream = match input {
                Input::Stdin => request.stdin(),
                Input::Data => request.data(),
            };
            let mut bytes = Vec::new();
            match wanted {
                Some(wanted) => (&mut stream).take(wanted as u64).read_to_end(&mut bytes),
                None => stream.read_to_end(&mut bytes),
            }
            .map(|_| bytes)
        })?;
        Ok(PyBytes::new(py, &bytes).unbind())
    }
}

#[pymethods]
impl Request {
    /// The role: `"RESPONDER"`, `"AUTHORIZER"` or `"FILTER"`.
    #[getter]
    fn role(&self, py: Python<'_>) -> &'static str {
        self.with(py, |request| request.role().name())
    }

    /// The variables, as `os.environ` would show them.
    #[getter]
    fn params(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let pairs: Vec<(Vec<u8>, Vec<u8>)> =
            self.with(py, |request| request.params().iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect());
        let dict = PyDict::new(py);
        for (name, value) in pairs {
            dict.set_item(ffi::decode(py, &name)?, ffi::decode(py, &value)?)?;
        }
        Ok(dict.unbind())
    }

    /// The variables as bytes.
    #[getter]
    fn raw_params(&self, py: Python<'_>) -> PyResult<Py<PyDict>> {
        let dict = PyDict::new(py);
        let request = self.lock();
        for (name, value) in request.params() {
            dict.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
        }
        drop(request);
        Ok(dict.unbind())
    }

    /// Up to `size` bytes of the request body; without a size, all that is left.
    #[pyo3(signature = (size=None, /))]
    fn read(&self, py: Python<'_>, size: Option<isize>) -> PyResult<Py<PyBytes>> {
        self.read_from(py, Input::Stdin, size)
    }

    /// As `read`, from the file that a Filter transforms.
    #[pyo3(signature = (size=None, /))]
    fn read_data(&self, py: Python<'_>, size: Option<isize>) -> PyResult<Py<PyBytes>> {
        self.read_from(py, Input::Data, size)
    }

    /// The next bytes of the request body, as soon as there are some; none at its end.
    fn read_some(&self, py: Python<'_>) -> PyResult<Py<PyBytes>> {
        let mut buffer = vec![0; PIECE];
        let count = self.with(py, |request| request.stdin().read(&mut buffer))?;
        Ok(PyBytes::new(py, &buffer[..count]).unbind())
    }

    /// Writes to the answer: `bytes` or what can be made bytes of. Gives the number of bytes.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let bytes = ffi::as_bytes(data)?;
        let bytes = bytes.as_bytes();
        self.with(py, |request| request.stdout().write_all(bytes))?;
        Ok(bytes.len())
    }

    /// Writes to the web server's error log.
    fn write_error(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let bytes = ffi::as_bytes(data)?;
        let bytes = bytes.as_bytes();
        self.with(py, |request| request.stderr().write_all(bytes))?;
        Ok(bytes.len())
    }

    /// Sends what has been written.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        Ok(self.with(py, |request| request.stdout().flush())?)
    }

    /// Takes back what has been written, if nothing has been sent.
    fn discard(&self, py: Python<'_>) -> bool {
        self.with(py, fcgi_core::Request::discard)
    }

    /// Bytes written so far.
    #[getter]
    fn written(&self, py: Python<'_>) -> u64 {
        self.with(py, |request| request.written())
    }

    /// Whether the answer is no longer wanted.
    #[getter]
    fn aborted(&self, py: Python<'_>) -> bool {
        self.with(py, fcgi_core::Request::is_aborted)
    }

    /// Whether the request has been finished.
    #[getter]
    fn finished(&self, py: Python<'_>) -> bool {
        self.with(py, |request| request.is_finished())
    }

    /// Ends the request: what was written is sent, and the web server learns the exit status. What is written afterwards
    /// is nothing.
    #[pyo3(signature = (status=0))]
    fn finish(&self, py: Python<'_>, status: u32) -> PyResult<()> {
        Ok(self.with(py, |request| request.finish(status))?)
    }
}
