//! `environ`, made of CGI variables (PEP 3333, "environ Variables").

use std::fs::File;

use fcgi_core::{Params, Role, Setup};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

use super::input::{Errors, Input};
use super::{Shared, lock};
use crate::python::ffi;
use crate::python::request::Request;

/// Makes the `environ` of one request after the other. Most of it is the same each time: it is a copy of the last one, in which
/// that is replaced which has changed.
pub(super) struct Environs {
    /// What all requests have.
    base: Py<PyDict>,
    /// The last one, without streams.
    last: Py<PyDict>,
    /// The variables that it was made of.
    pairs: Vec<Pair>,
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

    /// Gives it another value; whether it was another one.
    fn set(&mut self, py: Python<'_>, value: &[u8]) -> PyResult<bool> {
        if self.value == value {
            return Ok(false);
        }
        self.text = ffi::latin1(py, value)?.unbind();
        self.value.clear();
        self.value.extend_from_slice(value);
        Ok(true)
    }
}

impl Environs {
    /// For the requests of one interpreter.
    pub(super) fn new(py: Python<'_>, setup: &Setup, file_wrapper: &Bound<'_, PyAny>) -> PyResult<Self> {
        let base = PyDict::new(py);
        base.set_item("wsgi.version", (1, 0))?;
        base.set_item("wsgi.multithread", setup.shared_process)?;
        // A web server starts CGI programs beside each other.
        base.set_item("wsgi.multiprocess", setup.several_processes || setup.is_cgi)?;
        base.set_item("wsgi.run_once", setup.is_cgi)?;
        base.set_item("wsgi.input_terminated", true)?;
        base.set_item("wsgi.file_wrapper", file_wrapper)?;
        // Their places; each request has its own.
        for name in ["wsgi.url_scheme", "wsgi.input", "wsgi.errors"] {
            base.set_item(name, py.None())?;
        }
        let mut environs = Self { last: base.copy()?.unbind(), base: base.unbind(), pairs: Vec::new() };
        environs.make_last(py, &Params::new())?;
        Ok(environs)
    }

    /// The `environ` of a request. A body that has been taken from the request already is in `spooled`.
    pub(super) fn of<'py>(
        &mut self,
        py: Python<'py>,
        request: &Shared,
        spooled: Option<File>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let held = lock(request);
        if !self.update_last(py, held.params())? {
            self.make_last(py, held.params())?;
        }
        let is_filter = held.role() == Role::Filter;
        drop(held);
        let environ = self.last.bind(py).copy()?;
        if is_filter {
            let data = Request::begun(request.clone(), None).data(py)?;
            environ.set_item("fcgi.data", data)?;
        }
        environ.set_item(intern!(py, "wsgi.input"), Bound::new(py, Input::new(request.clone(), spooled))?)?;
        environ.set_item(intern!(py, "wsgi.errors"), Bound::new(py, Errors(request.clone()))?)?;
        Ok(environ)
    }

    /// Makes the last one that of other values; false when the names are others.
    fn update_last(&mut self, py: Python<'_>, params: &Params) -> PyResult<bool> {
        let last = self.last.bind(py);
        let mut pairs = self.pairs.iter_mut();
        let mut scheme_changed = false;
        for (name, value) in variables(params) {
            let Some(pair) = pairs.next().filter(|pair| pair.name == name) else { return Ok(false) };
            if pair.set(py, value)? {
                last.set_item(&pair.key, &pair.text)?;
                scheme_changed |= matches!(name, b"HTTPS" | b"REQUEST_SCHEME");
            }
        }
        if pairs.next().is_some() {
            return Ok(false);
        }
        if scheme_changed {
            self.set_scheme(py, params)?;
        }
        Ok(true)
    }

    /// Makes the last one anew. Names and values that were there before are the same objects again.
    fn make_last(&mut self, py: Python<'_>, params: &Params) -> PyResult<()> {
        let last = self.base.bind(py).copy()?;
        let mut known: Vec<Option<Pair>> = std::mem::take(&mut self.pairs).into_iter().map(Some).collect();
        let mut from = 0;
        for (name, value) in variables(params) {
            let is_it = |pair: &Option<Pair>| pair.as_ref().is_some_and(|pair| pair.name == name);
            let found = known[from..].iter().position(is_it).map(|at| from + at);
            let pair = match found {
                Some(at) => {
                    from = at + 1;
                    known[at].take()
                }
                None => known.iter_mut().find(|pair| is_it(pair)).and_then(Option::take),
            };
            let pair = match pair {
                Some(mut pair) => {
                    pair.set(py, value)?;
                    pair
                }
                None => Pair::new(py, name, value)?,
            };
            last.set_item(&pair.key, &pair.text)?;
            self.pairs.push(pair);
        }
        // Each has to be there, whatever the web server sends.
        for (name, default) in [
            (intern!(py, "REQUEST_METHOD"), intern!(py, "GET")),
            (intern!(py, "SCRIPT_NAME"), intern!(py, "")),
            (intern!(py, "PATH_INFO"), intern!(py, "")),
            (intern!(py, "QUERY_STRING"), intern!(py, "")),
            (intern!(py, "SERVER_PORT"), intern!(py, "80")),
            (intern!(py, "SERVER_PROTOCOL"), intern!(py, "HTTP/1.1")),
        ] {
            if !last.contains(name)? {
                last.set_item(name, default)?;
            }
        }
        self.last = last.unbind();
        self.set_scheme(py, params)
    }

    fn set_scheme(&mut self, py: Python<'_>, params: &Params) -> PyResult<()> {
        let scheme = if is_https(params) { intern!(py, "https") } else { intern!(py, "http") };
        self.last.bind(py).set_item(intern!(py, "wsgi.url_scheme"), scheme)
    }
}

/// The variables that an application is to see. nginx sends some headers beside the variables that hold them.
fn variables(params: &Params) -> impl Iterator<Item = (&[u8], &[u8])> {
    params.iter().filter(|(name, _)| !matches!(*name, b"HTTP_CONTENT_TYPE" | b"HTTP_CONTENT_LENGTH"))
}

fn is_https(params: &Params) -> bool {
    let is_off = |value: &[u8]| value.is_empty() || value == b"0" || value.eq_ignore_ascii_case(b"off");
    params.get(b"HTTPS").is_some_and(|value| !is_off(value))
        || params.get(b"REQUEST_SCHEME").is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"https"))
}
