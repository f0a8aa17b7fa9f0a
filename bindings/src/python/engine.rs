//! The interpreter of one thread: scripts and applications for one request after the other.

use std::cell::RefCell;
use std::fs::File;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use fcgi_core::interpreter::{Isolation, Requests, Setup};
use fcgi_core::script::{Cache, Watch};
use fcgi_core::{Interpreter, Request as CoreRequest, Server};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use super::accept::{Left, Loop, Means};
use super::application::{self, Applications, Found, Named, Running};
use super::process::Environment;
use super::reload::Reload;
use super::request::Request;
use super::stdio::Stdio;
use super::{asgi, descriptors, ffi, forked, own, timeout};

/// What serves the requests of one thread.
struct Engine {
    setup: Setup,
    scripts: Scripts,
    environment: Py<Environment>,
    stdio: Py<Stdio>,
    code: Cache<Compiled>,
    applications: Applications,
    reload: Reload,
    /// Of the modules that the request finds.
    generation: u64,
}

/// Methods of an object of the class `Script` of `fcgi._script`, and what runs compiled code.
struct Scripts {
    begin: Py<PyAny>,
    compile: Py<PyAny>,
    end: Py<PyAny>,
    keep: Py<PyAny>,
    call: Py<PyAny>,
    next: Py<PyAny>,
    close: Py<PyAny>,
    run: Py<PyAny>,
}

/// A script, ready to run.
struct Compiled {
    path: Py<PyString>,
    code: Py<PyAny>,
    /// The rest of a script that turns out to be no application.
    rest: Py<PyAny>,
    /// Gives the warnings that compiling it gave.
    warn: Option<Py<PyAny>>,
}

/// How a script ended.
enum Ended {
    Status(u32),
    /// It gave an application, which is to answer.
    Application(Running),
    /// It gave an application that wants the thread for its event loop, with its module and its environment.
    EventLoop(Py<PyAny>, Py<PyAny>, Py<PyDict>),
}

/// An application that waits for the thread, and the body of its first request.
struct Waiting {
    application: Py<PyAny>,
    spooled: Option<File>,
}

impl Engine {
    /// Makes ready to serve, in this thread; the interpreter has been started.
    ///
    /// # Errors
    /// When the system has no pipes for us, or an option is not for scripts.
    fn new(setup: Setup) -> anyhow::Result<Self> {
        // A CGI program has its descriptors already, and is one request. With several threads they are nobody's own.
        let setup = Setup { shared_process: setup.shared_process && !setup.is_cgi, ..setup };
        let takes_descriptors = !setup.is_cgi && !setup.shared_process;
        let engine = Python::attach(|py| Self::make(py, setup).map_err(|e| not_ready(py, &e)))?;
        if takes_descriptors {
            descriptors::take()?;
        }
        Ok(engine)
    }

    fn make(py: Python<'_>, setup: Setup) -> PyResult<Self> {
        let arguments: PyResult<Vec<_>> =
            setup.arguments.iter().map(|argument| ffi::decode(py, argument.as_bytes())).collect();
        let stdio = Py::new(py, Stdio::new(setup.shared_process))?;
        let (module, class) = match () {
            () if setup.shared_process => ("fcgi._threads", "Script"),
            () if setup.audit => ("fcgi._audit", "Audited"),
            () => ("fcgi._script", "Script"),
        };
        let script = py.import(module)?.getattr(class)?.call1((arguments?, &stdio))?;
        let method = |name| script.getattr(name).map(Bound::unbind);
        let run = py.import("fcgi._fcgi")?.getattr("run")?.unbind();
        let scripts = Scripts {
            begin: method("begin")?,
            compile: method("compile")?,
            end: method("end")?,
            keep: method("keep")?,
            call: method("call")?,
            next: method("next")?,
            close: method("close")?,
            run,
        };
        let environment = Py::new(py, Environment::new(py, !setup.shared_process)?)?;
        let (applications, reload) = (Applications::default(), Reload::new(py, &setup)?);
        Ok(Self { setup, scripts, environment, stdio, code: Cache::default(), applications, reload, generation: 0 })
    }

