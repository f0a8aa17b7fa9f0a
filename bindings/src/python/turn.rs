//! How the request of a script begins and ends, without a line of Python as long as the script does what most do. What is
//! seldom is the package's: `fcgi._script`, `fcgi._isolation`, `fcgi._streams`.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyList, PyString, PyTuple};

use super::descriptors;
use super::isolation::{Snapshot, clear_module, put_list_back};
use super::stdio::Stdio;
use super::traces::Traces;

/// The requests of one interpreter's scripts, one after the other.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Turn {
    /// An object of the class `Script`, and what it consists of.
    script: Py<PyAny>,
    isolation: Py<PyAny>,
    streams: Py<PyAny>,
    stdio: Py<Stdio>,
    traces: Py<Traces>,
    modules: Py<PyDict>,
    sys: Py<PyDict>,
    sys_snapshot: Py<Snapshot>,
    sys_path: Py<PyList>,
    /// `os.environ` and `os.environb`.
    environments: [Py<PyAny>; 2],
    /// What is known of scripts, by their paths: where they run, what their modules begin with; what their code uses.
    paths: Py<PyDict>,
    uses: Py<PyDict>,
    unknown_uses: Py<PyAny>,
    arguments: Py<PyList>,
    /// `types.ModuleType.__new__` with its argument (before Python 3.11 the type itself: what is made without a name has no
    /// dictionary), `contextvars.Context`.
    new: (Py<PyAny>, Py<PyTuple>),
    context: Py<PyAny>,
    /// The module `__main__` between requests.
    nobody: Py<PyAny>,
    has_annotations: bool,
    /// The streams that were made, and which of them are to begin anew.
    made: Py<PyList>,
    used: Py<PyList>,
    /// Functions of `atexit`.
    exits: Py<PyList>,
    ended: Py<PyAny>,
    variables: Variables,
    /// The script that forgets is one that tells of it.
    is_audited: bool,
    serving: AtomicBool,
    /// The last request's script was kept, as an application.
    kept: AtomicBool,
    state: Mutex<State>,
}

/// Names of variables that say how Python is to be.
struct Variables {
    path: Py<PyBytes>,
    encoding: Py<PyBytes>,
}

#[derive(Default)]
struct State {
    path: Option<Py<PyAny>>,
    globals: Option<Py<PyDict>>,
    abandoned: Option<u32>,
    /// The last script's directory, where it imports from, and the search path that it began with.
    place: Option<(Py<PyAny>, Py<PyAny>, Py<PyList>)>,
    /// The last request said how its streams are encoded.
    has_encoding: bool,
}

impl Turn {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the process to where a script runs, and `sys.path` to where it imports from.
    fn enter(&self, known: &Bound<'_, PyTuple>, environment: &Bound<'_, PyDict>) -> PyResult<()> {
        let py = known.py();
        let (directory, folder) = (known.get_item(0)?, known.get_item(1)?);
        if !environment.contains(&self.variables.path)? {
            let state = self.state();
            if let Some((last_directory, last_folder, path)) = &state.place
                && last_directory.is(&directory)
                && last_folder.is(&folder)
            {
                let path = path.clone_ref(py);
                drop(state);
                return put_list_back(self.sys_path.bind(py), path.bind(py));
            }
        }
        self.elsewhere();
        let path = self.isolation.bind(py).call_method1(intern!(py, "enter"), (&directory, &folder, environment))?;
        if let Ok(path) = path.cast_into::<PyList>() {
            self.state().place = Some((directory.unbind(), folder.unbind(), path.unbind()));
        }
        Ok(())
    }

    /// Makes the streams of a request, if not all of the last one's are as good as new.
    fn open(&self, environment: &Bound<'_, PyDict>, has_body: bool) -> PyResult<()> {
        let py = environment.py();
        let has_encoding = environment.contains(&self.variables.encoding)?;
        let former = std::mem::replace(&mut self.state().has_encoding, has_encoding);
        if has_body || has_encoding || former || self.is_used(py)? {
            self.streams.call_method1(py, intern!(py, "open"), (environment, has_body))?;
        }
        Ok(())
    }

