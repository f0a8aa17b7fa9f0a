//! Scripts and applications whose requests run in child processes (`--isolation fork`). The interpreter that they are forked
//! from is as `python3` starts it: nothing of its library is replaced, for nothing has to be put back.
#![allow(unsafe_code)]

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use fcgi_core::fork::{Forking, Ground, Moment, Report, Warm};
use fcgi_core::script::Cache;
use fcgi_core::{Interpreter, Setup};
use pyo3::exceptions::{PyKeyboardInterrupt, PyModuleNotFoundError};
use pyo3::ffi as c;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use super::application::{self, Named};
use super::{engine, ffi, own};

/// The exit status of a process whose streams could not be flushed at its end.
const NOT_FLUSHED: u8 = 120;

/// The interpreter that children are forked from.
struct Forked {
    setup: Setup,
    /// Methods of an object of the class `Forked` of `fcgi._forked`.
    object: Py<PyAny>,
    code: Cache<Py<PyAny>>,
    /// The code of the script that comes next; without it, the child says what is wrong with it.
    next: Option<Py<PyAny>>,
    /// The application that the command line names.
    named: Option<Named>,
    attached: Option<c::PyGILState_STATE>,
}

/// Makes what serves the requests of a process by children.
///
/// # Errors
/// When the application cannot be loaded, or the system has no memory for us.
pub(super) fn interpreter(setup: &Setup, make_named: Named_) -> anyhow::Result<Box<dyn Interpreter>> {
    let ground = Ground::new(setup)?;
    // Each child is a CGI program: it has one request.
    let setup = Setup { is_cgi: true, shared_process: false, several_processes: true, ..setup.clone() };
    ffi::keep_thread_state();
    let named = make_named(&setup)?;
    let object = Python::attach(|py| make(py, &setup).map_err(|e| engine::not_ready(py, &e)))?;
    let warm = Forked { setup, object, code: Cache::default(), next: None, named, attached: None };
    Ok(Box::new(Forking::new(ground, warm)))
}

/// What loads the application that the command line names.
type Named_ = fn(&Setup) -> anyhow::Result<Option<Named>>;

fn make(py: Python<'_>, setup: &Setup) -> PyResult<Py<PyAny>> {
    // What every Python has loaded, before anything of ours is.
    let at_start = py.import("sys")?.getattr("modules")?.call_method0("copy")?;
    let arguments: PyResult<Vec<_>> = setup.arguments.iter().map(|text| ffi::decode(py, text.as_bytes())).collect();
    Ok(py.import("fcgi._forked")?.getattr("Forked")?.call1((arguments?, at_start))?.unbind())
}

impl Forked {
    /// Runs the script in this child; gives the exit status that its interpreter is to end with.
    fn run_script(&mut self, py: Python<'_>, script: &Path, report: &Report) -> PyResult<u8> {
        let environment = PyDict::new(py);
        for (name, value) in std::env::vars_os() {
            environment.set_item(PyBytes::new(py, &name.into_vec()), PyBytes::new(py, &value.into_vec()))?;
        }
        let path = ffi::decode(py, script.as_os_str().as_bytes())?;
        let object = self.object.bind(py);
        let globals = object.call_method1("begin", (&path, environment))?.cast_into::<PyDict>()?;
        let code = match self.next.take() {
            Some(code) => Ok(code.into_bound(py)),
            None => object.call_method1("compile", (path,)).map_err(|e| ffi::without_frames(py, e)),
        };
        // The frames of this program are not below it.
        let ran = code.and_then(|code| ffi::eval(&code, &globals));
        for name in object.call_method0("loaded")?.extract::<Vec<String>>()? {
            report.add(name.as_bytes());
        }
        drop(globals);
        let Err(e) = ran else { return Ok(own::wanted_status() as u8) };
        let interrupted = e.is_instance_of::<PyKeyboardInterrupt>(py);
        let missing = e.is_instance_of::<PyModuleNotFoundError>(py).then(|| e.value(py).clone().unbind());
        e.restore(py);
        // SAFETY: an exception is set. For SystemExit this ends the process, as in `python3`.
        unsafe { c::PyErr_Print() };
        if let Some(missing) = missing {
            py.import("fcgi._removed")?.getattr("hint")?.call1((missing,))?;
        }
        if interrupted {
            finalize();
            interrupt();
        }
        Ok(1)
    }

    /// Gives the child the handlers of signals that a CGI program begins with: an application hears of a client that has left
    /// by an exception.
    fn take_signals(&self, py: Python<'_>) {
        if let Err(e) = self.object.bind(py).call_method0("take_signals") {
            e.print(py);
        }
    }

    fn run_any(&mut self, py: Python<'_>, script: &Path, report: &Report) -> u8 {
        if self.named.is_some() {
            self.take_signals(py);
        }
        if let Some(named) = &mut self.named {
            return named.answer(fcgi_core::cgi::request()) as u8;
        }
        let of_script = Setup { script: Some(script.into()), ..self.setup.clone() };
        if application::may_be_in(&of_script) {
            self.take_signals(py);
            return py.detach(|| engine::answer_cgi(of_script, script)).unwrap_or_else(|e| {
                eprintln!("{}: {e:#}", self.setup.program.display());
                1
            });
        }
        self.run_script(py, script, report).unwrap_or_else(|e| {
            e.print(py);
            1
        })
    }
}

impl Warm for Forked {
    fn prepare(&mut self, script: &Path) {
        if self.named.is_some() {
            return;
        }
        let Self { object, code, next, .. } = self;
        *next = Python::attach(|py| {
            let compile = |path: &Path| -> PyResult<Py<PyAny>> {
                let path = ffi::decode(py, path.as_os_str().as_bytes())?;
                Ok(object.bind(py).call_method1("compile", (path,))?.unbind())
            };
            code.get(script, compile).ok().map(|code| code.clone_ref(py))
        });
    }

    fn fork(&mut self, moment: Moment) {
        // SAFETY: the interpreter is held from before the fork until it is over, in the child for ever.
        unsafe {
            match moment {
                Moment::Before => {
                    self.attached = Some(c::PyGILState_Ensure());
                    c::PyOS_BeforeFork();
                }
                Moment::InParent => {
                    c::PyOS_AfterFork_Parent();
                    if let Some(state) = self.attached.take() {
                        c::PyGILState_Release(state);
                    }
                }
                Moment::InChild => c::PyOS_AfterFork_Child(),
            }
        }
    }

    fn run(&mut self, script: &Path, report: &Report) -> u8 {
        let status = Python::attach(|py| self.run_any(py, script, report));
        if finalize() { status } else { NOT_FLUSHED }
    }

    fn preload(&mut self, reported: &[Vec<u8>]) {
        let names: Vec<&str> = reported.iter().filter_map(|name| std::str::from_utf8(name).ok()).collect();
        Python::attach(|py| {
            if let Err(e) = self.object.bind(py).call_method1("preload", (names,)) {
                tracing::warn!("modules of the library cannot be loaded beforehand: {e}");
            }
        });
    }
}

/// Ends the interpreter, as at the end of `python3`: threads are waited for, functions of `atexit` called. False when the
/// streams could not be flushed.
fn finalize() -> bool {
    // SAFETY: this thread holds the interpreter, and nothing of Python's is used afterwards.
    unsafe { c::Py_FinalizeEx() == 0 }
}

/// Ends the process by SIGINT, as `python3` ends by an exception KeyboardInterrupt.
fn interrupt() {
    // SAFETY: no memory is involved.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
        libc::kill(libc::getpid(), libc::SIGINT);
    }
}