    /// What a script needs that takes its requests itself.
    fn loop_of(
        &self,
        py: Python<'_>,
        script: &Path,
        requests: Option<&Rc<RefCell<Requests>>>,
        request: &Arc<Mutex<CoreRequest>>,
    ) -> Loop {
        let (stdio, environment) = (self.stdio.clone_ref(py), self.environment.clone_ref(py));
        let Scripts { close, next, .. } = &self.scripts;
        let means = Means { stdio, environment, close: close.clone_ref(py), open: next.clone_ref(py) };
        Loop::of_script(script, requests, request, means)
    }

    /// Runs a script for a request.
    fn run(&mut self, py: Python<'_>, script: &Path, request: &Request) -> PyResult<Ended> {
        let has_body = descriptors::has_body();
        let environment = self.environment.get().enter(py, request.lock().params())?;
        let Scripts { begin, compile, end, keep, run, .. } = &self.scripts;
        let make = |path: &Path| -> PyResult<Compiled> {
            let path = ffi::decode(py, path.as_os_str().as_bytes())?;
            let (code, rest, warn) = compile.call1(py, (&path,))?.extract(py)?;
            Ok(Compiled { path: path.unbind(), code, rest, warn })
        };
        let (path, code) = match self.code.get(script, make) {
            Ok(compiled) => (compiled.path.clone_ref(py).into_bound(py), Ok(compiled)),
            // The frames are ours.
            Err(e) => (ffi::decode(py, script.as_os_str().as_bytes())?, Err(ffi::without_frames(py, e))),
        };
        let begun = begin.bind(py).call1((path, environment, has_body))?;
        let begun = begun.cast::<PyTuple>()?;
        let (in_context, globals) = (begun.get_item(0)?, begun.get_item(1)?);
        timeout::begin(request.shared());
        let result = code.and_then(|compiled| {
            if let Some(warn) = &compiled.warn {
                in_context.call1((warn,))?;
            }
            let first = in_context.call1((run, &compiled.code, &globals));
            let rest = compiled.rest.bind(py);
            if rest.is_none() || first.is_err() {
                return first.map(|_| None);
            }
            timeout::arm(false);
            self.stdio.get().flush_python(py);
            if request.lock().written() == 0
                && let Some(found) = application::of_script(py, globals.cast()?, script, &self.setup)?
            {
                return Ok(Some(found));
            }
            timeout::arm(true);
            in_context.call1((run, rest, &globals)).map(|_| None)
        });
        timeout::arm(false);
        let exception = match result {
            Ok(Some(found)) => {
                let (main, environment): (Py<PyAny>, Bound<'_, PyDict>) = keep.call0(py)?.extract(py)?;
                let environment = self.environment.get().of_application(py, &environment)?;
                return Ok(match found {
                    Found::Wsgi(wsgi) => {
                        let script = Watch::new(script);
                        let running = Running { script, wsgi, main, environment, generation: self.generation };
                        let shares = self.setup.shared_process;
                        let running = if shares { application::share(py, running, &self.setup) } else { running };
                        Ended::Application(running)
                    }
                    Found::Asgi(application) => {
                        timeout::end(py);
                        Ended::EventLoop(application, main, environment)
                    }
                });
            }
            Ok(None) => None,
            Err(e) => {
                Loop::fail(py);
                Some(e.into_value(py))
            }
        };
        let status = in_context.call1((end, exception))?.extract();
        timeout::end(py);
        Ok(Ended::Status(status?))
    }

    /// Makes ready for a script's application.
    fn make_ready(&self, py: Python<'_>, script: &Path, main: &Py<PyAny>, environment: &Py<PyDict>) -> PyResult<()> {
        self.environment.get().enter_application(py, environment)?;
        let path = ffi::decode(py, script.as_os_str().as_bytes())?;
        self.scripts.call.call1(py, (main, path, environment))?;
        Ok(())
    }

    /// Lets a script's application answer.
    fn call(&mut self, py: Python<'_>, mut running: Running, request: &Request, spooled: Option<File>) -> u32 {
        fcgi_core::interpreter::keeps();
        let status = match self.make_ready(py, running.script.path(), &running.main, &running.environment) {
            Ok(()) => {
                timeout::begin(request.shared());
                let status = running.wsgi.answer(py, request.shared(), spooled, self.setup.display_errors);
                timeout::end(py);
                status
            }
            Err(e) => {
                e.print(py);
                1
            }
        };
        self.applications.keep(running);
        status
    }

    /// Runs a script for a request, or the application that it gives; gives the exit status, or what wants the thread.
    fn answer(&mut self, py: Python<'_>, script: &Path, request: &Request) -> Result<u32, Waiting> {
        match self.run(py, script, request) {
            Ok(Ended::Status(status)) => Ok(status),
            Ok(Ended::Application(running)) => Ok(self.call(py, running, request, self.stdio.get().spooled_body())),
            Ok(Ended::EventLoop(application, main, environment)) => {
                match self.make_ready(py, script, &main, &environment) {
                    Ok(()) => Err(Waiting { application, spooled: descriptors::spooled_body() }),
                    Err(e) => {
                        e.print(py);
                        Ok(1)
                    }
                }
            }
            Err(e) => {
                e.print(py);
                Ok(1)
            }
        }
    }

    /// Lets an application have the thread until the server stops.
    fn give_way(&self, waiting: Waiting, script: &Path, shared: Arc<Mutex<CoreRequest>>, server: &Arc<Server>) {
        // Nobody else has it any more.
        let Some(request) = Arc::into_inner(shared) else { return };
        fcgi_core::demotion::serves_by_itself();
        let request = request.into_inner().unwrap_or_else(PoisonError::into_inner);
        let Waiting { application, spooled } = waiting;
        let result =
            Python::attach(|py| asgi::take_over(&self.setup, server, application.bind(py), script, (request, spooled)));
        if let Err(e) = result {
            tracing::error!("{e:#}");
        }
    }
}

/// Makes an interpreter for the calling thread: for scripts, or for the application that the command line names.
///
/// # Errors
/// When the application cannot be loaded, the system has no pipes for us, or an option is not for Python.
pub fn interpreter(setup: Setup) -> anyhow::Result<Box<dyn Interpreter>> {
    if setup.isolation == Isolation::Fork {
        return forked::interpreter(&setup, named);
    }
    refuse_options_of_lua(&setup)?;
    own::belongs_to(&setup);
    ffi::keep_thread_state();
    Python::attach(|py| timeout::set_up(py, &setup).map_err(|e| not_ready(py, &e)))?;
    Ok(match named(&setup)? {
        Some(named) => Box::new(named),
        None => Box::new(Engine::new(setup)?),
    })
}

/// Compiles a file without running it.
///
/// # Errors
/// When that fails; what is wrong with it has been printed.
pub fn compile(_: &Setup, path: &Path) -> anyhow::Result<()> {
    let source = std::fs::read(path)?;
    Python::attach(|py| {
        let compile = || py.import("builtins")?.getattr("compile")?.call1((source, path, "exec", 0, true)).map(drop);
        compile().map_err(|e| {
            e.print(py);
            anyhow::anyhow!("{} cannot be compiled", path.display())
        })?;
        // Python takes a compiled file for good that is of the same second and as long.
        let cached = py.import("importlib.util").and_then(|util| util.getattr("cache_from_source")?.call1((path,)));
        if let Ok(cached) = cached.and_then(|cached| cached.extract::<std::path::PathBuf>()) {
            let _ = std::fs::remove_file(cached);
        }
        Ok(())
    })
}

fn named(setup: &Setup) -> anyhow::Result<Option<Named>> {
    let Some(spec) = setup.option("app") else { return Ok(None) };
    Python::attach(|py| Named::new(py, spec, setup).map(Some).map_err(|e| not_ready(py, &e)))
}

pub(super) fn not_ready(py: Python<'_>, error: &PyErr) -> anyhow::Error {
    if application::is_not_found(py, error) {
        return anyhow::anyhow!("the application cannot be loaded: {}", error.value(py));
    }
    error.print(py);
    anyhow::anyhow!("Python cannot be made ready: {error}")
}

/// Answers the request that this process was started for as a CGI program; gives the exit status.
///
/// # Errors
/// As for [`interpreter`].
pub(super) fn answer_cgi(setup: Setup, script: &Path) -> anyhow::Result<u8> {
    ffi::keep_thread_state();
    if let Some(mut named) = named(&setup)? {
        return Ok(named.answer(fcgi_core::cgi::request()) as u8);
    }
    let mut engine = Engine::new(setup)?;
    let request = Request::new(fcgi_core::cgi::request());
    let shared = request.shared().clone();
    let (left, status) = Python::attach(|py| {
        engine.stdio.get().serve(Some(shared.clone()));
        engine.loop_of(py, script, None, &shared).enter();
        // What needs a server is refused to a CGI program.
        let status = engine.answer(py, script, &request).unwrap_or(1);
        (Loop::leave().unwrap_or(Left { request: shared, status: 0, has_descriptors: true }), status)
    });
    ffi::flush_c_streams();
    Ok(left.finish(status, false) as u8)
}

/// With several threads: lets Python know this one as the main thread. Else that would be the one that first imports
/// `threading`, which at the end would be waited for in vain.
///
/// # Errors
/// When the module cannot be imported.
pub(super) fn name_main_thread(setup: &Setup) -> anyhow::Result<()> {
    if setup.shared_process {
        Python::attach(|py| py.import("threading").map(drop).map_err(|e| not_ready(py, &e)))?;
    }
    Ok(())
}

/// Refuses options that Python has no use for.
pub(super) fn refuse_options_of_lua(setup: &Setup) -> anyhow::Result<()> {
    if setup.isolation == Isolation::State {
        anyhow::bail!("--isolation state is for Lua: Python cannot be started anew for each request");
    }
    if setup.memory_limit.is_some() {
        anyhow::bail!(
            "--memory-limit: one Python cannot tell its requests apart: use --isolation fork, or limit workers from outside (systemd's MemoryMax)"
        );
    }
    Ok(())
}

impl Drop for Engine {
    /// What Python still holds is written when it ends: it is to find the process's own descriptors.
    fn drop(&mut self) {
        descriptors::give_back();
    }
}

impl Interpreter for Engine {
    fn serve(&mut self, script: &Path, request: CoreRequest, more: &Rc<RefCell<Requests>>) {
        let request = Request::new(request);
        let shared = request.shared().clone();
        let generation = self.reload.of_script(script);
        self.generation = generation;
        let of_other_thread = || Python::attach(|py| application::of_other_thread(py, script, generation, &self.setup));
        let running = self.applications.take(script, generation);
        let running = if self.setup.shared_process { running.or_else(of_other_thread) } else { running };
        if let Some(running) = running {
            let status = Python::attach(|py| self.call(py, running, &request, None));
            let _ = request.lock().finish(status);
            return;
        }
        if let Err(e) = self.stdio.get().begin(&shared) {
            let mut request = request.lock();
            let _ = writeln!(request.stderr(), "{}: the request body: {e}", self.setup.program.display());
            let _ = request.finish(1);
            return;
        }
        let (left, answered, had_children) = Python::attach(|py| {
            self.stdio.get().serve(Some(shared.clone()));
            self.loop_of(py, script, Some(more), &shared).enter();
            let answered = self.answer(py, script, &request);
            let had_children = self.stdio.get().had_children();
            self.stdio.get().serve(None);
            (
                Loop::leave().unwrap_or(Left { request: shared, status: 0, has_descriptors: true }),
                answered,
                had_children,
            )
        });
        ffi::flush_c_streams();
        match answered {
            Ok(status) => {
                left.finish(status, had_children);
            }
            Err(waiting) => {
                descriptors::end(&left.request, had_children);
                drop(request);
                let server = more.borrow().server().clone();
                self.give_way(waiting, script, left.request, &server);
            }
        }
    }
}
