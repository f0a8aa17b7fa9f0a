//! The process's environment as requests find it: Python's `os.environ`, and the C library's `environ`.
//!
//! Most requests have the variables of the one before them, and many of its values. So what was made for the last one is
//! kept as it was given, and only what differs is made anew.

use std::collections::HashSet;
use std::ffi::{OsString, c_char};
use std::os::unix::ffi::OsStringExt;
use std::sync::{Mutex, PoisonError};

use fcgi_core::Params;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};

use crate::python::{dict, ffi};

unsafe extern "C" {
    static mut environ: *const *const c_char;
}

/// The process's environment, and that of the request that runs, which is overlaid by its variables.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(in crate::python) struct Environment {
    base: Vec<(Vec<u8>, Vec<u8>)>,
    base_names: HashSet<Vec<u8>>,
    base_dict: Py<PyDict>,
    /// The C library has the request's environment, too: only one request runs at a time.
    is_process: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The variables of the last request, and of those that can be in an environment what Python has for name and value.
    params: Params,
    objects: Vec<Objects>,
    /// Its environment as it was before its script ran.
    last: Option<Py<PyDict>>,
    /// The copy that it was given, and the copy's tag.
    given: Option<(Py<PyDict>, u64)>,
    block: Block,
    /// Another thread may still look something up in it.
    previous: Block,
    /// Whose environment the block is.
    owner: Owner,
}

#[derive(Default, PartialEq, Eq)]
enum Owner {
    #[default]
    Nobody,
    /// The last request's.
    Request,
    /// An application's, by the address of its dictionary.
    Application(usize),
}

struct Objects {
    name: Py<PyBytes>,
    value: Py<PyBytes>,
}

/// What `environ` points to.
#[derive(Default)]
struct Block {
    text: Vec<u8>,
    pointers: Vec<*const c_char>,
    /// The pointers as they were made: the C library changes those that it is given.
    made: Vec<*const c_char>,
}

// SAFETY: the pointers point into the block's own text.
unsafe impl Send for Block {}

impl Block {
    /// Makes it one of these variables.
    fn fill<'a>(&mut self, variables: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        self.text.clear();
        let mut starts = Vec::with_capacity(self.made.len());
        for (name, value) in variables {
            starts.push(self.text.len());
            self.text.extend_from_slice(name);
            self.text.push(b'=');
            self.text.extend_from_slice(value);
            self.text.push(0);
        }
        self.made.clear();
        self.made.extend(starts.iter().map(|start| self.text[*start..].as_ptr().cast::<c_char>()));
        self.made.push(std::ptr::null());
        self.pointers.clone_from(&self.made);
    }

    /// Makes it the environment of the C library.
    fn give(&mut self) {
        if self.pointers != self.made {
            self.pointers.clone_from(&self.made);
        }
        // SAFETY: the block lives as long as the environment that it is of, and until the next but one takes its place.
        unsafe { environ = self.pointers.as_ptr() };
    }
}

/// Those of a request's variables that can be in an environment.
fn variables(params: &Params) -> impl Iterator<Item = (&[u8], &[u8])> {
    params.iter().filter(|(name, value)| fits(name, value))
}

/// What can be in an environment.
fn fits(name: &[u8], value: &[u8]) -> bool {
    !name.is_empty() && !name.contains(&b'=') && !name.contains(&0) && !value.contains(&0)
}

impl State {
    /// The variables that can be in an environment.
    fn variables(&self) -> impl Iterator<Item = ((&[u8], &[u8]), &Objects)> {
        variables(&self.params).zip(&self.objects)
    }

    /// What the last request was given, if it has changed nothing in it and nobody but the two objects of the module `os` has it.
    fn unchanged<'py>(&mut self, py: Python<'py>) -> Option<Bound<'py, PyDict>> {
        let (given, tag) = self.given.take()?;
        (ffi::count_holders(given.bind(py)) <= 3 && dict::tag(given.bind(py)) == Some(tag))
            .then(|| given.into_bound(py))
    }

    /// Takes over the values of a request; gives the environment that is to be copied, or may be used as it is (`given`). `None`
    /// when the variables have other names than those of the last one.
    fn update<'py>(
        &mut self,
        py: Python<'py>,
        params: &Params,
        given: Option<Bound<'py, PyDict>>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let Some(last) = &self.last else { return Ok(None) };
        let Some(different) = params.differences(&self.params) else { return Ok(None) };
        let has_all = self.objects.len() == params.len();
        if !different.is_empty() {
            if !has_all || different.iter().any(|&at| params.pair(at).1.contains(&0)) {
                return Ok(None);
            }
            self.owner = Owner::Nobody;
            for at in different {
                let value = PyBytes::new(py, params.pair(at).1).unbind();
                for environment in [Some(last.bind(py)), given.as_ref()].into_iter().flatten() {
                    environment.set_item(&self.objects[at].name, &value)?;
                }
                self.objects[at].value = value;
            }
            self.params.clone_from(params);
        }
        given.map_or_else(|| last.bind(py).copy(), Ok).map(Some)
    }

    /// Takes over the variables of a request, of which those that the last one had, too, keep their objects; gives a copy of its
    /// environment.
    fn renew<'py>(
        &mut self,
        py: Python<'py>,
        base: &Bound<'py, PyDict>,
        params: &Params,
    ) -> PyResult<Bound<'py, PyDict>> {
        // What goes wrong on the way must not be taken for whole.
        (self.last, self.owner) = (None, Owner::Nobody);
        let last = base.copy()?;
        let mut former_params = std::mem::take(&mut self.params);
        let mut former = variables(&former_params).zip(std::mem::take(&mut self.objects));
        for (name, value) in variables(params) {
            let (known, value_known) = match former.next().filter(|((known, _), _)| *known == name) {
                Some(((_, former), objects)) => (Some(objects.name), (former == value).then_some(objects.value)),
                None => (None, None),
            };
            let name = known.unwrap_or_else(|| PyBytes::new(py, name).unbind());
            let value = value_known.unwrap_or_else(|| PyBytes::new(py, value).unbind());
            last.set_item(&name, &value)?;
            self.objects.push(Objects { name, value });
        }
        drop(former);
        former_params.clone_from(params);
        self.params = former_params;
        let copy = last.copy();
        self.last = Some(last.unbind());
        copy
    }
}

