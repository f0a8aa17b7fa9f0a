//! `start_response`: the head of an answer, and what follows it.

use std::io::Write;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyAssertionError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use super::{Shared, lock};
use crate::python::ffi;

/// What starts an answer, and what `write` goes to.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct StartResponse {
    request: Shared,
    head: Mutex<Head>,
    /// The request asks for a head without a body.
    is_head_request: bool,
}

#[derive(Default)]
struct Head {
    /// Set by a call, until it is written.
    text: Option<Vec<u8>>,
    written: bool,
    /// The status or the request's method says that there is no body (RFC 9110, section 6.4.1).
    has_no_body: bool,
    /// Bytes of the body that are still to come, if the application has said how many there are.
    left: Option<u64>,
}

/// How much of a block was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    All,
    /// The rest is more than the Content-Length says.
    Part,
}

impl StartResponse {
    pub(super) fn new(request: Shared) -> Self {
        let is_head_request = lock(&request).params().get(b"REQUEST_METHOD") == Some(b"HEAD");
        Self { request, head: Mutex::default(), is_head_request }
    }

    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body has ended: writes the head, if there was no body.
    pub(super) fn end(&self, py: Python<'_>) -> PyResult<()> {
        let mut head = self.head();
        if let Some(left) = head.left.filter(|left| *left > 0 && !head.has_no_body) {
            return Err(PyAssertionError::new_err(format!(
                "the application gave {left} bytes fewer than its Content-Length says"
            )));
        }
        if head.written {
            return Ok(());
        }
        let Some(text) = head.text.take() else {
            return Err(PyAssertionError::new_err("the application did not call start_response()"));
        };
        head.written = true;
        drop(head);
        self.put(py, &text, b"")
    }

    /// Writes a block of the body, behind the head if it is the first one.
    pub(super) fn write(&self, py: Python<'_>, block: &Bound<'_, PyAny>) -> PyResult<Taken> {
        let Ok(bytes) = block.cast::<PyBytes>() else { return Err(not_bytes(block)) };
        let mut bytes = bytes.as_bytes();
        // Until the first byte of the body, the head may be another one.
        if bytes.is_empty() {
            return Ok(Taken::All);
        }
        let mut head = self.head();
        let text = if head.written {
            None
        } else {
            let text = head.text.take();
            let text = text
                .ok_or_else(|| PyAssertionError::new_err("the application wrote before it called start_response()"))?;
            head.written = true;
            Some(text)
        };
        let mut taken = Taken::All;
        if head.has_no_body {
            bytes = b"";
        } else if let Some(left) = &mut head.left {
            let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
            if count < bytes.len() {
                taken = Taken::Part;
            }
            bytes = &bytes[..count];
            *left -= count as u64;
        }
        drop(head);
        self.put(py, text.as_deref().unwrap_or_default(), bytes)?;
        Ok(taken)
    }

    /// Writes; other threads run meanwhile, if it may take time.
    fn put(&self, py: Python<'_>, head: &[u8], bytes: &[u8]) -> PyResult<()> {
        if let Ok(mut request) = self.request.try_lock()
            && head.len() + bytes.len() <= request.room()
        {
            let mut stdout = request.stdout();
            stdout.write_all(head)?;
            return Ok(stdout.write_all(bytes)?);
        }
        Ok(py.detach(|| {
            let mut request = lock(&self.request);
            let mut stdout = request.stdout();
            stdout.write_all(head)?;
            stdout.write_all(bytes)
        })?)
    }
}