    /// Whether a stream is to begin anew.
    fn is_used(&self, py: Python<'_>) -> PyResult<bool> {
        for used in self.used.bind(py) {
            if used.cast_into::<PyBool>()?.is_true() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether something is to be done at the end of the process.
    fn has_more_to_do(&self, py: Python<'_>) -> PyResult<bool> {
        let modules = self.modules.bind(py);
        if !self.exits.bind(py).is_empty()
            || self.traces.get().has_threads(py)?
            || modules.contains(intern!(py, "concurrent.futures"))?
            || modules.contains(intern!(py, "multiprocessing.util"))?
        {
            return Ok(true);
        }
        let holds = |module: &Bound<'_, PyString>, of: Option<&Bound<'_, PyString>>, name: &Bound<'_, PyString>| {
            let Some(module) = modules.get_item(module)? else { return Ok(false) };
            let owner = of.map_or_else(|| Ok(module.clone()), |of| module.getattr(of))?;
            owner.getattr(name)?.is_truthy()
        };
        let finalizers = holds(intern!(py, "weakref"), Some(intern!(py, "finalize")), intern!(py, "_registry"));
        let handlers = holds(intern!(py, "logging"), None, intern!(py, "_handlerList"));
        // What has been replaced is looked at where all of it is done.
        Ok(finalizers.unwrap_or(true) || handlers.unwrap_or(true))
    }

    /// What happens at the end of a process, up to where all of the script is gone; gives the exit status.
    fn finish(&self, py: Python<'_>, status: &mut u32) -> PyResult<()> {
        if self.has_more_to_do(py)?
            && let Err(e) = self.isolation.call_method0(py, intern!(py, "finish"))
        {
            if e.is_instance(py, self.ended.bind(py)) {
                return Err(e);
            }
            // Whatever it is: what the streams hold is this request's, and not the next one's.
            *status = self.report(py, &e.into_value(py).into_bound(py).into_any())?;
        }
        *status = self.close(py, *status)?;
        self.modules.bind(py).set_item(intern!(py, "__main__"), &self.nobody)?;
        let globals = self.state().globals.as_ref().map(|globals| globals.clone_ref(py));
        if let Some(globals) = globals
            && clear_module(globals.bind(py))?
        {
            *status = self.close(py, *status)?;
        }
        self.state().globals = None;
        Ok(())
    }

    /// Writes out what the streams hold.
    fn close(&self, py: Python<'_>, status: u32) -> PyResult<u32> {
        let (sys, made) = (self.sys.bind(py), self.made.bind(py));
        let (stdout, stderr) = (sys.get_item(intern!(py, "stdout"))?, sys.get_item(intern!(py, "stderr"))?);
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return self.streams.call_method1(py, intern!(py, "close"), (status,))?.extract(py);
        };
        if !stdout.is(&made.get_item(1)?) || !stderr.is(&made.get_item(2)?) {
            return self.streams.call_method1(py, intern!(py, "close"), (status,))?.extract(py);
        }
        self.stdio.get().end();
        let status = match stdout.call_method0(intern!(py, "flush")) {
            Ok(_) => status,
            Err(e) => self.streams.call_method1(py, intern!(py, "failed"), (stdout, e, status))?.extract(py)?,
        };
        // Nobody would hear of what is wrong with this one.
        let _ = stderr.call_method0(intern!(py, "flush"));
        Ok(status)
    }

    fn report(&self, py: Python<'_>, exception: &Bound<'_, PyAny>) -> PyResult<u32> {
        self.script.call_method1(py, intern!(py, "report"), (exception,))?.extract(py)
    }

    /// Ends a child that the script forked; this does not come back.
    fn leave_child(&self, py: Python<'_>, status: u32) -> PyResult<()> {
        if descriptors::is_forked() {
            self.script.call_method1(py, intern!(py, "leave"), (status,))?;
        }
        Ok(())
    }
}

#[pymethods]
impl Turn {
    /// For an object of the class `Script`.
    #[new]
    fn new(script: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = script.py();
        let of_script = |name: &str| script.getattr(name);
        let (isolation, streams) = (of_script("isolation")?, of_script("streams")?);
        let sys = py.import("sys")?;
        let module = sys.get_type();
        Ok(Self {
            stdio: of_script("stdio")?.extract()?,
            traces: isolation.getattr("traces")?.extract()?,
            modules: sys.getattr("modules")?.extract()?,
            sys: sys.dict().unbind(),
            sys_snapshot: isolation.getattr("sys_snapshot")?.get_item(0)?.extract()?,
            sys_path: isolation.getattr("sys_path")?.extract()?,
            environments: of_script("environments")?.extract()?,
            paths: of_script("paths")?.extract()?,
            uses: of_script("uses")?.extract()?,
            unknown_uses: of_script("unknown_uses")?.unbind(),
            arguments: of_script("arguments")?.extract()?,
            new: if py.version_info() >= (3, 11) {
                (module.getattr("__new__")?.unbind(), PyTuple::new(py, [&module])?.unbind())
            } else {
                (module.into_any().unbind(), PyTuple::new(py, ["__main__"])?.unbind())
            },
            context: py.import("contextvars")?.getattr("Context")?.unbind(),
            nobody: of_script("nobody")?.unbind(),
            has_annotations: of_script("annotations")?.is_truthy()?,
            made: streams.getattr("made")?.extract()?,
            used: streams.getattr("used")?.extract()?,
            exits: isolation.getattr("exits")?.getattr("functions")?.extract()?,
            ended: py.import("fcgi._ends")?.getattr("Ended")?.unbind(),
            variables: Variables {
                path: PyBytes::new(py, b"PYTHONPATH").unbind(),
                encoding: PyBytes::new(py, b"PYTHONIOENCODING").unbind(),
            },
            is_audited: of_script("is_audited")?.is_truthy()?,
            serving: AtomicBool::new(false),
            kept: AtomicBool::new(false),
            state: Mutex::default(),
            isolation: isolation.unbind(),
            streams: streams.unbind(),
            script: script.clone().unbind(),
        })
    }

