//! `--preload`: what workers are forked from loads the application, or what a script imports, and tells Python of each fork.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::os::unix::ffi::OsStrExt;

use fcgi_core::Setup;
use fcgi_core::fork::Moment;
use pyo3::ffi as c;
use pyo3::prelude::*;

use super::{application, ffi};

/// Loads what workers are to have in common. The interpreter has been started.
///
/// # Errors
/// When the application cannot be loaded.
pub fn preload(setup: &Setup) -> anyhow::Result<()> {
    let is_asgi = setup.option("interface").is_some_and(|interface| interface.as_bytes().starts_with(b"asgi"));
    Python::attach(|py| {
        let load = || -> PyResult<()> {
            let spec = setup.option("app").map(|spec| ffi::decode(py, spec.as_bytes())).transpose()?;
            let script = setup.script.as_ref().map(|script| ffi::decode(py, script.as_bytes())).transpose()?;
            py.import("fcgi._preload")?.getattr("preload")?.call1((spec, script, is_asgi))?;
            Ok(())
        };
        load().map_err(|e| {
            if !application::is_not_found(py, &e) {
                e.print(py);
            }
            anyhow::anyhow!("what workers share cannot be loaded: {}", e.value(py))
        })
    })
}

thread_local! {
    /// How the interpreter was held before the fork.
    static HELD: Cell<Option<c::PyGILState_STATE>> = const { Cell::new(None) };
}

/// Does what Python wants done around a fork (`PyOS_BeforeFork` and those that go with it).
pub fn around_fork(moment: Moment) {
    // SAFETY: the thread that forks takes the interpreter before it does, and lets go of it behind it, in both processes.
    unsafe {
        match moment {
            Moment::Before => {
                HELD.set(Some(c::PyGILState_Ensure()));
                c::PyOS_BeforeFork();
                return;
            }
            Moment::InParent => c::PyOS_AfterFork_Parent(),
            Moment::InChild => c::PyOS_AfterFork_Child(),
        }
        if let Some(held) = HELD.take() {
            c::PyGILState_Release(held);
        }
    }
}
