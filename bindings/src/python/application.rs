//! Applications: how one is found, and what lets it answer.

use std::cell::RefCell;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use fcgi_core::interpreter::Requests;
use fcgi_core::script::Watch;
use fcgi_core::{Interpreter, Request as CoreRequest, Setup};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use super::wsgi::{self, Wsgi};
use super::{accept, own, reload::Reload, timeout};

const NEEDS_THE_PROCESS: &str =
    "this is an application by ASGI: with --threads, say so by --interface asgi; one thread serves all of its requests";
const NEEDS_A_SERVER: &str = "this is an application by ASGI, which needs a server that is for it alone: --listen or --http, and no other scripts";

/// What `--app` calls the application that a program of its own gives (`fcgi.serve`).
#[cfg(feature = "python-extension")]
pub(super) const GIVEN: &str = ":given:";

/// Applications of scripts that stay loaded; when another one comes, the one that was unused for the longest time goes.
const APPLICATIONS: usize = 64;

/// The application that the command line names (`--app`). It writes to its requests by itself: descriptors and library stay as
/// they are.
pub(super) struct Named {
    wsgi: Wsgi,
    spec: OsString,
    setup: Setup,
    reload: Reload,
    /// Of the modules that it was loaded with.
    generation: u64,
}

impl Named {
    /// Imports the application.
    ///
    /// # Errors
    /// What importing it says, and when it is for another interface than those that there are.
    pub(super) fn new(py: Python<'_>, spec: &OsStr, setup: &Setup) -> PyResult<Self> {
        let module = py.import("fcgi._application")?;
        let application = module.getattr("load")?.call1((spec,))?;
        // One by ASGI is served by an event loop; as a CGI program nothing is.
        if setup.is_cgi && wanted(setup).is_none() && module.getattr("interface")?.call1((&application,))?.eq("asgi")? {
            return Err(PyValueError::new_err(NEEDS_A_SERVER));
        }
        let wsgi = Wsgi::new(&application, setup, Some(Vec::new()))?;
        let reload = Reload::new(py, setup)?;
        let generation = reload.of_application(py);
        Ok(Self { wsgi, spec: spec.to_owned(), setup: setup.clone(), reload, generation })
    }

    /// Loads the application anew if its modules have changed.
    fn renew(&mut self, py: Python<'_>) -> PyResult<()> {
        let generation = self.reload.of_application(py);
        if generation != self.generation {
            let application = py.import("fcgi._application")?.getattr("load_anew")?.call1((&self.spec, generation))?;
            self.wsgi = Wsgi::new(&application, &self.setup, Some(Vec::new()))?;
            self.generation = generation;
        }
        Ok(())
    }

    /// Lets the application answer a request to its end; gives the exit status.
    pub(super) fn answer(&mut self, request: CoreRequest) -> u32 {
        let request = Arc::new(Mutex::new(request));
        let status = Python::attach(|py| {
            let display_errors = self.setup.display_errors;
            timeout::begin(&request);
            let status = match self.renew(py) {
                Ok(()) => self.wsgi.answer(py, &request, None, display_errors),
                // It is tried again with the next request.
                Err(e) => wsgi::fail(py, &request, &e, display_errors),
            };
            timeout::end(py);
            status
        });
        // A client that has gone needs no answer.
        let _ = request.lock().unwrap_or_else(PoisonError::into_inner).finish(status);
        status
    }
}

impl Interpreter for Named {
    fn serve(&mut self, _script: &Path, request: CoreRequest, _more: &Rc<RefCell<Requests>>) {
        self.answer(request);
    }
}

/// Lets an application by WSGI answer all requests of a program, in the calling thread. Other threads (`has_threads`) and
/// processes (`has_processes`) may do so, too. A CGI program (`is_cgi`) has one.
#[pyfunction]
pub(super) fn answer_all(
    application: &Bound<'_, PyAny>,
    file: &[u8],
    has_threads: bool,
    has_processes: bool,
    is_cgi: bool,
) -> PyResult<()> {
    let py = application.py();
    let setup = match own::runner() {
        Some(runner) => Setup { several_processes: runner.several_processes || has_processes, ..runner.clone() },
        None => Setup { shared_process: has_threads, several_processes: has_processes, is_cgi, ..Setup::default() },
    };
    let mut wsgi = Wsgi::new(application, &setup, Some(file.to_vec()))?;
    while let Some(request) = accept::next_request(py)? {
        let status = wsgi.answer(py, request.shared(), request.take_body(), setup.display_errors);
        accept::finish(py, Some(status))?;
    }
    Ok(())
}

/// Whether an error only says that there is no such application. Where that was noticed is no help.
pub(super) fn is_not_found(py: Python<'_>, error: &PyErr) -> bool {
    let class = py.import("fcgi._application").and_then(|module| module.getattr("NotFound"));
    class.is_ok_and(|class| error.is_instance(py, &class))
}

/// An application that a script gave.
pub(super) struct Running {
    pub(super) script: Watch,
    pub(super) wsgi: Wsgi,
    /// The script's module, which is `__main__` while the application answers.
    pub(super) main: Py<PyAny>,
    /// What it sees as `os.environ`.
    pub(super) environment: Py<PyDict>,
    /// Of the modules that it was loaded with.
    pub(super) generation: u64,
}

