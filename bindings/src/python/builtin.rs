//! Functions that stand for functions of CPython's own, and look like them.
#![allow(unsafe_code)]

use std::ffi::CString;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule, PyString, PyTuple};

/// Where the function lies in the module that a built-in function belongs to.
const FUNCTION: &str = "function";

/// A built-in function by name, module and documentation as `other` is, which calls `function`. In tracebacks it has no lines,
/// as built-in functions have none.
#[pyfunction]
pub(super) fn builtin<'py>(function: &Bound<'py, PyAny>, other: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = function.py();
    let text = |name: &str| other.getattr(name)?.extract::<Option<String>>().map(Option::unwrap_or_default);
    let (name, module, mut doc) = (text("__name__")?, text("__module__")?, text("__doc__")?);
    let signature = text("__text_signature__")?;
    if !signature.is_empty() {
        doc = format!("{name}{signature}\n--\n\n{doc}");
    }
    // What is bound to a module is a function, and is pickled by its name.
    let owner = PyModule::new(py, &module)?;
    owner.setattr(FUNCTION, function)?;
    let definition = Box::new(ffi::PyMethodDef {
        ml_name: CString::new(name)?.into_raw(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionWithKeywords: call },
        ml_flags: ffi::METH_VARARGS | ffi::METH_KEYWORDS,
        ml_doc: CString::new(doc)?.into_raw(),
    });
    let module = PyString::new(py, &module);
    // SAFETY: the definition and its texts live for ever; the function takes references of its own to the others.
    unsafe {
        let made = ffi::PyCFunction_NewEx(Box::leak(definition), owner.as_ptr(), module.as_ptr());
        Bound::from_owned_ptr_or_err(py, made)
    }
}

/// What CPython calls.
unsafe extern "C" fn call(
    owner: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
    named: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython holds the interpreter, and all three for the time of the call; the types are those of this kind of function.
    unsafe {
        let py = Python::assume_attached();
        let owner = Bound::from_borrowed_ptr(py, owner);
        let arguments = Bound::from_borrowed_ptr(py, arguments).cast_into_unchecked::<PyTuple>();
        let named = Bound::from_borrowed_ptr_or_opt(py, named).map(|named| named.cast_into_unchecked::<PyDict>());
        match owner.getattr(FUNCTION).and_then(|function| function.call(arguments, named.as_ref())) {
            Ok(result) => result.into_ptr(),
            Err(e) => {
                // The frames are ours.
                e.set_traceback(py, None);
                e.restore(py);
                std::ptr::null_mut()
            }
        }
    }
}
