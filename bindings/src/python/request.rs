//! The class `Request`: what Python code sees of a request.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcgi_core::request::Input;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict};

use super::files::Stream;
use super::{ffi, own};

/// Bytes that are read at once when all of a stream is wanted.
const PIECE: usize = 64 << 10;

/// A request: its role, its variables, its streams, its end.
///
/// Its methods may be called from any thread; while one of them waits, other threads run.
#[pyclass(frozen, module = "fcgi")]
pub struct Request {
    inner: Arc<Mutex<fcgi_core::Request>>,
    /// Where the body lies, when it has been taken from the request already.
    body: Body,
    /// Files over it, once they have been asked for: stdin, data, stdout, stderr.
    files: [PyOnceLock<Py<PyAny>>; 4],
}

/// A body that has been taken from its request.
pub(super) type Body = Arc<Mutex<Option<File>>>;

/// A request, whoever held it before.
pub(super) fn lock(request: &Mutex<fcgi_core::Request>) -> MutexGuard<'_, fcgi_core::Request> {
    request.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reads once from a request, or from where its body lies.
pub(super) fn read_once(
    request: &mut fcgi_core::Request,
    body: &Body,
    input: Input,
    buf: &mut [u8],
) -> io::Result<usize> {
    match (input, &mut *body.lock().unwrap_or_else(PoisonError::into_inner)) {
        (Input::Stdin, Some(file)) => file.read(buf),
        (Input::Stdin, None) => request.stdin().read(buf),
        (Input::Data, _) => request.data().read(buf),
    }
}

impl Request {
    pub(super) fn new(request: fcgi_core::Request) -> Self {
        Self::begun(Arc::new(Mutex::new(request)), None)
    }

    /// A request whose body has been taken from it already.
    pub(super) fn begun(inner: Arc<Mutex<fcgi_core::Request>>, body: Option<File>) -> Self {
        Self { inner, body: Arc::new(Mutex::new(body)), files: [const { PyOnceLock::new() }; 4] }
    }

    fn file(&self, py: Python<'_>, stream: Stream, kind: &str) -> PyResult<Py<PyAny>> {
        let file = self.files[stream.number()].get_or_try_init(py, || -> PyResult<_> {
            Ok(py.import("fcgi._files")?.getattr(kind)?.call1((stream,))?.unbind())
        })?;
        Ok(file.clone_ref(py))
    }

    /// The request itself, for code that may wait: the interpreter must not be held.
    pub(super) fn lock(&self) -> MutexGuard<'_, fcgi_core::Request> {
        lock(&self.inner)
    }

    /// The request, to be shared with what carries its descriptors.
    pub(super) fn shared(&self) -> &Arc<Mutex<fcgi_core::Request>> {
        &self.inner
    }

    /// Does something with the request while other threads run.
    pub(super) fn with<R: Send>(&self, py: Python<'_>, f: impl FnOnce(&mut fcgi_core::Request) -> R + Send) -> R {
        py.detach(|| f(&mut self.lock()))
    }

    /// Where the body lies, for somebody else to read.
    pub(super) fn take_body(&self) -> Option<File> {
        self.body.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn read_from(&self, py: Python<'_>, input: Input, size: Option<isize>) -> PyResult<Py<PyBytes>> {
        let wanted = size.and_then(|size| usize::try_from(size).ok());
        let bytes = self.with(py, |request| {
            let mut bytes = Vec::new();
            let wanted = wanted.unwrap_or(usize::MAX);
            while bytes.len() < wanted {
                let start = bytes.len();
                bytes.resize(start + PIECE.min(wanted - start), 0);
                let count = read_once(request, &self.body, input, &mut bytes[start..])?;
                bytes.truncate(start + count);
                if count == 0 {
                    break;
                }
            }
            io::Result::Ok(bytes)
        })?;
        Ok(PyBytes::new(py, &bytes).unbind())
    }
}

#[pymethods]
impl Request {
    /// The role: `"RESPONDER"`, `"AUTHORIZER"`, `"FILTER"` or `"LOGGER"`.
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

    /// The request body, as a file. Whoever reads from it does not use `read`, which knows nothing of its buffer.
    #[getter]
    fn stdin(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.file(py, Stream::input(&self.inner, &self.body, Input::Stdin), "reader")
    }

    /// The file that a Filter transforms, as a file.
    #[getter]
    pub(super) fn data(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.file(py, Stream::input(&self.inner, &self.body, Input::Data), "reader")
    }

    /// The answer, as a file; `flush` sends what has been written.
    #[getter]
    fn stdout(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.file(py, Stream::output(&self.inner), "Writer")
    }

    /// The web server's error log, as a file.
    #[getter]
    fn stderr(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.file(py, Stream::errors(&self.inner), "Writer")
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
        let count = self.with(py, |request| read_once(request, &self.body, Input::Stdin, &mut buffer))?;
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
        own::want_status(status);
        Ok(self.with(py, |request| request.finish(status))?)
    }
}
