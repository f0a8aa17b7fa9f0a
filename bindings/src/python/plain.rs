//! The embedded CPython: started as `python3` starts, on a terminal and under CGI as well as for a server.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, bail};
use fcgi_core::Setup;
use pyo3::ffi;
use pyo3::prelude::*;

use super::application;
use super::engine;
use super::executable;
use super::module::{self, sources};
use super::own;

/// Does what `python3` does with this command line; gives the exit status.
///
/// # Errors
/// When the interpreter cannot be started.
pub fn run(setup: &Setup) -> anyhow::Result<u8> {
    if setup.is_cgi && (setup.option("app").is_some() || application::may_be_in(setup)) {
        start(setup)?;
        let script = setup.script.clone().unwrap_or_default();
        return engine::answer_cgi(setup.clone(), Path::new(&script));
    }
    if setup.option("app").is_some() {
        bail!("nothing says where requests come from: give an address to listen on (--listen)");
    }
    forget_runtime();
    if let Some(status) = initialize(setup)? {
        return Ok(status);
    }
    install(setup, false)?;
    // SAFETY: the interpreter has just been initialized in this thread, which holds it.
    let status = unsafe { ffi::Py_RunMain() };
    Ok(if status == 0 { own::wanted_status() } else { status as u32 } as u8)
}

/// Starts the interpreter for a server, in the calling thread, which lets go of it.
///
/// # Errors
/// When the interpreter cannot be started, or its options want something else than to serve.
pub fn start(setup: &Setup) -> anyhow::Result<()> {
    if let Some(status) = initialize(setup)? {
        bail!("the interpreter's options end it with status {status}");
    }
    install(setup, true)?;
    engine::name_main_thread(setup)?;
    // SAFETY: this thread holds the interpreter since it was initialized; the function is called once, at the end.
    unsafe {
        ffi::PyEval_SaveThread();
        libc::atexit(finalize);
    }
    Ok(())
}

fn install(setup: &Setup, first: bool) -> anyhow::Result<()> {
    let installed = Python::attach(|py| sources::install(py, first).and_then(|()| module::offer(py, setup)));
    installed.map_err(|e| anyhow::anyhow!("the package fcgi: {e}"))
}

/// Which of the descriptors 0, 1 and 2 were closed when the program was started, as bits.
static CLOSED: AtomicU8 = AtomicU8::new(0);

/// Called before Rust's runtime begins, which opens them.
#[used]
#[unsafe(link_section = ".init_array")]
static LOOK_FOR_CLOSED: extern "C" fn() = {
    extern "C" fn look() {
        for number in 0..3 {
            // SAFETY: no memory is involved.
            if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
                CLOSED.fetch_or(1 << number, Ordering::Relaxed);
            }
        }
    }
    look
};

/// Undoes what Rust's runtime has done to the process. Its handlers for faults would let it survive one that is only sent.
fn forget_runtime() {
    for number in 0..3 {
        if CLOSED.load(Ordering::Relaxed) & 1 << number != 0 {
            // SAFETY: no memory is involved, and nobody owns what stands there in place of nothing.
            unsafe { libc::close(number) };
        }
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        // SAFETY: no memory is involved. A fault that was ignored when the program was started has no handler of Rust's.
        unsafe {
            if libc::signal(signal, libc::SIG_DFL) == libc::SIG_IGN {
                libc::signal(signal, libc::SIG_IGN);
            }
        }
    }
}

/// Ends the interpreter with the process, as `python3` does: functions of `atexit` are called.
extern "C" fn finalize() {
    // SAFETY: the interpreter was started, and nobody holds it for ever. A child that a script has forked ends otherwise.
    unsafe {
        if ffi::Py_IsInitialized() != 0 {
            ffi::PyGILState_Ensure();
            ffi::Py_FinalizeEx();
        }
    }
}

/// The version of the interpreter.
pub fn version() -> String {
    // SAFETY: a static string, which is there without an interpreter.
    let text = unsafe { std::ffi::CStr::from_ptr(ffi::Py_GetVersion()) }.to_string_lossy();
    format!("Python {}", text.split(' ').next().unwrap_or_default())
}

/// Initializes the interpreter with a command line as its own; gives an exit status when that is all there is to do.
fn initialize(setup: &Setup) -> anyhow::Result<Option<u8>> {
    let program = setup.program.clone();
    let mut words = vec![program];
    words.extend(setup.own.iter().cloned());
    words.extend(setup.own_ended.then(|| OsString::from("--")));
    words.extend(setup.script.iter().cloned());
    words.extend(setup.arguments.iter().cloned());
    let words: Vec<CString> = words.iter().map(|w| c_string(w)).collect::<anyhow::Result<_>>()?;
    let pointers: Vec<*mut std::ffi::c_char> = words.iter().map(|w| w.as_ptr().cast_mut()).collect();
    let count = pointers.len() as ffi::Py_ssize_t;
    let executable = executable::find(&version());
    if let (None, Some(why)) = (&executable, executable::why_missing()) {
        eprintln!("{}: {why}", setup.program.display());
    }
    let executable = executable.map(|path| c_string(path.as_os_str())).transpose()?;
    // SAFETY: the configurations are initialized before they are used and cleared after; the strings outlive the calls.
    unsafe {
        let mut before: ffi::PyPreConfig = std::mem::zeroed();
        ffi::PyPreConfig_InitPythonConfig(&raw mut before);
        let arguments = pointers.as_ptr().cast_mut();
        let end = ended(ffi::Py_PreInitializeFromBytesArgs(&raw const before, count, arguments.cast()));
        if end.is_some() {
            return Ok(end);
        }
        let mut config: ffi::PyConfig = std::mem::zeroed();
        ffi::PyConfig_InitPythonConfig(&raw mut config);
        let mut end = ended(ffi::PyConfig_SetBytesArgv(&raw mut config, count, arguments.cast()));
        if let (None, Some(executable)) = (end, executable) {
            let field = &raw mut config.executable;
            end = ended(ffi::PyConfig_SetBytesString(&raw mut config, field, executable.as_ptr()));
        }
        let end = end.or_else(|| ended(ffi::Py_InitializeFromConfig(&raw const config)));
        ffi::PyConfig_Clear(&raw mut config);
        Ok(end)
    }
}

/// What an initializing function says: to go on, or to end with a status. On an error it ends as `python3` does.
fn ended(status: ffi::PyStatus) -> Option<u8> {
    // SAFETY: the status is one that Python gave.
    unsafe {
        if ffi::PyStatus_IsExit(status) != 0 {
            return Some(status.exitcode as u8);
        }
        if ffi::PyStatus_Exception(status) != 0 {
            ffi::Py_ExitStatusException(status);
        }
    }
    None
}

fn c_string(text: &OsStr) -> anyhow::Result<CString> {
    CString::new(text.as_bytes()).context("an argument contains NUL")
}
