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
use pyo3::types::{PyString, PyTuple};

use super::process::Environment;
use super::request::Request;
use super::stdio::Stdio;
use super::{descriptors, ffi};

/// What serves the requests of one thread.
pub struct Engine {
    setup: Setup,
    scripts: Scripts,
    environment: Py<Environment>,
    stdio: Py<Stdio>,
    code: Cache<Compiled>,
}

/// Methods of an object of the class `Script` of `fcgi._script`, and what runs compiled code.
struct Scripts {
    begin: Py<PyAny>,
    compile: Py<PyAny>,
    end: Py<PyAny>,
    run: Py<PyAny>,
}

/// A script, ready to run.
struct Compiled {
    path: Py<PyString>,
    code: Py<PyAny>,
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
            descriptors::take()?;
        }
        Python::attach(|py| Self::make(py, setup)).map_err(|e| anyhow::anyhow!("Python cannot be made ready: {e}"))
    }

    fn make(py: Python<'_>, setup: Setup) -> PyResult<Self> {
        let arguments: PyResult<Vec<_>> =
            setup.arguments.iter().map(|argument| ffi::decode(py, argument.as_bytes())).collect();
        let stdio = Py::new(py, Stdio::new())?;
        let script = py.import("fcgi._script")?.getattr("Script")?.call1((arguments?, &stdio))?;
        let method = |name| script.getattr(name).map(Bound::unbind);
        let run = py.import("fcgi._fcgi")?.getattr("run")?.unbind();
        let scripts = Scripts { begin: method("begin")?, compile: method("compile")?, end: method("end")?, run };
        let environment = Py::new(py, Environment::new(py)?)?;
        Ok(Self { setup, scripts, environment, stdio, code: Cache::default() })
    }

    /// Runs a script for a request; gives its exit status.
    fn run(&mut self, py: Python<'_>, script: &Path, request: &Request) -> PyResult<u32> {
        let has_body = descriptors::has_body();
        let environment = self.environment.get().enter(py, request.lock().params())?;
        let Scripts { begin, compile, end, run } = &self.scripts;
        let make = |path: &Path| -> PyResult<Compiled> {
            let path = ffi::decode(py, path.as_os_str().as_bytes())?;
            let code = compile.call1(py, (&path,))?;
            Ok(Compiled { path: path.unbind(), code })
        };
        let (path, code) = match self.code.get(script, make) {
            Ok(compiled) => (compiled.path.clone_ref(py).into_bound(py), Ok(compiled.code.bind(py))),
            Err(e) => {
                // The frames are ours.
                e.set_traceback(py, None);
                (ffi::decode(py, script.as_os_str().as_bytes())?, Err(e))
            }
        };
        let begun = begin.bind(py).call1((path, environment, has_body))?;
        let begun = begun.cast::<PyTuple>()?;
        let (in_context, globals) = (begun.get_item(0)?, begun.get_item(1)?);
        let result = code.and_then(|code| in_context.call1((run, code, globals)));
        let exception = result.err().map(|e| e.into_value(py));
        in_context.call1((end, exception))?.extract()
    }
}

impl Interpreter for Engine {
    fn serve(&mut self, script: &Path, request: CoreRequest, _more: &Rc<RefCell<Requests>>) {
        let request = Request::new(request);
        let shared = request.shared().clone();
        if let Err(e) = descriptors::begin(&shared) {
            let mut request = request.lock();
            let _ = writeln!(request.stderr(), "{}: the request body: {e}", self.setup.program.display());
            let _ = request.finish(1);
            return;
        }
        let (status, had_children) = Python::attach(|py| {
            self.stdio.get().serve(Some(shared.clone()));
            let status = self.run(py, script, &request).unwrap_or_else(|e| {
                e.print(py);
                1
            });
            let had_children = self.stdio.get().had_children();
            self.stdio.get().serve(None);
            (status, had_children)
        });
        ffi::flush_c_streams();
        descriptors::finish(&shared, status, had_children);
    }
}
