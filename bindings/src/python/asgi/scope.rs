//! The HTTP connection scope, made of CGI variables.

use std::sync::{Mutex, PoisonError};

use fcgi_core::Params;
use fcgi_core::gateway::percent_decoded;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple};

use super::exchange::Exchange;
use crate::python::{ffi, wsgi};

/// Makes the scopes of an application's requests.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Scopes {
    /// What all scopes have.
    template: Py<PyDict>,
    /// The file name of the application, if it is a script.
    file: Vec<u8>,
    /// The headers of the last request: most are those of the next, too.
    headers: Mutex<Vec<Header>>,
}

struct Header {
    variable: Vec<u8>,
    value: Vec<u8>,
    pair: Py<PyTuple>,
}

#[pymethods]
impl Scopes {
    /// `template` has what all scopes have; `file` is the file name of the application, if it is a script.
    #[new]
    fn new(template: Py<PyDict>, file: &str) -> Self {
        Self { template, file: file.as_bytes().to_vec(), headers: Mutex::default() }
    }

    /// What is known of a request.
    fn of<'py>(&self, py: Python<'py>, exchange: &Exchange) -> PyResult<Bound<'py, PyDict>> {
        let scope = self.template.bind(py).copy()?;
        // What an application changes in it is not to meet another request.
        let versions = scope.get_item(intern!(py, "asgi"))?;
        if let Some(versions) = versions.as_ref().and_then(|v| v.cast::<PyDict>().ok()) {
            scope.set_item(intern!(py, "asgi"), versions.copy()?)?;
        }
        exchange.with_params(|params| {
            wsgi::put_right(params, Some(&self.file));
            self.fill(&scope, params)
        })?;
        Ok(scope)
    }
}

impl Scopes {
    fn fill(&self, scope: &Bound<'_, PyDict>, params: &Params) -> PyResult<()> {
        let py = scope.py();
        let get = |name: &str| params.get(name.as_bytes()).unwrap_or_default();
        let text = |bytes: &[u8]| ffi::latin1(py, bytes);
        let uri = params.get(b"REQUEST_URI").map(|uri| uri.split(|b| *b == b'?').next().unwrap_or_default());
        let (root_path, path) = paths(params, uri.unwrap_or_default());
        scope.set_item(intern!(py, "http_version"), http_version(py, get("SERVER_PROTOCOL")))?;
        scope.set_item(intern!(py, "method"), text(&get("REQUEST_METHOD").to_ascii_uppercase())?)?;
        scope.set_item(intern!(py, "scheme"), scheme(py, params)?)?;
        scope.set_item(intern!(py, "path"), String::from_utf8_lossy(&path))?;
        if let Some(uri) = uri {
            scope.set_item(intern!(py, "raw_path"), PyBytes::new(py, uri))?;
        }
        scope.set_item(intern!(py, "query_string"), PyBytes::new(py, get("QUERY_STRING")))?;
        scope.set_item(intern!(py, "root_path"), String::from_utf8_lossy(&root_path))?;
        scope.set_item(intern!(py, "headers"), self.headers(py, params)?)?;
        let address = |host: &str, port: &str| -> PyResult<Option<Bound<'_, PyAny>>> {
            let (host, port) = (get(host), get(port));
            if host.is_empty() {
                return Ok(None);
            }
            let port: Option<u16> = std::str::from_utf8(port).ok().and_then(|port| port.parse().ok());
            Ok(Some((text(host)?, port.unwrap_or_default()).into_pyobject(py)?.into_any()))
        };
        scope.set_item(intern!(py, "client"), address("REMOTE_ADDR", "REMOTE_PORT")?)?;
        scope.set_item(intern!(py, "server"), address("SERVER_NAME", "SERVER_PORT")?)
    }

    /// Pairs of a name in small letters and a value.
    fn headers<'py>(&self, py: Python<'py>, params: &Params) -> PyResult<Bound<'py, PyList>> {
        let list = PyList::empty(py);
        let known = &mut *self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut at = 0;
        for (variable, value) in params {
            let Some(name) = header_name(variable, value) else { continue };
            if known.get(at).is_none_or(|header| header.variable != variable || header.value != value) {
                let lower = |b: &u8| if *b == b'_' { b'-' } else { b.to_ascii_lowercase() };
                let name: Vec<u8> = name.iter().map(lower).collect();
                let pair = (PyBytes::new(py, &name), PyBytes::new(py, value)).into_pyobject(py)?.unbind();
                let header = Header { variable: variable.to_vec(), value: value.to_vec(), pair };
                match known.get_mut(at) {
                    Some(place) => *place = header,
                    None => known.push(header),
                }
            }
            list.append(&known[at].pair)?;
            at += 1;
        }
        known.truncate(at);
        Ok(list)
    }
}

