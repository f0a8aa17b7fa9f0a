//! What a script has left in the interpreter: found without a line of Python, since most scripts leave next to nothing, and
//! put back by the package's `_isolation`, which knows how.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySet, PyTuple};

use super::ffi;
use super::isolation::restore_all;

/// How the interpreter was before the first script.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Traces {
    /// An object of the class `Isolation`, and its `Modules`.
    isolation: Py<PyAny>,
    known: Py<PyAny>,
    modules: Py<PyDict>,
    /// Of `known`: as long as these are empty, and there are as many modules and snapshots as there were, nothing has come.
    news: [Py<PyAny>; 4],
    snapshots: Py<PyDict>,
    /// Snapshots of `sys`, and of `sys` and the builtins.
    of_sys: Py<PyList>,
    with_builtins: Py<PyList>,
    lists: Py<PyList>,
    nothing: Py<PyList>,
    /// Functions that put back what functions of the library have changed.
    undo: Py<PySet>,
    functions: Functions,
    recursion_limit: i32,
    switch_interval: Py<PyAny>,
    state: Mutex<State>,
}

/// Functions of the library.
struct Functions {
    filters_mutated: Py<PyAny>,
    get_switch_interval: Py<PyAny>,
    get_trace: Py<PyAny>,
    get_profile: Py<PyAny>,
    count_threads: Py<PyAny>,
}

#[derive(Default)]
struct State {
    /// How many modules there were when it was looked at which of them keep something by functions of their own.
    modules: usize,
    /// Those, each with what puts it back.
    libraries: Vec<(Py<PyAny>, Py<PyAny>)>,
    uses: Option<Uses>,
}

/// What the code that was looked at last can change.
struct Uses {
    object: Py<PyAny>,
    builtins: bool,
    everything: bool,
}

impl Traces {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other threads than this one that run Python code.
    pub(super) fn has_threads(&self, py: Python<'_>) -> PyResult<bool> {
        self.functions.count_threads.bind(py).call0()?.is_truthy()
    }

    /// What the code can change: builtins, everything.
    fn look_up(&self, uses: &Bound<'_, PyAny>) -> PyResult<(bool, bool)> {
        let mut state = self.state();
        if let Some(known) = state.uses.as_ref().filter(|known| known.object.is(uses)) {
            return Ok((known.builtins, known.everything));
        }
        let is = |name: &str| uses.getattr(name)?.is_truthy();
        let found = (is("builtins")?, is("everything")?);
        let object = uses.clone().unbind();
        state.uses = Some(Uses { object, builtins: found.0, everything: found.1 });
        Ok(found)
    }

    /// Whether no module has come that is not looked after.
    fn is_settled(&self, py: Python<'_>, chosen: &Bound<'_, PyTuple>) -> PyResult<bool> {
        let known = self.snapshots.bind(py).len();
        let is_settled = self.modules.bind(py).len() == self.state().modules
            && chosen.get_item(0)?.extract::<isize>()? == known as isize;
        if is_settled {
            for news in &self.news {
                if news.bind(py).len()? > 0 {
                    return Ok(false);
                }
            }
        }
        Ok(is_settled)
    }

    /// Has those modules put back that keep something by functions of their own.
    fn leave_libraries(&self, py: Python<'_>) -> PyResult<()> {
        let modules = self.modules.bind(py);
        if modules.len() != self.state().modules {
            let found = self.isolation.call_method0(py, intern!(py, "libraries"))?;
            let count = modules.len();
            let mut state = self.state();
            (state.modules, state.libraries) = (count, found.extract(py)?);
        }
        let libraries: Vec<_> =
            self.state().libraries.iter().map(|(name, leave)| (name.clone_ref(py), leave.clone_ref(py))).collect();
        for (name, leave) in libraries {
            if let Some(module) = modules.get_item(name)?
                && module.is_truthy()?
            {
                leave.call1(py, (module,))?;
            }
        }
        Ok(())
    }

    fn leave_limits(&self, py: Python<'_>) -> PyResult<()> {
        let Functions { get_switch_interval, get_trace, get_profile, .. } = &self.functions;
        if ffi::recursion_limit(py) != self.recursion_limit {
            ffi::set_recursion_limit(py, self.recursion_limit);
        }
        if !get_switch_interval.bind(py).call0()?.eq(&self.switch_interval)?
            || !get_trace.bind(py).call0()?.is_none()
            || !get_profile.bind(py).call0()?.is_none()
        {
            self.isolation.call_method0(py, intern!(py, "leave_settings"))?;
        }
        Ok(())
    }
}

#[pymethods]
impl Traces {
    #[new]
    fn new(isolation: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = isolation.py();
        let known = isolation.getattr("modules")?;
        let sys = py.import("sys")?;
        let function = |module: &str, name: &str| Ok::<_, PyErr>(py.import(module)?.getattr(name)?.unbind());
        let news = |name: &str| known.getattr(name).map(Bound::unbind);
        Ok(Self {
            isolation: isolation.clone().unbind(),
            modules: sys.getattr("modules")?.extract()?,
            news: [news("learned")?, news("volatile")?, news("warning")?, news("beside")?],
            snapshots: known.getattr("snapshots")?.extract()?,
            known: known.unbind(),
            of_sys: isolation.getattr("sys_snapshot")?.extract()?,
            with_builtins: isolation.getattr("snapshots")?.extract()?,
            lists: isolation.getattr("lists")?.extract()?,
            nothing: PyList::empty(py).unbind(),
            undo: isolation.getattr("undo")?.extract()?,
            functions: Functions {
                filters_mutated: function("warnings", "_filters_mutated")?,
                get_switch_interval: function("sys", "getswitchinterval")?,
                get_trace: function("sys", "gettrace")?,
                get_profile: function("sys", "getprofile")?,
                count_threads: function("_thread", "_count")?,
            },
            recursion_limit: ffi::recursion_limit(py),
            switch_interval: sys.call_method0("getswitchinterval")?.unbind(),
            state: Mutex::default(),
        })
    }

    /// Puts back what a script changed whose code is as `uses` says. Gives whether functions of the library had to be undone.
    pub(super) fn leave(&self, uses: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = uses.py();
        let (builtins, everything) = self.look_up(uses)?;
        let first = if builtins { &self.with_builtins } else { &self.of_sys }.bind(py);
        let lists = self.lists.bind(py);
        let mut chosen = uses.getattr(intern!(py, "chosen"))?.cast_into::<PyTuple>()?;
        if everything || !self.is_settled(py, &chosen)? {
            // First what other things are put back by.
            restore_all(py, first, lists, self.nothing.bind(py))?;
            chosen = self.known.bind(py).call_method1(intern!(py, "leave"), (uses,))?.cast_into()?;
        }
        if let Some(changed) = restore_all(py, first, lists, chosen.get_item(2)?.cast()?)? {
            self.isolation.call_method1(py, intern!(py, "has_put_back"), (chosen.get_item(1)?, changed))?;
        }
        self.functions.filters_mutated.bind(py).call0()?;
        self.leave_limits(py)?;
        for setting in chosen.get_item(3)?.cast::<PyList>()? {
            setting.call0()?;
        }
        let undo = self.undo.bind(py);
        let had_to_undo = !undo.is_empty();
        while !undo.is_empty() {
            if let Some(function) = undo.pop() {
                function.call0()?;
            }
        }
        self.leave_libraries(py)?;
        if self.has_threads(py)? {
            self.isolation.call_method0(py, intern!(py, "end_threads"))?;
        }
        Ok(had_to_undo)
    }
}
