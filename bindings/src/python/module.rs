//! The native module behind the package `fcgi`.

use fcgi_core::Setup;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::accept;
use super::application;
use super::channel::{self, Channel};
use super::isolation::{self, Snapshot};
use super::process::{self, Environment};
use super::request::Request;
use super::stdio::{Flush, Stdio};
use super::traces::Traces;
use super::turn::Turn;
use super::{asgi, builtin, descriptors, ffi, own, reload, timeout};

/// Adds what the package `fcgi` needs to its native module.
///
/// # Errors
/// When Python has no memory for it.
pub fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<Request>()?;
    module.add_class::<Snapshot>()?;
    module.add_class::<Environment>()?;
    module.add_class::<Traces>()?;
    module.add_class::<Turn>()?;
    module.add_function(wrap_pyfunction!(isolation::restore_all, module)?)?;
    module.add_function(wrap_pyfunction!(isolation::clear_module, module)?)?;
    module.add_function(wrap_pyfunction!(isolation::others, module)?)?;
    module.add_function(wrap_pyfunction!(builtin::builtin, module)?)?;
    module.add_function(wrap_pyfunction!(run, module)?)?;
    module.add_function(wrap_pyfunction!(forked, module)?)?;
    module.add_function(wrap_pyfunction!(is_forked, module)?)?;
    module.add_function(wrap_pyfunction!(audited, module)?)?;
    module.add_function(wrap_pyfunction!(is_audited, module)?)?;
    module.add_function(wrap_pyfunction!(interrupt, module)?)?;
    module.add("RequestTimeout", py.get_type::<timeout::RequestTimeout>())?;
    module.add_function(wrap_pyfunction!(limited, module)?)?;
    module.add_class::<Stdio>()?;
    module.add_class::<Flush>()?;
    module.add_class::<Channel>()?;
    module.add_function(wrap_pyfunction!(channel::not_with_threads, module)?)?;
    module.add_function(wrap_pyfunction!(accept::accept, module)?)?;
    module.add_function(wrap_pyfunction!(accept::current, module)?)?;
    module.add_function(wrap_pyfunction!(accept::next_request, module)?)?;
    module.add_function(wrap_pyfunction!(accept::finish, module)?)?;
    module.add_function(wrap_pyfunction!(accept::set_exit_status, module)?)?;
    module.add_function(wrap_pyfunction!(own::serve_at, module)?)?;
    module.add_function(wrap_pyfunction!(own::end, module)?)?;
    module.add_function(wrap_pyfunction!(application::answer_all, module)?)?;
    asgi::add_to(module)?;
    process::add_to(module)
}

/// Runs compiled code with these globals; no frame of ours is below it.
#[pyfunction]
fn run<'py>(code: &Bound<'py, PyAny>, globals: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    ffi::eval(code, globals)
}

/// Says that code of the script's runs, for which the time limit holds, or (`false`) code of ours.
#[pyfunction]
fn limited(limited: bool) -> bool {
    timeout::arm(limited)
}

/// Says that this process was forked off by a script.
#[pyfunction]
fn forked() {
    descriptors::forked();
    accept::forget();
}

/// Whether this process was forked off by a script.
#[pyfunction]
fn is_forked() -> bool {
    descriptors::is_forked()
}

/// Notes something that a script has changed (`--audit`).
#[pyfunction]
fn audited(what: String, stays: bool) {
    fcgi_core::audit::found(what, stays);
}

/// Whether what the request leaves behind is to be found.
#[pyfunction]
fn is_audited() -> bool {
    fcgi_core::audit::is_wanted()
}

/// Lets a thread meet an exception at its next instruction.
#[pyfunction]
fn interrupt(thread: std::ffi::c_ulong, exception: &Bound<'_, PyAny>) {
    ffi::interrupt(thread, exception);
}

/// Gives scripts what their command line says that they need: flup's names (`--flup`), modules as they are now (`--reload`).
pub(super) fn offer(py: Python<'_>, setup: &Setup) -> PyResult<()> {
    reload::start(py, setup)?;
    if setup.option("flup").is_some() {
        py.import("fcgi._flup")?.getattr("offer")?.call0()?;
    }
    Ok(())
}

