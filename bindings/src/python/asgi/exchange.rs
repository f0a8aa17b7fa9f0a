//! One request and its answer.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use fcgi_core::request::Input;
use fcgi_core::{Params, PolledRequest};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::python::ffi;

/// Bytes of a body that lies in a file that are given at once.
const PIECE: usize = 64 << 10;

/// A request, and its answer as far as it is known.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Exchange {
    inner: Mutex<Inner>,
}

struct Inner {
    request: PolledRequest,
    /// The body, if it had been taken from the request before an event loop got it.
    spooled: Option<File>,
    /// The answer's header, which waits for the first part of its body: until then the application may still fail.
    head: Vec<u8>,
    /// What an application has sent and there was no room for, and how much of it has been taken since.
    rest: Vec<u8>,
    taken: usize,
    /// The rest is the last.
    is_last: bool,
    is_head_request: bool,
    /// Bytes of the body that are still to come, if the application has said how many there are.
    left: Option<u64>,
}

impl Exchange {
    pub(super) fn new(request: PolledRequest, spooled: Option<File>) -> Self {
        let is_head_request = request.params().get(b"REQUEST_METHOD") == Some(b"HEAD");
        let (head, rest) = (Vec::new(), Vec::new());
        let inner = Inner { request, spooled, head, rest, taken: 0, is_last: false, is_head_request, left: None };
        Self { inner: Mutex::new(inner) }
    }

    pub(super) fn with_params<R>(&self, f: impl FnOnce(&mut Params) -> R) -> R {
        f(self.lock().request.params_mut())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Writes what it can of `bytes` and keeps the rest.
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut left = bytes;
        while self.rest.is_empty() && !left.is_empty() {
            match self.request.try_write(left) {
                Ok(count) => left = &left[count..],
                Err(e) if e.kind() == ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        self.rest.extend_from_slice(left);
        Ok(())
    }

    /// Notes that this much of the body comes, and whether more follows; an error when the header said otherwise.
    fn count(&mut self, length: usize, more: bool) -> PyResult<()> {
        let Some(left) = self.left else { return Ok(()) };
        let what = match left.checked_sub(length as u64) {
            None => "longer",
            Some(left) => {
                self.left = Some(left);
                if more || left == 0 {
                    return Ok(());
                }
                "shorter"
            }
        };
        Err(PyRuntimeError::new_err(format!("the body is {what} than its Content-Length says")))
    }

    /// Writes the rest, and sends it; whether there was room for it.
    fn go_on(&mut self) -> io::Result<bool> {
        while self.taken < self.rest.len() {
            match self.request.try_write(&self.rest[self.taken..]) {
                Ok(count) => self.taken += count,
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        (self.rest, self.taken) = (Vec::new(), 0);
        let result = if self.is_last { self.request.finish(0) } else { self.request.try_flush() };
        match result {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(e) => Err(e),
        }
    }
}

#[pymethods]
impl Exchange {
    /// The next part of the body, and whether more follows; `None` when nothing is there yet.
    fn read(&self, py: Python<'_>) -> PyResult<Option<(Py<PyBytes>, bool)>> {
        let Inner { request, spooled, .. } = &mut *self.lock();
        if let Some(file) = spooled {
            let mut part = vec![0; PIECE];
            let length = file.read(&mut part)?;
            return Ok(Some((PyBytes::new(py, &part[..length]).unbind(), length > 0)));
        }
        let part = match request.try_fill_buf(Input::Stdin) {
            Ok(part) => PyBytes::new(py, part).unbind(),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let length = part.as_bytes(py).len();
        request.consume(Input::Stdin, length);
        Ok(Some((part, !request.is_last(Input::Stdin) && length > 0)))
    }

    /// Begins the answer.
    fn start(&self, status: u16, reason: &[u8], headers: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut head = format!("Status: {status} ").into_bytes();
        head.extend_from_slice(reason);
        head.extend_from_slice(b"\r\n");
        let mut length = None;
        for header in headers.try_iter()? {
            let mut pair = header?.try_iter()?;
            let (Some(name), Some(value), None) = (pair.next(), pair.next(), pair.next()) else {
                return Err(PyValueError::new_err("a header is a name and a value"));
            };
            let (name, value) = (name?, value?);
            let (name, value) = (ffi::as_bytes(&name)?, ffi::as_bytes(&value)?);
            let (name, value) = (name.as_bytes(), value.as_bytes());
            if name.is_empty() || name.iter().any(|b| !is_token(*b)) {
                return Err(PyValueError::new_err(format!("not a header's name: {}", name.escape_ascii())));
            }
            if value.iter().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
                return Err(PyValueError::new_err(format!("not a header's value: {}", value.escape_ascii())));
            }
            if name.eq_ignore_ascii_case(b"content-length") {
                let number = std::str::from_utf8(value).ok().filter(|text| !text.starts_with('+'));
                let error = || PyValueError::new_err("the Content-Length must be a number");
                length = Some(number.and_then(|text| text.parse().ok()).ok_or_else(error)?);
            }
            head.extend_from_slice(name);
            head.extend_from_slice(b": ");
            head.extend_from_slice(value);
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        let inner = &mut *self.lock();
        inner.head = head;
        // These have no body (RFC 9110, section 6.4.1).
        inner.left = length.filter(|_| !inner.is_head_request && !matches!(status, 204 | 304));
        Ok(())
    }

    /// Sends a part of the body; the answer is complete unless more follows. Whether there was room for it: if not, `go_on`
    /// is to be called when there is.
    fn write(&self, body: &Bound<'_, PyAny>, more: bool) -> PyResult<bool> {
        let body = ffi::as_bytes(body)?;
        let inner = &mut *self.lock();
        inner.count(body.as_bytes().len(), more)?;
        let head = std::mem::take(&mut inner.head);
        inner.write(&head)?;
        if !inner.is_head_request {
            inner.write(body.as_bytes())?;
        }
        inner.is_last = !more;
        Ok(inner.go_on()?)
    }

    /// Sends what there was no room for; whether there was now.
    fn go_on(&self) -> PyResult<bool> {
        Ok(self.lock().go_on()?)
    }

    /// Writes to the web server's error log.
    fn write_error(&self, text: &[u8]) {
        let request = &mut self.lock().request;
        let mut left = text;
        while let Ok(count @ 1..) = request.try_write_error(left) {
            left = &left[count..];
        }
    }

    /// Whether the answer is no longer wanted; from now on an event tells.
    fn is_aborted(&self) -> bool {
        self.lock().request.is_aborted()
    }

    /// Ends the request: with a page if nothing has been sent, otherwise so that the answer is not taken for a whole one.
    pub(super) fn fail(&self, page: &[u8]) {
        let inner = &mut *self.lock();
        // A client that has gone needs no page.
        if inner.request.discard() {
            let _ = inner.request.try_write(page);
            let _ = inner.request.finish(1);
        } else {
            let _ = inner.request.break_off();
        }
    }
}

/// Characters of a header's name (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