    /// Makes ready for a script; gives what calls functions in its context, and its globals.
    fn begin<'py>(
        &self,
        path: &Bound<'py, PyAny>,
        environment: &Bound<'py, PyDict>,
        has_body: bool,
    ) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
        let py = path.py();
        self.serving.store(true, Relaxed);
        for one in &self.environments {
            one.bind(py).setattr(intern!(py, "_data"), environment)?;
        }
        let known = match self.paths.bind(py).get_item(path)? {
            Some(known) => known,
            None => self.script.bind(py).call_method1(intern!(py, "known"), (path,))?,
        };
        let known = known.cast_into::<PyTuple>()?;
        let main = self.new.0.bind(py).call1(self.new.1.bind(py).clone())?.cast_into::<PyModule>()?;
        self.modules.bind(py).set_item(intern!(py, "__main__"), &main)?;
        let globals = main.dict();
        // Of all names at once, an empty dictionary becomes a copy.
        globals.update(known.get_item(2)?.cast::<PyDict>()?.as_mapping())?;
        if self.has_annotations {
            globals.set_item(intern!(py, "__annotations__"), PyDict::new(py))?;
        }
        let argv = PyList::new(py, [path])?;
        if !self.arguments.bind(py).is_empty() {
            argv.set_slice(1, 1, self.arguments.bind(py))?;
        }
        self.sys_snapshot.get().put(py, intern!(py, "argv"), &argv)?;
        let mut state = self.state();
        state.path = Some(path.clone().unbind());
        let former = state.globals.replace(globals.clone().unbind());
        drop(state);
        drop(former);
        if self.kept.swap(false, Relaxed) {
            self.streams.call_method0(py, intern!(py, "put_back"))?;
        }
        self.enter(&known, environment)?;
        self.open(environment, has_body)?;
        let run = self.context.bind(py).call0()?.getattr(intern!(py, "run"))?;
        Ok((run, globals))
    }

    /// Does what happens at the end of a process; gives the exit status.
    fn end(&self, py: Python<'_>, exception: Option<Bound<'_, PyAny>>) -> PyResult<u32> {
        let abandoned = self.state().abandoned;
        if let Some(status) = abandoned {
            return self.forget_as_told(py, status);
        }
        let mut status = match exception {
            Some(exception) => self.report(py, &exception)?,
            None => 0,
        };
        self.leave_child(py, status)?;
        if let Err(e) = self.finish(py, &mut status)
            && !e.is_instance(py, self.ended.bind(py))
        {
            return Err(e);
        }
        self.leave_child(py, status)?;
        let abandoned = self.state().abandoned;
        self.forget_as_told(py, abandoned.unwrap_or(status))
    }

    /// Puts the interpreter back to how it was before the script; gives the exit status.
    fn forget(&self, py: Python<'_>, status: u32) -> PyResult<u32> {
        self.modules.bind(py).set_item(intern!(py, "__main__"), &self.nobody)?;
        if self.state().abandoned.is_some() {
            self.streams.call_method0(py, intern!(py, "discard"))?;
        }
        let mut state = self.state();
        let (globals, path) = (state.globals.take(), state.path.as_ref().map(|path| path.clone_ref(py)));
        drop(state);
        if let Some(globals) = globals {
            clear_module(globals.bind(py))?;
        }
        let uses = path.map(|path| self.uses.bind(py).get_item(path)).transpose()?.flatten();
        let uses = uses.unwrap_or_else(|| self.unknown_uses.bind(py).clone());
        if self.traces.get().leave(&uses)? {
            self.elsewhere();
        }
        if self.is_used(py)? {
            self.streams.call_method0(py, intern!(py, "forget"))?;
        }
        self.over();
        self.state().abandoned = None;
        Ok(status)
    }

    /// The request is no longer the script's.
    fn over(&self) {
        self.serving.store(false, Relaxed);
        let globals = self.state().globals.take();
        drop(globals);
    }

    /// The script is kept, as an application: the next request finds the streams as they are to be.
    fn keep(&self) {
        self.over();
        self.kept.store(true, Relaxed);
    }

    /// The process may be somewhere else than where the last script began.
    fn elsewhere(&self) {
        let place = self.state().place.take();
        drop(place);
    }

    /// The script's request ends with this status, where the script stands.
    fn abandon(&self, status: u32) {
        self.state().abandoned = Some(status);
    }

    /// A script runs for a request.
    #[getter]
    fn serving(&self) -> bool {
        self.serving.load(Relaxed)
    }

    /// The script that runs, or ran last.
    #[getter]
    fn path(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state().path.as_ref().map(|path| path.clone_ref(py))
    }
}

impl Turn {
    fn forget_as_told(&self, py: Python<'_>, status: u32) -> PyResult<u32> {
        if self.is_audited {
            return self.script.call_method1(py, intern!(py, "forget"), (status,))?.extract(py);
        }
        self.forget(py, status)
    }
}
