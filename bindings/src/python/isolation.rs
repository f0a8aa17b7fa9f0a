//! Puts dictionaries of modules back to how they were.
#![allow(unsafe_code)]

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use pyo3::ffi as c;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt, PyList, PyModule, PyString, PyTuple};

use super::{dict, ffi};

/// How a dictionary was: its keys with their values, compared by identity. Comparing costs nanoseconds a key, and next to nothing
/// while CPython says that the dictionary is still what it was when it was compared last.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Snapshot {
    dict: Py<PyDict>,
    kept: Mutex<Kept>,
}

struct Kept {
    /// Values that may change are not kept.
    entries: Vec<Entry>,
    /// The dictionary's tag when it was found to be as it should.
    tag: Option<u64>,
}

type Entry = (Py<PyAny>, Option<Py<PyAny>>);

/// What comparing a dictionary with how it was finds.
enum Difference {
    None,
    /// Only keys have come, behind all others.
    More(Vec<Py<PyAny>>),
    Other,
}

impl Snapshot {
    fn compare(&self, py: Python<'_>, entries: &[Entry]) -> Difference {
        let mut entries = entries.iter();
        let mut more = Vec::new();
        let same = dict::each(self.dict.bind(py), |key, value| {
            if let Some((k, v)) = entries.next() {
                return k.as_ptr() == key && v.as_ref().is_none_or(|v| v.as_ptr() == value);
            }
            more.push(ffi::borrowed(py, key).unbind());
            true
        });
        match (same && entries.len() == 0, more.is_empty()) {
            (false, _) => Difference::Other,
            (true, true) => Difference::None,
            (true, false) => Difference::More(more),
        }
    }
}

#[pymethods]
impl Snapshot {
    /// Remembers a dictionary, but for the values of the keys in `but`.
    #[new]
    #[pyo3(signature = (dict, but=HashSet::new()))]
    #[allow(clippy::needless_pass_by_value, reason = "Python's arguments are made for this call")]
    fn new(dict: &Bound<'_, PyDict>, but: HashSet<String>) -> Self {
        let entries = dict.iter().map(|(key, value)| {
            let may_change = key.cast::<PyString>().is_ok_and(|k| but.contains(&*k.to_string_lossy()));
            (key.unbind(), (!may_change).then(|| value.unbind()))
        });
        let kept = Kept { entries: entries.collect(), tag: dict::tag(dict) };
        Self { kept: Mutex::new(kept), dict: dict.clone().unbind() }
    }

    /// Sets one of the values that may change, which is no reason to compare.
    pub(super) fn put(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let dict = self.dict.bind(py);
        let is_known = kept.tag.is_some() && kept.tag == dict::tag(dict);
        // Nothing else happens meanwhile: what is replaced is still held.
        let former = dict.get_item(key)?;
        dict.set_item(key, value)?;
        if is_known {
            kept.tag = dict::tag(dict);
        }
        drop(kept);
        drop(former);
        Ok(())
    }

    /// Sets a value that is to be so from now on.
    fn keep(&self, py: Python<'_>, key: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let dict = self.dict.bind(py);
        let mut former = None;
        let mut is_known = false;
        for (known, kept) in &mut kept.entries {
            if known.bind(py).eq(key)? {
                former = kept.replace(value.clone().unbind());
                is_known = true;
            }
        }
        if !is_known {
            kept.entries.push((key.clone().unbind(), Some(value.clone().unbind())));
        }
        let present = dict.get_item(key)?;
        dict.set_item(key, value)?;
        kept.tag = None;
        drop(kept);
        drop((former, present));
        Ok(())
    }

    /// The names of what is not as it was, but for modules that have come.
    fn changes(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let dict = self.dict.bind(py);
        let now = dict::tag(dict);
        if now.is_some() && now == kept.tag || matches!(self.compare(py, &kept.entries), Difference::None) {
            return Ok(Vec::new());
        }
        let known = PyDict::new(py);
        let mut changed = Vec::new();
        for (key, value) in &kept.entries {
            known.set_item(key, py.None())?;
            let now = dict.get_item(key)?;
            if value.as_ref().is_some_and(|value| now.is_none_or(|now| !now.is(value))) {
                changed.push(key.clone_ref(py));
            }
        }
        for (key, value) in items(dict) {
            if !known.contains(&key)? && !value.is_instance_of::<PyModule>() {
                changed.push(key.unbind());
            }
        }
        Ok(changed)
    }

