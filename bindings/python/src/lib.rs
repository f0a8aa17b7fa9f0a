//! The native module `fcgi._fcgi` of the wheel.
#![forbid(unsafe_code)]

use std::ffi::OsString;

use fcgi_interpreters::Language;
use pyo3::prelude::*;

#[pymodule(gil_used = false)]
fn _fcgi(module: &Bound<'_, PyModule>) -> PyResult<()> {
    fcgi::python::add_to(module)?;
    module.add_function(wrap_pyfunction!(command, module)?)?;
    module.add_function(wrap_pyfunction!(main, module)?)
}

/// Does what the program `fcgi-python` does with a command line, whose first word is the program's name, and which is that
/// of this process; gives the exit status.
#[pyfunction]
fn command(py: Python<'_>, words: Vec<OsString>) -> u8 {
    let language = Language { afresh: Some(fcgi::python::afresh), ..fcgi_interpreters::python() };
    py.detach(|| fcgi_interpreters::run_with(&language, words))
}

/// As `command`, in a program that has come to it: it is not started anew for options of the interpreter.
#[pyfunction]
fn main(py: Python<'_>, words: Vec<OsString>) -> u8 {
    py.detach(|| fcgi_interpreters::run_with(&fcgi_interpreters::python(), words))
}
