//! What belongs to the process: its environment (Python's `os.environ`, that of children and of C extensions), signal
//! handlers, umask, locale, working directory.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::ffi::{OsString, c_char};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, PoisonError};

use fcgi_core::Params;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// The process's environment, and that of the request that runs, which is overlaid by its variables.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Environment {
    base: Vec<(Vec<u8>, Vec<u8>)>,
    base_names: HashSet<Vec<u8>>,
    base_dict: Py<PyDict>,
    /// The C library has the request's environment, too: only one request runs at a time.
    is_process: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Names and values of the last request: most are those of the next, too.
    pairs: Vec<Pair>,
    /// Some of these names are also those of the process.
    overlaid: bool,
    block: Block,
    /// Another thread may still look something up in it.
    previous: Block,
    /// The application whose environment it is, by the address of its dictionary.
    owner: Option<usize>,
}

/// A name and a value, each with its object.
type Pair = (Vec<u8>, Py<PyBytes>, Vec<u8>, Py<PyBytes>);

/// What `environ` points to.
#[derive(Default)]
struct Block {
    text: Vec<u8>,
    pointers: Vec<*const c_char>,
}

// SAFETY: the pointers point into the block's own text.
unsafe impl Send for Block {}

impl Block {
    fn push(&mut self, name: &[u8], value: &[u8], starts: &mut Vec<usize>) {
        starts.push(self.text.len());
        self.text.extend_from_slice(name);
        self.text.push(b'=');
        self.text.extend_from_slice(value);
        self.text.push(0);
    }

    fn finish(&mut self, starts: &[usize]) {
        self.pointers.clear();
        self.pointers.extend(starts.iter().map(|start| self.text[*start..].as_ptr().cast::<c_char>()));
        self.pointers.push(std::ptr::null());
    }
}

/// What can be in an environment.
fn fits(name: &[u8], value: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0)
}

impl Environment {
    /// The environment as the process has it now.
    pub(super) fn new(py: Python<'_>, is_process: bool) -> PyResult<Self> {
        let bytes = |text: OsString| text.into_vec();
        let base: Vec<_> = std::env::vars_os().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let base_dict = PyDict::new(py);
        for (name, value) in &base {
            base_dict.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
        }
        let base_names = base.iter().map(|(name, _)| name.clone()).collect();
        Ok(Self { base, base_names, base_dict: base_dict.unbind(), is_process, state: Mutex::default() })
    }

    /// Makes a request's environment that of the process; gives it as Python keeps it.
    pub(super) fn enter<'py>(&self, py: Python<'py>, params: &Params) -> PyResult<Bound<'py, PyDict>> {
        let dict = self.base_dict.bind(py).copy()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { pairs, overlaid, block, previous, owner } = &mut *state;
        *owner = None;
        std::mem::swap(block, previous);
        block.text.clear();
        let mut starts = Vec::with_capacity(self.base.len() + params.len());
        let same_names = params.len() == pairs.len() && params.iter().zip(pairs.iter()).all(|(p, pair)| p.0 == pair.0);
        if !same_names {
            *overlaid = params.iter().any(|(name, _)| self.base_names.contains(name));
        }
        for (name, value) in &self.base {
            if !*overlaid || params.get(name).is_none() {
                block.push(name, value, &mut starts);
            }
        }
        let mut count = 0;
        for (at, (name, value)) in params.iter().filter(|(n, v)| fits(n, v)).enumerate() {
            block.push(name, value, &mut starts);
            if pairs.len() <= at {
                pairs.push((
                    name.to_vec(),
                    PyBytes::new(py, name).unbind(),
                    value.to_vec(),
                    PyBytes::new(py, value).unbind(),
                ));
            }
            let pair = &mut pairs[at];
            if pair.0 != name {
                (pair.0, pair.1) = (name.to_vec(), PyBytes::new(py, name).unbind());
            }
            if pair.2 != value {
                (pair.2, pair.3) = (value.to_vec(), PyBytes::new(py, value).unbind());
            }
            dict.set_item(&pair.1, &pair.3)?;
            count = at + 1;
        }
        pairs.truncate(count);
        block.finish(&starts);
        if self.is_process {
            // SAFETY: the block lives as long as this object, and until the request after the next one.
            unsafe { environ = block.pointers.as_ptr() };
        }
        Ok(dict)
    }

    /// What an application keeps of the environment that its script ran in: all but the request's variables. What the script
    /// has set stays, such as where the settings are.
    pub(super) fn of_application(&self, py: Python<'_>, current: &Bound<'_, PyDict>) -> PyResult<Py<PyDict>> {
        let kept = current.copy()?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, key, _, value) in &state.pairs {
            // Who sets a variable sets another object.
            if kept.get_item(key)?.is_some_and(|now| now.is(value)) {
                match self
                    .base_names
                    .contains(name)
                    .then(|| self.base_dict.bind(py).get_item(key))
                    .transpose()?
                    .flatten()
                {
                    Some(own) => kept.set_item(key, own)?,
                    None => kept.del_item(key)?,
                }
            }
        }
        Ok(kept.unbind())
    }

    /// Makes an application's environment that of the process, unless it is.
    pub(super) fn enter_application(&self, py: Python<'_>, dict: &Py<PyDict>) -> PyResult<()> {
        if !self.is_process {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { block, previous, owner, .. } = &mut *state;
        let address = dict.as_ptr() as usize;
        if *owner == Some(address) {
            return Ok(());
        }
        std::mem::swap(block, previous);
        block.text.clear();
        let mut starts = Vec::new();
        for (name, value) in dict.bind(py).iter() {
            let (name, value): (&[u8], &[u8]) = (name.extract()?, value.extract()?);
            if fits(name, value) {
                block.push(name, value, &mut starts);
            }
        }
        block.finish(&starts);
        *owner = Some(address);
        // SAFETY: as above.
        unsafe { environ = block.pointers.as_ptr() };
        Ok(())
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // `environ` goes on pointing there, and so does what the C library has copied of it: at the end of the process, it is
        // asked once more.
        let State { block, previous, .. } =
            std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        std::mem::forget((block, previous));
    }
}

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