impl Environment {
    /// The environment as the process has it now.
    pub(in crate::python) fn new(py: Python<'_>, is_process: bool) -> PyResult<Self> {
        let bytes = |text: OsString| text.into_vec();
        let base: Vec<_> = std::env::vars_os().map(|(name, value)| (bytes(name), bytes(value))).collect();
        let base_dict = PyDict::new(py);
        for (name, value) in &base {
            base_dict.set_item(PyBytes::new(py, name), PyBytes::new(py, value))?;
        }
        let base_names = base.iter().map(|(name, _)| name.clone()).collect();
        Ok(Self { base, base_names, base_dict: base_dict.unbind(), is_process, state: Mutex::default() })
    }

    /// Makes a request's environment that of the process; gives it as Python keeps it.
    pub(in crate::python) fn enter<'py>(&self, py: Python<'py>, params: &Params) -> PyResult<Bound<'py, PyDict>> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let given = state.unchanged(py);
        let environment = match state.update(py, params, given)? {
            Some(environment) => environment,
            None => state.renew(py, self.base_dict.bind(py), params)?,
        };
        state.given = dict::tag(&environment).map(|tag| (environment.clone().unbind(), tag));
        if self.is_process {
            let State { block, previous, owner, .. } = &mut *state;
            if *owner != Owner::Request {
                std::mem::swap(block, previous);
                // Those of the process that the request does not have.
                let overlaid = params.iter().any(|(name, _)| self.base_names.contains(name));
                let base = self.base.iter().filter(|(name, _)| !overlaid || params.get(name).is_none());
                let base = base.map(|(name, value)| (&**name, &**value));
                block.fill(base.chain(variables(params)));
                *owner = Owner::Request;
            }
            block.give();
        }
        Ok(environment)
    }

    /// What an application keeps of the environment that its script ran in: all but the request's variables. What the script
    /// has set stays, such as where the settings are.
    pub(in crate::python) fn of_application(
        &self,
        py: Python<'_>,
        current: &Bound<'_, PyDict>,
    ) -> PyResult<Py<PyDict>> {
        let kept = current.copy()?;
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        for ((name, _), Objects { name: key, value }) in state.variables() {
            // Who sets a variable sets another object.
            if kept.get_item(key)?.is_some_and(|now| now.is(value)) {
                let is_own = self.base_names.contains(name);
                match is_own.then(|| self.base_dict.bind(py).get_item(key)).transpose()?.flatten() {
                    Some(own) => kept.set_item(key, own)?,
                    None => kept.del_item(key)?,
                }
            }
        }
        Ok(kept.unbind())
    }

    /// Makes an application's environment that of the process, unless it is.
    pub(in crate::python) fn enter_application(&self, py: Python<'_>, dict: &Py<PyDict>) -> PyResult<()> {
        if !self.is_process {
            return Ok(());
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State { block, previous, owner, .. } = &mut *state;
        let address = dict.as_ptr() as usize;
        if *owner == Owner::Application(address) {
            return Ok(());
        }
        let pairs: Vec<(Bound<'_, PyBytes>, Bound<'_, PyBytes>)> = dict
            .bind(py)
            .iter()
            .map(|(name, value)| Ok((name.cast_into()?, value.cast_into()?)))
            .collect::<PyResult<_>>()?;
        std::mem::swap(block, previous);
        let pairs = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        block.fill(pairs.filter(|(name, value)| fits(name, value)));
        block.give();
        *owner = Owner::Application(address);
        Ok(())
    }
}

impl Drop for Environment {
    fn drop(&mut self) {
        // `environ` goes on pointing there, and so does what the C library has copied of it: at the end of the process, it is
        // asked once more.
        let State { block, previous, .. } =
            std::mem::take(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
        std::mem::forget((block, previous));
    }
}
