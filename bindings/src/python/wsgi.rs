//! Applications by the rules of WSGI (PEP 3333): `application(environ, start_response)`.

use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcgi_core::{Params, Request, Setup};
use pyo3::exceptions::{PyAssertionError, PyStopIteration, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::flusher::Flusher;
use super::{context, ffi};

/// How much of a file is read at once.
const BLOCK: usize = 64 << 10;

type Shared = Arc<Mutex<Request>>;

fn lock(request: &Mutex<Request>) -> MutexGuard<'_, Request> {
    request.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An application, and what its requests have in common.
pub(super) struct Wsgi {
    application: Py<PyAny>,
    /// What `environ` begins with.
    base: Py<PyDict>,
    file_wrapper: Py<PyAny>,
    /// Names and values of the last request: most are those of the next, too.
    pairs: Vec<Pair>,
    /// The application has a URL for itself: what the web server calls a script's name is a path inside of it.
    whole: Option<Vec<u8>>,
    flusher: Arc<Flusher>,
}

struct Pair {
    name: Vec<u8>,
    key: Py<PyString>,
    value: Vec<u8>,
    text: Py<PyString>,
}

impl Pair {
    fn new(py: Python<'_>, name: &[u8], value: &[u8]) -> PyResult<Self> {
        let (key, text) = (ffi::latin1(py, name)?.unbind(), ffi::latin1(py, value)?.unbind());
        Ok(Self { name: name.to_vec(), key, value: value.to_vec(), text })
    }
}

impl Wsgi {
    /// An application. `file` is the name of its script when all requests are for it.
    pub(super) fn new(application: &Bound<'_, PyAny>, setup: &Setup, file: Option<Vec<u8>>) -> PyResult<Self> {
        let py = application.py();
        let file_wrapper = py.import("fcgi._wsgi")?.getattr("FileWrapper")?;
        let base = PyDict::new(py);
        base.set_item("wsgi.version", (1, 0))?;
        base.set_item("wsgi.multithread", setup.shared_process)?;
        base.set_item("wsgi.multiprocess", setup.several_processes)?;
        base.set_item("wsgi.run_once", setup.is_cgi)?;
        base.set_item("wsgi.input_terminated", true)?;
        base.set_item("wsgi.file_wrapper", &file_wrapper)?;
        let (application, base) = (application.clone().unbind(), base.unbind());
        let flusher = Flusher::start();
        Ok(Self { application, base, file_wrapper: file_wrapper.unbind(), pairs: Vec::new(), whole: file, flusher })
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
        let start = match Bound::new(py, StartResponse { request: request.clone(), head: Mutex::default() }) {
            Ok(start) => start,
            Err(e) => return fail(py, request, &e, false, display_errors),
        };
        match self.call(py, request, spooled, &start) {
            Ok(()) => 0,
            // A client that has gone is no mistake of the application's.
            Err(e) if lock(request).is_aborted() && e.is_instance_of::<pyo3::exceptions::PyOSError>(py) => 1,
            Err(e) => fail(py, request, &e, start.get().is_sent(), display_errors),
        }
    }

    fn call(
        &mut self,
        py: Python<'_>,
        request: &Shared,
        spooled: Option<File>,
        start: &Bound<'_, StartResponse>,
    ) -> PyResult<()> {
        put_right(lock(request).params_mut(), self.whole.as_deref());
        let environ = self.environ(py, request, spooled)?;
        let result = self.application.bind(py).call1((environ, start))?;
        let sent = self.send(&result, start.get());
        // Whatever happened, the application may clean up.
        let closed = match result.getattr_opt(intern!(py, "close"))? {
            Some(close) => close.call0().map(|_| ()),
            None => Ok(()),
        };
        sent.and(closed)
    }

    /// Sends what the application gave.
    fn send(&self, result: &Bound<'_, PyAny>, start: &StartResponse) -> PyResult<()> {
        let py = result.py();
        // What is all there needs no sending in between.
        if let Ok(list) = result.cast_exact::<PyList>() {
            for block in list.iter() {
                start.write(py, &block)?;
            }
        } else if let Ok(tuple) = result.cast_exact::<PyTuple>() {
            for block in tuple.iter() {
                start.write(py, &block)?;
            }
        } else if result.is_instance(self.file_wrapper.bind(py))? {
            let read = result.getattr(intern!(py, "filelike"))?.getattr(intern!(py, "read"))?;
            loop {
                let block = read.call1((BLOCK,))?;
                if block.len()? == 0 {
                    break;
                }
                start.write(py, &block)?;
            }
        } else {
            let streaming = self.flusher.stream(&start.request);
            for block in result.try_iter()? {
                start.write(py, &block?)?;
                streaming.written();
            }
        }
        start.send_head(py)
    }

    fn environ<'py>(
        &mut self,
        py: Python<'py>,
        request: &Shared,
        spooled: Option<File>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let environ = self.base.bind(py).copy()?;
        let held = lock(request);
        let mut https = false;
        let mut at = 0;
        for (name, value) in held.params() {
            // nginx sends them beside the real ones.
            if matches!(name, b"HTTP_CONTENT_TYPE" | b"HTTP_CONTENT_LENGTH") {
                continue;
            }
            match name {
                b"HTTPS" => https |= matches!(value, b"on" | b"ON" | b"On" | b"1" | b"true"),
                b"REQUEST_SCHEME" => https |= value == b"https",
                _ => {}
            }
            if at == self.pairs.len() {
                self.pairs.push(Pair::new(py, name, value)?);
            }
            let pair = &mut self.pairs[at];
            if pair.name != name {
                *pair = Pair::new(py, name, value)?;
            } else if pair.value != value {
                (pair.value, pair.text) = (value.to_vec(), ffi::latin1(py, value)?.unbind());
            }
            environ.set_item(&pair.key, &pair.text)?;
            at += 1;
        }
        drop(held);
        // Each has to be there, whatever the web server sends.
        for (name, default) in [
            (intern!(py, "REQUEST_METHOD"), intern!(py, "GET")),
            (intern!(py, "SCRIPT_NAME"), intern!(py, "")),
            (intern!(py, "PATH_INFO"), intern!(py, "")),
            (intern!(py, "QUERY_STRING"), intern!(py, "")),
            (intern!(py, "SERVER_NAME"), intern!(py, "localhost")),
            (intern!(py, "SERVER_PORT"), intern!(py, "80")),
            (intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.1")),
        ] {
            if !environ.contains(name)? {
                environ.set_item(name, default)?;
            }
        }
        let scheme = if https { intern!(py, "https") } else { intern!(py, "http") };
        environ.set_item(intern!(py, "wsgi.url_scheme"), scheme)?;
        environ.set_item(
            intern!(py, "wsgi.input"),
            Bound::new(py, Input(Mutex::new(Body::new(request.clone(), spooled))))?,
        )?;
        environ.set_item(intern!(py, "wsgi.errors"), Bound::new(py, Errors(request.clone()))?)?;
        Ok(environ)
    }
}

/// Where the application has a URL for itself (`file` is its script's name), a web server that knows of scripts only calls
/// the path inside of it the script's name, as nginx does.
pub(super) fn put_right(params: &mut Params, file: Option<&[u8]>) {
    let Some(file) = file else { return };
    let name = params.get(b"SCRIPT_NAME").unwrap_or_default();
    if params.get(b"PATH_INFO").is_some_and(|info| !info.is_empty()) || name.is_empty() {
        return;
    }
    let is_script = !file.is_empty() && name.rsplit(|b| *b == b'/').next() == Some(file);
    if !is_script {
        let path = name.to_vec();
        params.set(b"PATH_INFO", &path);
        params.set(b"SCRIPT_NAME", b"");
    }
}

/// Says what went wrong, and gives an error page if nothing was sent.
fn fail(py: Python<'_>, request: &Shared, error: &PyErr, sent: bool, display_errors: bool) -> u32 {
    let text = format_error(py, error);
    let mut request = lock(request);
    let _ = request.stderr().write_all(text.as_bytes());
    if !sent && request.discard() {
        let details = if display_errors { text.as_bytes() } else { b"" };
        let _ = request.stdout().write_all(&context::error_page("500 Internal Server Error", details));
    }
    1
}

fn format_error(py: Python<'_>, error: &PyErr) -> String {
    let lines = py
        .import("traceback")
        .and_then(|t| t.call_method1("format_exception", (error.get_type(py), error.value(py), error.traceback(py))));
    let text = lines.and_then(|lines| lines.extract::<Vec<String>>());
    text.map_or_else(|_| format!("{error}\n"), |lines| lines.concat())
}

/// What starts an answer, and what `write` goes to.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct StartResponse {
    request: Shared,
    head: Mutex<Head>,
}

