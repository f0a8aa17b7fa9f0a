//! Requests that run for long (`--slow-log`): another thread takes the stack of the one that runs the request, which does not
//! notice it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use fcgi_core::Params;
use fcgi_core::slow_log::SlowLog;
use pyo3::prelude::*;
use pyo3::types::PyList;

/// What tells of the requests of one thread.
pub(super) struct Slow {
    log: Arc<SlowLog>,
    /// The thread, by Python's number.
    thread: u64,
    /// Both are taken before requests come: a script may change what `import` finds.
    current_frames: Py<PyAny>,
    summary: Py<PyAny>,
    running: Mutex<Option<Running>>,
}

struct Running {
    params: Params,
    since: Instant,
}

impl Slow {
    /// What tells of the calling thread's requests.
    ///
    /// # Errors
    /// When Python lacks what it comes with.
    pub(super) fn new(py: Python<'_>, log: &Arc<SlowLog>) -> PyResult<Self> {
        Ok(Self {
            log: log.clone(),
            thread: py.import("_thread")?.call_method0("get_ident")?.extract()?,
            current_frames: py.import("sys")?.getattr("_current_frames")?.unbind(),
            summary: py.import("traceback")?.getattr("StackSummary")?.getattr("from_list")?.unbind(),
            running: Mutex::default(),
        })
    }

    /// A request begins. Its parameters are kept: who reads its body may hold the request itself.
    pub(super) fn begin(&self, params: &Params) {
        *self.running() = Some(Running { params: params.clone(), since: Instant::now() });
    }

    /// It has ended.
    pub(super) fn end(&self) {
        *self.running() = None;
    }

    /// The lock is never held while Python runs, or is waited for.
    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes where the request is. The watchdog, which looks after others, does not wait for Python.
    pub(super) fn report(self: &Arc<Self>) {
        let slow = self.clone();
        if let Err(e) = thread::Builder::new().name("slow-log".to_owned()).spawn(move || slow.write()) {
            tracing::error!("no thread for an entry of the slow log: {e}");
        }
    }

    fn write(&self) {
        let taken = Python::attach(|py| {
            let stack = self.stack(py)?;
            // Python has not run since the stack was taken, so it is this request's.
            let running = self.running();
            let Some(Running { params, since }) = &*running else { return Ok(None) };
            let (params, taken) = (params.clone(), since.elapsed());
            drop(running);
            if taken < self.log.after() {
                return Ok(None);
            }
            Ok(Some((params, taken, self.format(py, stack)?)))
        });
        match taken {
            Ok(None) => {}
            Ok(Some((params, taken, stack))) => self.log.write(&params, taken, stack.as_bytes()),
            Err(e) => Python::attach(|py| {
                let e: PyErr = e;
                tracing::error!("Python does not tell where a slow request is: {}", e.value(py));
            }),
        }
    }

    /// Files, lines and functions, the outermost first.
    fn stack<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let stack = PyList::empty(py);
        let frames = self.current_frames.bind(py).call0()?;
        let Ok(mut frame) = frames.get_item(self.thread) else { return Ok(stack) };
        while !frame.is_none() {
            let code = frame.getattr("f_code")?;
            let (file, name) = (code.getattr("co_filename")?, code.getattr("co_name")?);
            stack.append((file, frame.getattr("f_lineno")?, name, py.None()))?;
            frame = frame.getattr("f_back")?;
        }
        stack.reverse()?;
        Ok(stack)
    }

    /// As Python shows it, with the lines themselves. Reads files.
    fn format(&self, py: Python<'_>, stack: Bound<'_, PyList>) -> PyResult<String> {
        let lines: Vec<String> = self.summary.bind(py).call1((stack,))?.call_method0("format")?.extract()?;
        Ok(lines.concat())
    }
}
