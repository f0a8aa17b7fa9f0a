//! `--reload`: modules of a script's or an application's own directory are loaded anew when their files change. The package's
//! `_reload` knows them; here it is asked when a request comes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use fcgi_core::Setup;
use pyo3::prelude::*;

use super::ffi;

/// Asks whether modules have changed; where that is not wanted, nothing does.
#[derive(Default)]
pub(super) struct Reload {
    look: Option<Look>,
}

struct Look {
    of_script: Py<PyAny>,
    of_application: Py<PyAny>,
}

/// Whether modules are to be loaded anew when they change.
pub(super) fn is_wanted(setup: &Setup) -> bool {
    setup.option("reload").is_some()
}

/// Notes from now on how the files of modules are, if that is wanted.
pub(super) fn start(py: Python<'_>, setup: &Setup) -> PyResult<()> {
    if is_wanted(setup) {
        py.import("fcgi._reload")?.getattr("start")?.call0()?;
    }
    Ok(())
}

impl Reload {
    pub(super) fn new(py: Python<'_>, setup: &Setup) -> PyResult<Self> {
        if !is_wanted(setup) {
            return Ok(Self::default());
        }
        let module = py.import("fcgi._reload")?;
        let function = |name| module.getattr(name).map(Bound::unbind);
        let look = Look { of_script: function("of_script")?, of_application: function("of_application")? };
        Ok(Self { look: Some(look) })
    }

    /// Which generation of modules a script's request finds. What has changed has been forgotten.
    pub(super) fn of_script(&self, script: &Path) -> u64 {
        let Some(look) = &self.look else { return 0 };
        Python::attach(|py| {
            let path = ffi::decode(py, script.as_os_str().as_bytes());
            generation(py, path.and_then(|path| look.of_script.bind(py).call1((path,))))
        })
    }

    /// Which generation of modules a request to the application of the command line finds.
    pub(super) fn of_application(&self, py: Python<'_>) -> u64 {
        self.look.as_ref().map_or(0, |look| generation(py, look.of_application.bind(py).call0()))
    }
}

fn generation(py: Python<'_>, answer: PyResult<Bound<'_, PyAny>>) -> u64 {
    answer.and_then(|number| number.extract()).unwrap_or_else(|e: PyErr| {
        e.print(py);
        0
    })
}