#[pymethods]
impl StartResponse {
    #[pyo3(signature = (status, headers, exc_info=None))]
    fn __call__<'py>(
        slf: &Bound<'py, Self>,
        status: &Bound<'py, PyAny>,
        headers: &Bound<'py, PyAny>,
        exc_info: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        let (was_called, written) = {
            let head = this.head();
            (head.text.is_some(), head.written)
        };
        match exc_info.filter(|info| !info.is_none()) {
            // Too late: the client has another head (PEP 3333, "Error Handling").
            Some(info) if written => return Err(PyErr::from_value(info.get_item(1)?)),
            None if was_called || written => {
                return Err(PyAssertionError::new_err("start_response() was called twice, without exc_info"));
            }
            _ => {}
        }
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(b"Status: ");
        add_text("status", status, &mut text)?;
        let has_no_body = this.is_head_request || has_no_body(&text[b"Status: ".len()..])?;
        text.extend_from_slice(b"\r\n");
        let headers =
            headers.cast::<PyList>().map_err(|_| PyTypeError::new_err("start_response(): headers must be a list"))?;
        let mut left = None;
        for header in headers.iter() {
            let header = header.cast_into::<PyTuple>().ok().filter(|pair| pair.len() == 2);
            let header = header.ok_or_else(|| {
                PyTypeError::new_err("start_response(): a header must be a tuple of a name and a value")
            })?;
            left = add_header(&header.get_item(0)?, &header.get_item(1)?, &mut text)?.or(left);
        }
        text.extend_from_slice(b"\r\n");
        *this.head() = Head { text: Some(text), written: false, has_no_body, left };
        slf.getattr(intern!(py, "write_body"))
    }

    /// The `write` of PEP 3333: writes a part of the body, which is sent at once.
    fn write_body(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        if self.write(py, data)? == Taken::Part {
            return Err(PyAssertionError::new_err("the application wrote more than its Content-Length says"));
        }
        Ok(py.detach(|| lock(&self.request).stdout().flush())?)
    }
}

fn not_bytes(block: &Bound<'_, PyAny>) -> PyErr {
    let kind = block.get_type();
    let name = kind.name().map(|name| name.to_string()).unwrap_or_default();
    // An iterated bytes object gives numbers.
    let hint = if name == "int" { ": it must give a list or an iterable of bytes" } else { "" };
    PyTypeError::new_err(format!("the application gave {name} where bytes are wanted{hint}"))
}

/// Appends text of which each character is a byte (PEP 3333, "Unicode Issues").
fn add_text(what: &str, text: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let text = text
        .cast::<PyString>()
        .map_err(|_| PyTypeError::new_err(format!("start_response(): the {what} must be a str")))?;
    let start = out.len();
    match text.to_cow() {
        Ok(ascii) if ascii.is_ascii() => out.extend_from_slice(ascii.as_bytes()),
        _ => {
            let bytes = ffi::to_latin1(text).map_err(|_| {
                PyValueError::new_err(format!("start_response(): the {what} has characters beyond latin-1"))
            })?;
            out.extend_from_slice(bytes.as_bytes());
        }
    }
    if out[start..].iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err(PyValueError::new_err(format!("start_response(): the {what} has control characters")));
    }
    Ok(())
}

/// Whether answers with this status have no body.
fn has_no_body(status: &[u8]) -> PyResult<bool> {
    let is_good =
        status.len() >= 3 && status[..3].iter().all(u8::is_ascii_digit) && matches!(status.get(3), None | Some(b' '));
    if !is_good {
        return Err(PyValueError::new_err("start_response(): the status must be as '200 OK'"));
    }
    Ok(matches!(&status[..3], b"204" | b"304"))
}

/// Appends a header; gives the length of the body, if it says that.
fn add_header(name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, head: &mut Vec<u8>) -> PyResult<Option<u64>> {
    let start = head.len();
    add_text("name of a header", name, head)?;
    check_name(&head[start..])?;
    let is_length = head[start..].eq_ignore_ascii_case(b"content-length");
    head.extend_from_slice(b": ");
    let start = head.len();
    add_text("value of a header", value, head)?;
    let mut length = None;
    if is_length {
        let number = std::str::from_utf8(&head[start..]).ok().filter(|text| !text.starts_with('+'));
        let number = number.and_then(|text| text.parse().ok());
        let error = || PyValueError::new_err("start_response(): the Content-Length must be a number");
        length = Some(number.ok_or_else(error)?);
    }
    head.extend_from_slice(b"\r\n");
    Ok(length)
}

fn check_name(name: &[u8]) -> PyResult<()> {
    // What belongs to one connection is the web server's to say (RFC 9110, section 7.6.1).
    const HOP_BY_HOP: [&[u8]; 8] = [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ];
    if name.is_empty()
        || name.iter().any(|b| !b.is_ascii_graphic() || *b == b':')
        || name.eq_ignore_ascii_case(b"status")
    {
        let name = name.escape_ascii();
        return Err(PyValueError::new_err(format!("start_response(): no header can be named '{name}'")));
    }
    if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)) {
        let name = name.escape_ascii();
        return Err(PyAssertionError::new_err(format!(
            "start_response(): the header {name} is the web server's to send"
        )));
    }
    Ok(())
}