#[derive(Default)]
struct Head {
    /// Set by a call, until it is written.
    text: Option<Vec<u8>>,
    written: bool,
}

impl StartResponse {
    fn head(&self) -> MutexGuard<'_, Head> {
        self.head.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_sent(&self) -> bool {
        self.head().written && !lock(&self.request).discard()
    }

    /// Writes the head without a body.
    fn send_head(&self, py: Python<'_>) -> PyResult<()> {
        let mut head = self.head();
        if head.written {
            return Ok(());
        }
        let Some(text) = head.text.take() else {
            return Err(PyAssertionError::new_err("the application did not call start_response()"));
        };
        head.written = true;
        drop(head);
        Ok(py.detach(|| lock(&self.request).stdout().write_all(&text))?)
    }

    fn write(&self, py: Python<'_>, block: &Bound<'_, PyAny>) -> PyResult<()> {
        let Ok(bytes) = block.cast::<PyBytes>() else {
            let kind = block.get_type();
            return Err(PyTypeError::new_err(format!("the application gave {} where bytes are wanted", kind.name()?)));
        };
        let bytes = bytes.as_bytes();
        let mut head = self.head();
        // Until the first byte of the body, the head may be another one.
        if bytes.is_empty() {
            return Ok(());
        }
        let text = if head.written {
            None
        } else {
            let text = head.text.take();
            let text = text
                .ok_or_else(|| PyAssertionError::new_err("the application wrote before it called start_response()"))?;
            head.written = true;
            Some(text)
        };
        drop(head);
        py.detach(|| {
            let mut request = lock(&self.request);
            let mut stdout = request.stdout();
            if let Some(text) = text {
                stdout.write_all(&text)?;
            }
            stdout.write_all(bytes)
        })?;
        Ok(())
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
        let mut head = slf.get().head();
        match exc_info.filter(|info| !info.is_none()) {
            // Too late: the client has another head (PEP 3333, "Error Handling").
            Some(info) if head.written => {
                let value = info.get_item(1)?;
                return Err(PyErr::from_value(value));
            }
            None if head.text.is_some() || head.written => {
                return Err(PyAssertionError::new_err("start_response() was called twice, without exc_info"));
            }
            _ => {}
        }
        let mut text = Vec::with_capacity(256);
        text.extend_from_slice(b"Status: ");
        add_status(status, &mut text)?;
        text.extend_from_slice(b"\r\n");
        let headers =
            headers.cast::<PyList>().map_err(|_| PyTypeError::new_err("start_response(): headers must be a list"))?;
        for header in headers.iter() {
            let header = header.cast_into::<PyTuple>().ok().filter(|pair| pair.len() == 2);
            let header = header.ok_or_else(|| {
                PyTypeError::new_err("start_response(): a header must be a tuple of a name and a value")
            })?;
            add_header(&header.get_item(0)?, &header.get_item(1)?, &mut text)?;
        }
        text.extend_from_slice(b"\r\n");
        head.text = Some(text);
        drop(head);
        slf.getattr(intern!(py, "write_body"))
    }

