//! What belongs to the process: its environment (Python's `os.environ`, that of children and of C extensions), signal
//! handlers, umask, locale, working directory.
#![allow(unsafe_code)]

mod environment;

use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub(super) use environment::Environment;

/// Adds the functions of this file to the native module.
pub(super) fn add_to(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Signals>()?;
    module.add_function(wrap_pyfunction!(save_signals, module)?)?;
    module.add_function(wrap_pyfunction!(restore_signals, module)?)?;
    module.add_function(wrap_pyfunction!(umask, module)?)?;
    module.add_function(wrap_pyfunction!(set_umask, module)?)?;
    module.add_function(wrap_pyfunction!(locale, module)?)?;
    module.add_function(wrap_pyfunction!(set_locale, module)?)?;
    module.add_function(wrap_pyfunction!(current_directory, module)?)
}

/// The handlers that the system knows, which are not always those that Python knows.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Signals(Vec<(libc::c_int, libc::sigaction)>);

// SAFETY: a handler's address is good in any thread.
unsafe impl Send for Signals {}
// SAFETY: as above, and it never changes.
unsafe impl Sync for Signals {}

#[pymethods]
impl Signals {
    /// Whether a signal is handled as it was, or by nobody.
    fn holds(&self, number: libc::c_int) -> bool {
        // SAFETY: the call only fills what it is given.
        let now = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            libc::sigaction(number, std::ptr::null(), &raw mut action);
            action.sa_sigaction
        };
        now == libc::SIG_DFL || self.0.iter().any(|(known, action)| *known == number && action.sa_sigaction == now)
    }
}

/// The handlers as they are.
#[pyfunction]
fn save_signals() -> Signals {
    let one = |number| {
        // SAFETY: the call only fills what it is given; it fails for numbers that have no handler.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            (libc::sigaction(number, std::ptr::null(), &raw mut action) == 0).then_some((number, action))
        }
    };
    Signals((1..=libc::SIGRTMAX()).filter_map(one).collect())
}

/// Puts the handlers back.
#[pyfunction]
fn restore_signals(signals: &Bound<'_, Signals>) {
    for (number, action) in &signals.get().0 {
        // SAFETY: the action is one that the system gave.
        unsafe { libc::sigaction(*number, action, std::ptr::null_mut()) };
    }
}

/// The umask.
#[pyfunction]
fn umask() -> libc::mode_t {
    // SAFETY: neither call can fail. It can only be asked for by setting it.
    unsafe {
        let umask = libc::umask(0o077);
        libc::umask(umask);
        umask
    }
}

#[pyfunction]
fn set_umask(umask: libc::mode_t) {
    // SAFETY: this cannot fail.
    unsafe { libc::umask(umask) };
}

/// The names of the locale's categories.
#[pyfunction]
fn locale(py: Python<'_>) -> Py<PyBytes> {
    // SAFETY: without a name it only asks; the text is good until the next call, and the interpreter is held.
    let name = unsafe { std::ffi::CStr::from_ptr(libc::setlocale(libc::LC_ALL, std::ptr::null())) };
    PyBytes::new(py, name.to_bytes()).unbind()
}

#[pyfunction]
fn set_locale(name: &[u8]) -> PyResult<()> {
    let name = std::ffi::CString::new(name)?;
    // SAFETY: the name is a C string.
    unsafe { libc::setlocale(libc::LC_ALL, name.as_ptr()) };
    Ok(())
}

/// The working directory; `None` when it is no more.
#[pyfunction]
fn current_directory(py: Python<'_>) -> Option<Py<PyBytes>> {
    let mut buffer = [0_u8; libc::PATH_MAX as usize];
    // SAFETY: the buffer is as long as is said.
    let found = unsafe { libc::getcwd(buffer.as_mut_ptr().cast(), buffer.len()) };
    let path = std::ffi::CStr::from_bytes_until_nul(&buffer).ok().filter(|_| !found.is_null())?;
    Some(PyBytes::new(py, path.to_bytes()).unbind())
}
