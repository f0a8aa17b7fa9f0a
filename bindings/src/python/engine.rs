//! The interpreter of one thread: scripts and applications for one request after the other.

use std::cell::RefCell;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;

use fcgi_core::interpreter::{Isolation, Requests, Setup};
use fcgi_core::script::Cache;
use fcgi_core::{Interpreter, Request as CoreRequest};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::process::Environment;
use super::request::Request;
use super::{ffi, stdio};

/// What serves the requests of one thread.
pub struct Engine {
    setup: Setup,
    /// An object of the class `Script` of `fcgi._script`.
    runner: Py<PyAny>,
    environment: Py<Environment>,
    code: Cache<Py<PyAny>>,
}

impl Engine {
    /// Makes ready to serve, in this thread; the interpreter has been started.
    ///
    /// # Errors
    /// When the system has no pipes for us, or an option is not for Python.
    pub fn new(setup: Setup) -> anyhow::Result<Self> {
        if setup.isolation == Isolation::State {
            anyhow::bail!("--isolation state is for Lua: Python cannot be started anew for each request");
        }
        if setup.memory_limit.is_some() {
            anyhow::bail!(
                "--memory-limit is for Lua: limit a Python worker from outside (systemd's MemoryMax, ulimit -v)"
            );
        }
        ffi::keep_thread_state();
        if !setup.shared_process {
            stdio::take_descriptors()?;
        }
        let made = Python::attach(|py| -> PyResult<_> {
            let arguments: PyResult<Vec<_>> =
                setup.arguments.iter().map(|argument| ffi::decode(py, argument.as_bytes())).collect();
            let runner = py.import("fcgi._script")?.getattr("Script")?.call1((arguments?,))?.unbind();
            Ok((runner, Py::new(py, Environment::new(py)?)?))
        });
        let (runner, environment) = made.map_err(|e| anyhow::anyhow!("Python cannot be made ready: {e}"))?;
        Ok(Self { setup, runner, environment, code: Cache::default() })
    }

    /// Runs a script for a request; gives its exit status.
    fn run(&mut self, py: Python<'_>, script: &Path, request: &Bound<'_, Request>) -> PyResult<u32> {
        let runner = self.runner.bind(py).clone();
        let environment = {
            let held = request.get().lock();
            self.environment.get().enter(py, held.params())?
        };
        let path = ffi::decode(py, script.as_os_str().as_bytes())?;
        let (context, globals): (Bound<'_, PyAny>, Bound<'_, PyDict>) =
            runner.call_method1("begin", (request, &path, environment))?.extract()?;
        let compile = |_: &Path| runner.call_method1("compile", (&path,)).map(Bound::unbind);
        let result = match self.code.get(script, compile) {
            Ok(code) => context.call_method1("run", (py.import("fcgi._fcgi")?.getattr("run")?, code.bind(py), globals)),
            Err(e) => {
                // The frames are ours.
                e.set_traceback(py, None);
                Err(e)
            }
        };
        let exception = result.err().map(|e| e.into_value(py));
        context.call_method1("run", (runner.getattr("end")?, exception))?.extract()
    }
}

impl Interpreter for Engine {
    fn serve(&mut self, script: &Path, request: CoreRequest, _more: &Rc<RefCell<Requests>>) {
        let request = Request::new(request);
        let shared = request.shared().clone();
        let begun = stdio::begin(&shared);
        Python::attach(|py| {
            if let Err(e) = begun {
                let mut request = request.lock();
                let _ = writeln!(request.stderr(), "{}: the request body: {e}", self.setup.program.display());
                let _ = request.finish(1);
                return;
            }
            let ended = Bound::new(py, request).and_then(|request| self.run(py, script, &request));
            let status = ended.unwrap_or_else(|e| {
                e.print(py);
                1
            });
            let had_children = self.runner.bind(py).getattr("had_children").and_then(|b| b.extract()).unwrap_or(true);
            py.detach(|| {
                ffi::flush_c_streams();
                stdio::finish(&shared, status, had_children);
            });
        });
    }
}