/// The package's sources, which the program carries inside; the wheel installs them as files.
#[cfg(not(feature = "python-extension"))]
pub(super) mod sources {
    use pyo3::prelude::*;
    use pyo3::types::PyDict;

    /// Name, whether it is a package, source.
    const SOURCES: &[(&str, bool, &str)] = &[
        ("fcgi", true, include_str!("../../python/fcgi/__init__.py")),
        ("fcgi._asgi", false, include_str!("../../python/fcgi/_asgi.py")),
        ("fcgi._script", false, include_str!("../../python/fcgi/_script.py")),
        ("fcgi._application", false, include_str!("../../python/fcgi/_application.py")),
        ("fcgi._audit", false, include_str!("../../python/fcgi/_audit.py")),
        ("fcgi._effects", false, include_str!("../../python/fcgi/_effects.py")),
        ("fcgi._ends", false, include_str!("../../python/fcgi/_ends.py")),
        ("fcgi._exits", false, include_str!("../../python/fcgi/_exits.py")),
        ("fcgi._files", false, include_str!("../../python/fcgi/_files.py")),
        ("fcgi._flup", false, include_str!("../../python/fcgi/_flup.py")),
        ("fcgi._forked", false, include_str!("../../python/fcgi/_forked.py")),
        ("fcgi._isolation", false, include_str!("../../python/fcgi/_isolation.py")),
        ("fcgi._lifespan", false, include_str!("../../python/fcgi/_lifespan.py")),
        ("fcgi._loop", false, include_str!("../../python/fcgi/_loop.py")),
        ("fcgi._modules", false, include_str!("../../python/fcgi/_modules.py")),
        ("fcgi._preload", false, include_str!("../../python/fcgi/_preload.py")),
        ("fcgi._reload", false, include_str!("../../python/fcgi/_reload.py")),
        ("fcgi._serve", false, include_str!("../../python/fcgi/_serve.py")),
        ("fcgi.flup", false, include_str!("../../python/fcgi/flup.py")),
        ("fcgi._signals", false, include_str!("../../python/fcgi/_signals.py")),
        ("fcgi._source", false, include_str!("../../python/fcgi/_source.py")),
        ("fcgi._streams", false, include_str!("../../python/fcgi/_streams.py")),
        ("fcgi._notes", false, include_str!("../../python/fcgi/_notes.py")),
        ("fcgi._removed", false, include_str!("../../python/fcgi/_removed.py")),
        ("fcgi._current", false, include_str!("../../python/fcgi/_current.py")),
        ("fcgi._own_descriptors", false, include_str!("../../python/fcgi/_own_descriptors.py")),
        ("fcgi._own_modules", false, include_str!("../../python/fcgi/_own_modules.py")),
        ("fcgi._own_streams", false, include_str!("../../python/fcgi/_own_streams.py")),
        ("fcgi._settings", false, include_str!("../../python/fcgi/_settings.py")),
        ("fcgi._shared", false, include_str!("../../python/fcgi/_shared.py")),
        ("fcgi._threads", false, include_str!("../../python/fcgi/_threads.py")),
        ("fcgi._wsgi", false, include_str!("../../python/fcgi/_wsgi.py")),
    ];

    /// Lets Python find the package: before all others, or, where Python is to be as it is, after them.
    ///
    /// # Errors
    /// When Python has no memory for it.
    pub(crate) fn install(py: Python<'_>, first: bool) -> PyResult<()> {
        let sources = PyDict::new(py);
        for (name, is_package, source) in SOURCES {
            sources.set_item(name, (is_package, source))?;
        }
        let finder = PyDict::new(py);
        finder.set_item("SOURCES", sources)?;
        finder.set_item("PLACE", if first { 0 } else { usize::from(u16::MAX) })?;
        finder.set_item("native", wrap_pyfunction!(native, py)?)?;
        let code = std::ffi::CString::new(include_str!("finder.py")).expect("a source without NUL");
        py.run(&code, Some(&finder), None)
    }

    /// The native module, made when it is first imported.
    #[pyfunction]
    fn native(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
        let module = PyModule::new(py, "fcgi._fcgi")?;
        super::add_to(&module)?;
        Ok(module)
    }
}