/// The applications of scripts. Those used last are last.
#[derive(Default)]
pub(super) struct Applications(Vec<Running>);

impl Applications {
    /// The application that a script has given, unless its file has changed since, or its modules, which are of this generation.
    pub(super) fn take(&mut self, script: &Path, generation: u64) -> Option<Running> {
        let at = self.0.iter().rposition(|running| running.script.path() == script)?;
        let mut running = self.0.remove(at);
        (running.generation == generation && !running.script.has_changed()).then_some(running)
    }

    pub(super) fn keep(&mut self, running: Running) {
        if self.0.len() >= APPLICATIONS {
            self.0.remove(0);
        }
        self.0.push(running);
    }
}

/// An application that a script gave to one thread, for the others.
struct Shared {
    script: Watch,
    application: Py<PyAny>,
    main: Py<PyAny>,
    environment: Py<PyDict>,
    generation: u64,
}

/// The applications of scripts that all threads of this process call.
static SHARED: Mutex<Vec<Shared>> = Mutex::new(Vec::new());

/// The application that a script has given to another thread, unless its file has changed since, or its modules.
pub(super) fn of_other_thread(py: Python<'_>, script: &Path, generation: u64, setup: &Setup) -> Option<Running> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let at = shared.iter().rposition(|shared| shared.script.path() == script)?;
    if shared[at].generation != generation || shared[at].script.has_changed() {
        let old = shared.remove(at);
        drop(shared);
        // It may run code as it goes.
        drop(old);
        return None;
    }
    let Shared { script, application, main, environment, .. } = &shared[at];
    let (watch, application) = (script.clone(), application.clone_ref(py));
    let (main, environment) = (main.clone_ref(py), environment.clone_ref(py));
    drop(shared);
    let wsgi = Wsgi::new(application.bind(py), setup, file_of(watch.path(), setup)).ok()?;
    Some(Running { script: watch, wsgi, main, environment, generation })
}

/// Gives an application to the other threads, too. When another one has loaded it meanwhile, that is the one for all.
pub(super) fn share(py: Python<'_>, running: Running, setup: &Setup) -> Running {
    if let Some(other) = of_other_thread(py, running.script.path(), running.generation, setup) {
        return other;
    }
    let (script, application) = (running.script.clone(), running.wsgi.application(py));
    let (main, environment) = (running.main.clone_ref(py), running.environment.clone_ref(py));
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if shared.len() < APPLICATIONS {
        shared.push(Shared { script, application, main, environment, generation: running.generation });
    }
    running
}

/// What Wsgi is to take for the name of an application's script: the one script for all requests has a URL for itself.
fn file_of(script: &Path, setup: &Setup) -> Option<Vec<u8>> {
    use std::os::unix::ffi::OsStrExt;
    setup.script.is_some().then(|| script.file_name().unwrap_or_default().as_bytes().to_vec())
}

/// An application among a script's globals.
pub(super) enum Found {
    Wsgi(Wsgi),
    /// It needs an event loop.
    Asgi(Py<PyAny>),
}

/// Which interface the command line says that applications have.
fn wanted(setup: &Setup) -> Option<&str> {
    setup.option("interface").and_then(|interface| interface.to_str())
}

/// Looks for an application among a script's globals.
pub(super) fn of_script(
    py: Python<'_>,
    globals: &Bound<'_, PyDict>,
    script: &Path,
    setup: &Setup,
) -> PyResult<Option<Found>> {
    let found = py.import("fcgi._application")?.getattr("of_script")?.call1((globals,))?;
    if found.is_none() {
        return Ok(None);
    }
    let (application, kind): (Bound<'_, PyAny>, String) = found.extract()?;
    Ok(Some(match wanted(setup).unwrap_or(&kind) {
        "wsgi" => Found::Wsgi(Wsgi::new(&application, setup, file_of(script, setup))?),
        _ if setup.shared_process => return Err(PyValueError::new_err(NEEDS_THE_PROCESS)),
        _ if setup.script.is_none() || setup.other_scripts || setup.is_cgi => {
            return Err(PyValueError::new_err(NEEDS_A_SERVER));
        }
        _ => Found::Asgi(application.unbind()),
    }))
}

/// Whether a CGI program's script may give an application. What is none is better run as `python3` runs it.
pub(super) fn may_be_in(setup: &Setup) -> bool {
    let source = setup.script.as_ref().and_then(|script| std::fs::read(script).ok()).unwrap_or_default();
    let imports = |line: &[u8]| {
        let mut words = line.split(|b| !b.is_ascii_alphanumeric() && *b != b'_').skip_while(|word| *word != b"import");
        line.starts_with(b"from ") && words.any(|word| matches!(word, b"application" | b"app"))
    };
    let begins = |line: &[u8]| {
        let words = ["application", "app", "def application", "def app", "async def application", "async def app"];
        words.iter().any(|word| {
            let rest = line.strip_prefix(word.as_bytes());
            rest.is_some_and(|rest| matches!(rest.trim_ascii_start().first(), Some(b'=' | b'(' | b':')))
        })
    };
    // What is made for flup serves by itself.
    setup.own.is_empty()
        && setup.option("flup").is_none()
        && source.split(|b| *b == b'\n').any(|line| begins(line) || imports(line))
}