/// The name of the header that a variable is made of; `None` when it is made of something else.
fn header_name<'a>(variable: &'a [u8], value: &[u8]) -> Option<&'a [u8]> {
    match variable {
        b"CONTENT_TYPE" | b"CONTENT_LENGTH" => (!value.is_empty()).then_some(variable),
        // They have variables of their own.
        b"HTTP_CONTENT_TYPE" | b"HTTP_CONTENT_LENGTH" => None,
        _ => variable.strip_prefix(b"HTTP_"),
    }
}

/// `root_path` and `path`: what stands before the application's own paths, and the whole path.
fn paths(params: &Params, uri: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let get = |name: &str| params.get(name.as_bytes()).unwrap_or_default();
    let (name, info) = (get("SCRIPT_NAME"), get("PATH_INFO"));
    if name.is_empty() && info.is_empty() {
        return (Vec::new(), percent_decoded(uri));
    }
    let name = name.strip_suffix(b"/").filter(|_| info.starts_with(b"/")).unwrap_or(name);
    (name.to_vec(), [name, info].concat())
}

/// As ASGI writes versions: "1.0", "1.1", "2".
fn http_version<'py>(py: Python<'py>, protocol: &[u8]) -> &'py Bound<'py, PyString> {
    match protocol {
        b"HTTP/1.0" => intern!(py, "1.0"),
        b"HTTP/2.0" | b"HTTP/2" => intern!(py, "2"),
        b"HTTP/3.0" | b"HTTP/3" => intern!(py, "3"),
        _ => intern!(py, "1.1"),
    }
}

fn scheme<'py>(py: Python<'py>, params: &Params) -> PyResult<Bound<'py, PyString>> {
    let is_secure = params
        .get(b"HTTPS")
        .is_some_and(|value| !value.is_empty() && !value.eq_ignore_ascii_case(b"off") && value != b"0");
    let scheme = if is_secure { b"https" } else { params.get(b"REQUEST_SCHEME").unwrap_or_default() };
    Ok(match scheme {
        b"" | b"http" => intern!(py, "http").clone(),
        b"https" => intern!(py, "https").clone(),
        other => ffi::latin1(py, &other.to_ascii_lowercase())?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::python::wsgi::put_right;

    fn split(pairs: &[(&str, &str)]) -> (String, String) {
        let mut params = Params::new();
        for (name, value) in pairs {
            params.set(name.as_bytes(), value.as_bytes());
        }
        let uri = params.get(b"REQUEST_URI").unwrap_or_default().to_vec();
        put_right(&mut params, Some(b"app.py"));
        let (root, path) = paths(&params, &uri);
        (String::from_utf8(root).unwrap(), String::from_utf8(path).unwrap())
    }

    #[test]
    fn paths_of_several_servers() {
        for (pairs, root, path) in [
            (&[("SCRIPT_NAME", "/app"), ("PATH_INFO", "/a b")][..], "/app", "/app/a b"),
            (&[("SCRIPT_NAME", ""), ("PATH_INFO", "/a")], "", "/a"),
            (&[("SCRIPT_NAME", "/"), ("PATH_INFO", "/a")], "", "/a"),
            (&[("SCRIPT_NAME", "/a/b")], "", "/a/b"),
            (&[("SCRIPT_NAME", "/a/app.py")], "/a/app.py", "/a/app.py"),
            (&[("SCRIPT_NAME", "/a/app.py"), ("PATH_INFO", "/b")], "/a/app.py", "/a/app.py/b"),
            (&[("REQUEST_URI", "/a%20b%")], "", "/a b%"),
        ] {
            assert_eq!(split(pairs), (root.to_owned(), path.to_owned()), "{pairs:?}");
        }
    }
}