    /// The `write` of PEP 3333: writes a part of the body, which is sent at once.
    fn write_body(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<()> {
        self.write(py, data)?;
        Ok(py.detach(|| lock(&self.request).stdout().flush())?)
    }
}

fn text_of<'py>(what: &str, text: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let text = text
        .cast_exact::<PyString>()
        .map_err(|_| PyTypeError::new_err(format!("start_response(): the {what} must be a str")))?;
    let bytes = ffi::to_latin1(text)
        .map_err(|_| PyValueError::new_err(format!("start_response(): the {what} has characters beyond latin-1")))?;
    if bytes.as_bytes().iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err(PyValueError::new_err(format!("start_response(): the {what} has control characters")));
    }
    Ok(bytes)
}

fn add_status(status: &Bound<'_, PyAny>, head: &mut Vec<u8>) -> PyResult<()> {
    let bytes = text_of("status", status)?;
    let bytes = bytes.as_bytes();
    let good =
        bytes.len() >= 3 && bytes[..3].iter().all(u8::is_ascii_digit) && matches!(bytes.get(3), None | Some(b' '));
    if !good {
        return Err(PyValueError::new_err("start_response(): the status must be as '200 OK'"));
    }
    head.extend_from_slice(bytes);
    Ok(())
}

fn add_header(name: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>, head: &mut Vec<u8>) -> PyResult<()> {
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
    let (name, value) = (text_of("name of a header", name)?, text_of("value of a header", value)?);
    let (name, value) = (name.as_bytes(), value.as_bytes());
    if name.is_empty()
        || name.iter().any(|b| !b.is_ascii_graphic() || *b == b':')
        || name.eq_ignore_ascii_case(b"status")
    {
        return Err(PyValueError::new_err(format!(
            "start_response(): no header can be named '{}'",
            name.escape_ascii()
        )));
    }
    if HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop)) {
        let name = name.escape_ascii();
        return Err(PyAssertionError::new_err(format!(
            "start_response(): the header {name} is the web server's to send"
        )));
    }
    head.extend_from_slice(name);
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
    Ok(())
}

/// `wsgi.errors`.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Errors(Shared);

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
    fn new(request: Shared, spooled: Option<File>) -> Self {
        Self { request, spooled, buffer: Vec::new(), at: 0 }
    }

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