    /// Puts the dictionary back; gives the names of what was changed. Modules that have come stay: a package has those
    /// inside it that are loaded later.
    fn restore(&self, py: Python<'_>) -> PyResult<Vec<Py<PyAny>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = Vec::new();
        let dict = self.dict.bind(py);
        let now = dict::tag(dict);
        if now.is_some() && now == kept.tag {
            return Ok(changed);
        }
        let Kept { entries, tag } = &mut *kept;
        match self.compare(py, entries) {
            Difference::None => {
                *tag = now;
                return Ok(changed);
            }
            Difference::More(keys) => {
                let mut held = Vec::with_capacity(keys.len());
                for key in keys {
                    let Some(value) = dict.get_item(&key)? else { continue };
                    if value.is_instance_of::<PyModule>() {
                        entries.push((key, Some(value.unbind())));
                    } else {
                        dict.del_item(&key)?;
                        changed.push(key);
                        held.push(value);
                    }
                }
                // What is let go of may run code: until then, nothing else happens.
                *tag = dict::tag(dict);
                drop(kept);
                drop(held);
                return Ok(changed);
            }
            Difference::Other => {}
        }
        let known = PyDict::new(py);
        for (key, value) in entries.iter() {
            let key = key.bind(py);
            known.set_item(key, py.None())?;
            let now = dict.get_item(key)?;
            if let Some(value) = value
                && now.is_none_or(|now| !now.is(value))
            {
                dict.set_item(key, value)?;
                changed.push(key.clone().unbind());
            }
        }
        for (key, value) in items(dict) {
            if !known.contains(&key)? && !value.is_instance_of::<PyModule>() {
                dict.del_item(&key)?;
                changed.push(key.unbind());
            }
        }
        // The order may be another one now, and there may be more modules.
        let mut former: HashMap<usize, Option<Py<PyAny>>> =
            entries.drain(..).map(|(key, value)| (key.as_ptr() as usize, value)).collect();
        entries.extend(dict.iter().map(|(key, value)| {
            let value = former.remove(&(key.as_ptr() as usize)).unwrap_or_else(|| Some(value.unbind()));
            (key.unbind(), value)
        }));
        Ok(changed)
    }
}

/// Puts back what has changed: the dictionaries in `first`, of `lists` those that do not hold the very objects that they held
/// (of each pair the first one, by the second one), and the dictionaries in `others`, of which it gives the numbers.
#[pyfunction]
#[pyo3(signature = (first, lists, others, /))]
pub(super) fn restore_all(
    py: Python<'_>,
    first: &Bound<'_, PyList>,
    lists: &Bound<'_, PyList>,
    others: &Bound<'_, PyList>,
) -> PyResult<Option<Vec<usize>>> {
    for snapshot in first {
        snapshot.cast::<Snapshot>()?.get().restore(py)?;
    }
    for pair in lists {
        let pair = pair.cast::<PyTuple>()?;
        let (now, before) = (pair.get_item(0)?, pair.get_item(1)?);
        put_list_back(now.cast()?, before.cast()?)?;
    }
    let mut changed = Vec::new();
    for (number, snapshot) in others.iter().enumerate() {
        if !snapshot.cast::<Snapshot>()?.get().restore(py)?.is_empty() {
            changed.push(number);
        }
    }
    Ok((!changed.is_empty()).then_some(changed))
}

/// Lets a list hold the very objects that another one holds.
pub(super) fn put_list_back(now: &Bound<'_, PyList>, before: &Bound<'_, PyList>) -> PyResult<()> {
    if now.len() != before.len() || now.iter().zip(before).any(|(now, before)| !now.is(&before)) {
        now.set_slice(0, now.len(), before)?;
    }
    Ok(())
}

/// The keys of a dictionary for which another one has not the same value.
#[pyfunction]
pub(super) fn others<'py>(other: &Bound<'py, PyDict>, dict: &Bound<'py, PyDict>) -> PyResult<Vec<Bound<'py, PyAny>>> {
    let mut keys = Vec::new();
    for (key, value) in dict.iter() {
        if !other.get_item(&key)?.is_some_and(|there| there.is(&value)) {
            keys.push(key);
        }
    }
    Ok(keys)
}

/// What a dictionary holds; it may be changed meanwhile.
fn items<'py>(dict: &Bound<'py, PyDict>) -> Vec<(Bound<'py, PyAny>, Bound<'py, PyAny>)> {
    dict.iter().collect()
}

/// Lets go of what a module's names hold, in the order in which CPython does at its end: names with one underscore, then
/// the others. Gives whether that may have run code of the script's.
#[pyfunction]
pub(super) fn clear_module(names: &Bound<'_, PyDict>) -> PyResult<bool> {
    let py = names.py();
    let none = py.None();
    let mut held = Vec::new();
    dict::each(names, |key, value| {
        let value = ffi::borrowed(py, value);
        let is_plain = value.is_none()
            || value.is_exact_instance_of::<PyString>()
            || value.is_exact_instance_of::<PyInt>()
            || value.is_exact_instance_of::<PyModule>();
        if !is_plain && let Ok(name) = ffi::borrowed(py, key).cast_into::<PyString>() {
            held.push(name);
        }
        true
    });
    // Those that are always there run nothing.
    let is_own = |name: &str| matches!(name, "__loader__" | "__annotations__" | "__builtins__" | "__spec__");
    let may_run = held.iter().any(|name| !is_own(&name.to_string_lossy()));
    for first in if may_run { &[true, false][..] } else { &[] } {
        for key in &held {
            let name = key.to_string_lossy();
            let single = name.starts_with('_') && !name.starts_with("__");
            if if *first { single } else { !single && name != "__builtins__" } {
                names.set_item(key, &none)?;
            }
        }
    }
    // SAFETY: the dictionary is live and the interpreter held.
    unsafe { c::PyDict_Clear(names.as_ptr()) };
    Ok(may_run)
}
