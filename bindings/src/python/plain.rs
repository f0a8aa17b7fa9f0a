//! The embedded CPython: started as `python3` starts, on a terminal and under CGI as well as for a server.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::{Context, bail};
use fcgi_core::Setup;
use pyo3::ffi;
use pyo3::prelude::*;

use super::application;
use super::engine;
use super::module::sources;

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
    if let Some(status) = initialize(setup)? {
        return Ok(status);
    }
    // SAFETY: the interpreter has just been initialized in this thread, which holds it.
    let status = unsafe {
        Python::attach(sources::install).map_err(|e| anyhow::anyhow!("the package fcgi: {e}"))?;
        ffi::Py_RunMain()
    };
    Ok(status as u8)
}

/// Starts the interpreter for a server, in the calling thread, which lets go of it.
///
/// # Errors
/// When the interpreter cannot be started, or its options want something else than to serve.
pub fn start(setup: &Setup) -> anyhow::Result<()> {
    if let Some(status) = initialize(setup)? {
        bail!("the interpreter's options end it with status {status}");
    }
    Python::attach(sources::install).map_err(|e| anyhow::anyhow!("the package fcgi: {e}"))?;
    // SAFETY: this thread holds the interpreter since it was initialized; the function is called once, at the end.
    unsafe {
        ffi::PyEval_SaveThread();
        libc::atexit(finalize);
    }
    Ok(())
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
    // SAFETY: the configurations are initialized before they are used and cleared after; the strings outlive the calls.
    unsafe {
        let mut before: ffi::PyPreConfig = std::mem::zeroed();
        ffi::PyPreConfig_InitPythonConfig(&raw mut before);
        if let Some(end) =
            ended(ffi::Py_PreInitializeFromBytesArgs(&raw const before, count, pointers.as_ptr().cast_mut().cast()))?
        {
            return Ok(Some(end));
        }
        let mut config: ffi::PyConfig = std::mem::zeroed();
        ffi::PyConfig_InitPythonConfig(&raw mut config);
        let result = (|| {
            if let Some(end) =
                ended(ffi::PyConfig_SetBytesArgv(&raw mut config, count, pointers.as_ptr().cast_mut().cast()))?
            {
                return Ok(Some(end));
            }
            if let Some(executable) = executable() {
                let executable = c_string(executable.as_os_str())?;
                let field = &raw mut config.executable;
                if let Some(end) = ended(ffi::PyConfig_SetBytesString(&raw mut config, field, executable.as_ptr()))? {
                    return Ok(Some(end));
                }
            }
            ended(ffi::Py_InitializeFromConfig(&raw const config))
        })();
        ffi::PyConfig_Clear(&raw mut config);
        result
    }
}

/// What an initializing function says: go on, end with a status, or an error.
fn ended(status: ffi::PyStatus) -> anyhow::Result<Option<u8>> {
    // SAFETY: the status is one that Python gave; its message is a static string.
    unsafe {
        if ffi::PyStatus_IsExit(status) != 0 {
            return Ok(Some(status.exitcode as u8));
        }
        if ffi::PyStatus_Exception(status) != 0 {
            let message = if status.err_msg.is_null() {
                "it does not say why".into()
            } else {
                std::ffi::CStr::from_ptr(status.err_msg).to_string_lossy()
            };
            bail!("Python cannot be started: {message}");
        }
    }
    Ok(None)
}

fn c_string(text: &OsStr) -> anyhow::Result<CString> {
    CString::new(text.as_bytes()).context("an argument contains NUL")
}

/// The `python3` whose place this program takes: of the virtual environment that is active or that this program lies in,
/// or the one that it was built with. Scripts find it as `sys.executable`, which they can start; and from where it lies
/// CPython finds its library and the environment's packages.
fn executable() -> Option<PathBuf> {
    let of = |bin: &Path| {
        let python = bin.join("python3");
        python.is_file().then_some(python)
    };
    let active = std::env::var_os("VIRTUAL_ENV").filter(|v| !v.is_empty());
    let active = active.map(PathBuf::from).filter(|v| v.join("pyvenv.cfg").is_file());
    let own = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.to_owned()));
    let own = own.filter(|bin| bin.parent().is_some_and(|v| v.join("pyvenv.cfg").is_file()));
    active
        .and_then(|v| of(&v.join("bin")))
        .or_else(|| own.and_then(|bin| of(&bin)))
        .or_else(|| BUILT_WITH.get().map(PathBuf::from).filter(|python| python.is_file()))
}

static BUILT_WITH: OnceLock<&str> = OnceLock::new();

/// Says which `python3` the program was built with.
pub fn built_with(executable: &'static str) {
    let _ = BUILT_WITH.set(executable);
}
