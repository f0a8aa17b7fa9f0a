//! The native module `fcgi._fcgi` of the wheel.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _fcgi(module: &Bound<'_, PyModule>) -> PyResult<()> {
    fcgi::python::add_to(module)?;
    module.add_function(wrap_pyfunction!(main, module)?)
}

/// Does what the program `fcgi-python` does with a command line, whose first word is the program's name; gives the exit
/// status.
#[pyfunction]
fn main(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| fcgi_interpreters::run_with(&fcgi_interpreters::python(), words))
}
