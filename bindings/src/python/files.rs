//! What the files over a request's streams read from and write to. The files themselves are Python's (`fcgi._files`).

use std::io::Write;
use std::sync::{Arc, Mutex};

use fcgi_core::request::Input;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use super::ffi;
use super::request::{Body, lock, read_once};

type Shared = Arc<Mutex<fcgi_core::Request>>;

/// Bytes that are given at once.
const MOST: usize = 1 << 20;

/// One of the streams of a request.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Stream {
    request: Shared,
    kind: Kind,
}

enum Kind {
    Input(Input, Body),
    Output,
    Errors,
}

impl Stream {
    pub(super) fn input(request: &Shared, body: &Body, input: Input) -> Self {
        Self { request: request.clone(), kind: Kind::Input(input, body.clone()) }
    }

    pub(super) fn output(request: &Shared) -> Self {
        Self { request: request.clone(), kind: Kind::Output }
    }

    pub(super) fn errors(request: &Shared) -> Self {
        Self { request: request.clone(), kind: Kind::Errors }
    }

    /// Its place among the streams of a request.
    pub(super) fn number(&self) -> usize {
        match self.kind {
            Kind::Input(Input::Stdin, _) => 0,
            Kind::Input(Input::Data, _) => 1,
            Kind::Output => 2,
            Kind::Errors => 3,
        }
    }
}

#[pymethods]
impl Stream {
    /// Reads once, up to `size` bytes; none at the end.
    fn read(&self, py: Python<'_>, size: usize) -> PyResult<Py<PyBytes>> {
        let Kind::Input(input, body) = &self.kind else { return Ok(PyBytes::new(py, b"").unbind()) };
        let mut buffer = vec![0; size.min(MOST)];
        let count = py.detach(|| read_once(&mut lock(&self.request), body, *input, &mut buffer))?;
        Ok(PyBytes::new(py, &buffer[..count]).unbind())
    }

    /// Writes all; gives the number of bytes.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let bytes = ffi::as_bytes(data)?;
        let bytes = bytes.as_bytes();
        py.detach(|| {
            let mut request = lock(&self.request);
            if matches!(self.kind, Kind::Errors) {
                request.stderr().write_all(bytes)
            } else {
                request.stdout().write_all(bytes)
            }
        })?;
        Ok(bytes.len())
    }

    /// Sends what has been written.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| lock(&self.request).stdout().flush())?)
    }
}
