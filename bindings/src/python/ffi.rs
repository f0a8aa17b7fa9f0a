//! The parts of CPython's C interface that PyO3 has no words for.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyBaseException;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString};

/// Runs compiled code with these globals, in the first frame of its thread: nothing of ours is on the stack below it.
pub(super) fn eval<'py>(code: &Bound<'py, PyAny>, globals: &Bound<'py, PyDict>) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both are live objects, the code is one that `compile` made, and the interpreter is held.
    unsafe {
        let result = ffi::PyEval_EvalCode(code.as_ptr(), globals.as_ptr(), globals.as_ptr());
        Bound::from_owned_ptr_or_err(code.py(), result)
    }
}

/// An exception as it is before it is raised.
pub(super) fn without_frames(py: Python<'_>, error: PyErr) -> PyErr {
    let value = error.into_value(py).into_bound(py);
    // SAFETY: the exception is live, and None stands for no traceback.
    unsafe { ffi::PyException_SetTraceback(value.as_ptr(), ffi::Py_None()) };
    PyErr::from_value(value.into_any())
}

/// Text as `os.fsdecode` makes it.
pub(super) fn decode<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: the pointer is good for the length that is given; the result is a new reference to a string.
    unsafe {
        let text = ffi::PyUnicode_DecodeFSDefaultAndSize(bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t);
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// Text of which each character is a byte, as WSGI wants it (PEP 3333, "Unicode Issues").
pub(super) fn latin1<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyString>> {
    // SAFETY: as above.
    unsafe {
        let text = ffi::PyUnicode_DecodeLatin1(bytes.as_ptr().cast(), bytes.len() as ffi::Py_ssize_t, std::ptr::null());
        Ok(Bound::from_owned_ptr_or_err(py, text)?.cast_into_unchecked())
    }
}

/// The bytes of text of which each character is a byte.
pub(super) fn to_latin1<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: the string is live; the result is a new reference to bytes.
    unsafe {
        let bytes = ffi::PyUnicode_AsLatin1String(text.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(text.py(), bytes)?.cast_into_unchecked())
    }
}

/// Text as standard error would have it.
pub(super) fn encode_for_log<'py>(text: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: as above; both names are C strings.
    unsafe {
        let bytes = ffi::PyUnicode_AsEncodedString(text.as_ptr(), c"utf-8".as_ptr(), c"backslashreplace".as_ptr());
        Ok(Bound::from_owned_ptr_or_err(text.py(), bytes)?.cast_into_unchecked())
    }
}

/// The bytes of an object: itself, or a copy of what its buffer holds.
pub(super) fn as_bytes<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    if let Ok(bytes) = data.cast::<PyBytes>() {
        return Ok(bytes.clone());
    }
    // SAFETY: the object is live; the result is a new reference to bytes.
    unsafe {
        Ok(Bound::from_owned_ptr_or_err(data.py(), ffi::PyBytes_FromObject(data.as_ptr()))?.cast_into_unchecked())
    }
}

/// Threads have been told to meet an exception, and may not have met it.
static IS_TOLD: AtomicBool = AtomicBool::new(false);

/// Lets a thread meet an exception at its next instruction.
pub(super) fn interrupt(thread: std::ffi::c_ulong, exception: &Bound<'_, PyAny>) {
    IS_TOLD.store(true, Ordering::Relaxed);
    // SAFETY: the interpreter is held, and the function takes a reference of its own.
    unsafe { ffi::PyThreadState_SetAsyncExc(thread as _, exception.as_ptr()) };
}

/// Lets nobody look for exceptions any more that threads have been told to meet. Until the next thread meets one, CPython up to
/// 3.12 lets all of them look before each step, and 3.11 does not let those go on that are traced. This thread meets one here; a
/// thread that waits still meets its own, when it has to do with another one.
pub(super) fn settle_exceptions() {
    if !IS_TOLD.swap(false, Ordering::Relaxed) {
        return;
    }
    Python::attach(|py| {
        let this = Thread::current();
        interrupt(this.0, py.get_type::<PyBaseException>().as_any());
        if py.run(c"for _ in range(9): pass", None, None).is_ok() {
            this.forget_exception(py);
        }
        IS_TOLD.store(false, Ordering::Relaxed);
    });
}

/// A thread that runs code of Python's, as others reach it.
#[derive(Clone, Copy)]
pub(super) struct Thread(libc::pthread_t);

impl Thread {
    pub(super) fn current() -> Self {
        // SAFETY: it has no conditions.
        Self(unsafe { libc::pthread_self() })
    }

    /// Lets the thread meet an exception at its next instruction.
    pub(super) fn raise(self, exception: &Bound<'_, PyAny>) {
        interrupt(self.0, exception);
    }

    /// Takes back an exception that the thread has not met.
    pub(super) fn forget_exception(self, _py: Python<'_>) {
        IS_TOLD.store(true, Ordering::Relaxed);
        // SAFETY: the interpreter is held, and nothing is what takes it back.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.0 as _, std::ptr::null_mut()) };
    }

    /// Sends the thread, which still runs, a signal.
    pub(super) fn signal(self, number: i32) {
        // SAFETY: whoever holds this ends before the thread does.
        unsafe { libc::pthread_kill(self.0, number) };
    }
}

/// The signal that ends what takes too long: one that nobody else is known to use.
pub(super) fn time_limit_signal() -> i32 {
    libc::SIGRTMAX() - 3
}

/// Keeps this thread's state of the interpreter as long as the thread lives, so that it is not made for each request anew.
pub(super) fn keep_thread_state() {
    // SAFETY: the state is this thread's own; it is let go at once and found again by each later attachment.
    unsafe {
        ffi::PyGILState_Ensure();
        ffi::PyEval_SaveThread();
    }
}

/// Flushes the C library's own streams.
pub(super) fn flush_c_streams() {
    // SAFETY: without a stream, all of them are flushed.
    unsafe { libc::fflush(std::ptr::null_mut()) };
}

/// How deep calls may go (`sys.getrecursionlimit`).
pub(super) fn recursion_limit(_py: Python<'_>) -> i32 {
    // SAFETY: the interpreter is held.
    unsafe { ffi::Py_GetRecursionLimit() }
}

pub(super) fn set_recursion_limit(_py: Python<'_>, limit: i32) {
    // SAFETY: as above.
    unsafe { ffi::Py_SetRecursionLimit(limit) };
}

/// How many references there are to an object.
pub(super) fn count_holders(object: &Bound<'_, PyAny>) -> isize {
    // SAFETY: the object is live, and the interpreter is held.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) as isize }
}

/// An object that somebody else holds.
pub(super) fn borrowed(py: Python<'_>, object: *mut ffi::PyObject) -> Bound<'_, PyAny> {
    // SAFETY: the callers have it from a live dictionary, and the interpreter is held.
    unsafe { Bound::from_borrowed_ptr(py, object) }
}

/// Lets other threads run while `f` waits. Unlike [`Python::detach`] it takes what is this thread's own.
pub(super) fn without_interpreter<R>(_py: Python<'_>, f: impl FnOnce() -> R) -> R {
    struct Held(*mut ffi::PyThreadState);
    impl Drop for Held {
        fn drop(&mut self) {
            // SAFETY: it is the state that was saved, in the same thread.
            unsafe { ffi::PyEval_RestoreThread(self.0) };
        }
    }
    // SAFETY: the interpreter is held, as the token says; nothing that the callers do in `f` touches it.
    let _held = Held(unsafe { ffi::PyEval_SaveThread() });
    f()
}
