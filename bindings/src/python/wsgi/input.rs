//! `wsgi.input` and `wsgi.errors`.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::sync::{Mutex, PoisonError};

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use super::{BLOCK, Shared, lock};
use crate::python::ffi;

/// `wsgi.errors`.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Errors(pub(super) Shared);

#[pymethods]
impl Errors {
    fn write(&self, py: Python<'_>, text: &Bound<'_, PyString>) -> PyResult<usize> {
        let bytes = ffi::encode_for_log(text)?;
        let bytes = bytes.as_bytes();
        py.detach(|| lock(&self.0).stderr().write_all(bytes))?;
        text.len()
    }

    fn writelines(&self, py: Python<'_>, lines: &Bound<'_, PyAny>) -> PyResult<()> {
        for line in lines.try_iter()? {
            self.write(py, line?.cast::<PyString>()?)?;
        }
        Ok(())
    }

    #[allow(clippy::unused_self, reason = "PEP 3333 asks for the method")]
    fn flush(&self) {}
}

/// A request body with what has been read of it and not given out.
struct Body {
    request: Shared,
    /// Where the body lies, when it has been taken from the request already.
    spooled: Option<File>,
    buffer: Vec<u8>,
    at: usize,
}

impl Body {
    fn read_request(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.spooled {
            Some(file) => file.read(buf),
            None => lock(&self.request).stdin().read(buf),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.at == self.buffer.len() {
            return self.read_request(buf);
        }
        let count = (self.buffer.len() - self.at).min(buf.len());
        buf[..count].copy_from_slice(&self.buffer[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl BufRead for Body {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            self.at = 0;
            let mut buffer = std::mem::take(&mut self.buffer);
            buffer.resize(BLOCK, 0);
            let read = self.read_request(&mut buffer);
            buffer.truncate(*read.as_ref().unwrap_or(&0));
            self.buffer = buffer;
            read?;
        }
        Ok(&self.buffer[self.at..])
    }

    fn consume(&mut self, count: usize) {
        self.at += count;
    }
}

/// `wsgi.input`: the request body, to its end and no further.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Input(Mutex<Body>);

impl Input {
    /// The body of a request; in `spooled` when it has been taken from it already.
    pub(super) fn new(request: Shared, spooled: Option<File>) -> Self {
        Self(Mutex::new(Body { request, spooled, buffer: Vec::new(), at: 0 }))
    }

    /// Reads in the way of `f`, while other threads run.
    fn with(
        &self,
        py: Python<'_>,
        f: impl FnOnce(&mut Body, &mut Vec<u8>) -> std::io::Result<()> + Send,
    ) -> PyResult<Py<PyBytes>> {
        let bytes = py.detach(|| {
            let mut bytes = Vec::new();
            f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), &mut bytes).map(|()| bytes)
        })?;
        Ok(PyBytes::new(py, &bytes).unbind())
    }
}

/// A size as files take it: negative or `None` for all.
fn limit(size: Option<i64>) -> Option<u64> {
    size.and_then(|size| u64::try_from(size).ok())
}

#[pymethods]
impl Input {
    #[pyo3(signature = (size=None, /))]
    fn read(&self, py: Python<'_>, size: Option<i64>) -> PyResult<Py<PyBytes>> {
        self.with(py, |body, bytes| match limit(size) {
            Some(size) => {
                bytes.reserve_exact(usize::try_from(size).unwrap_or(usize::MAX).min(1 << 20));
                body.take(size).read_to_end(bytes).map(|_| ())
            }
            None => body.read_to_end(bytes).map(|_| ()),
        })
    }

    #[pyo3(signature = (size=None, /))]
    fn readline(&self, py: Python<'_>, size: Option<i64>) -> PyResult<Py<PyBytes>> {
        self.with(py, |body, bytes| match limit(size) {
            Some(size) => body.take(size).read_until(b'\n', bytes).map(|_| ()),
            None => body.read_until(b'\n', bytes).map(|_| ()),
        })
    }

    #[pyo3(signature = (hint=None, /))]
    fn readlines(&self, py: Python<'_>, hint: Option<i64>) -> PyResult<Vec<Py<PyBytes>>> {
        let hint = limit(hint).filter(|hint| *hint > 0);
        let mut lines = Vec::new();
        let mut length = 0;
        while hint.is_none_or(|hint| length < hint) {
            let line = self.readline(py, None)?;
            let count = line.bind(py).as_bytes().len();
            if count == 0 {
                break;
            }
            length += count as u64;
            lines.push(line);
        }
        Ok(lines)
    }

    fn __iter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __next__(&self, py: Python<'_>) -> PyResult<Py<PyBytes>> {
        let line = self.readline(py, None)?;
        if line.bind(py).as_bytes().is_empty() { Err(PyStopIteration::new_err(())) } else { Ok(line) }
    }

    /// Frameworks close what they have read; the request's own streams stay.
    #[allow(clippy::unused_self, reason = "a method of files")]
    fn close(&self) {}
}
