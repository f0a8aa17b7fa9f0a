//! The streams of one request where several run in one process: descriptors 0, 1 and 2 are then nobody's own. A request has
//! descriptors with other numbers in their place: its body, and pipes that are made when somebody asks for them (a child
//! process, `sys.stdout.fileno()`). What comes through the pipes is put into the answer before anything that is written later.
#![allow(unsafe_code)]

use std::io::{self, Write};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fcgi_core::Request;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use rustix::event::poll;
use rustix::pipe::{PipeFlags, pipe_with};

use super::descriptors::{self, Ends, Output, Pipes};
use super::ffi;

/// The writing ends of all requests, which a child of one of them is not to hold.
static WRITERS: Mutex<Vec<RawFd>> = Mutex::new(Vec::new());

fn writers() -> MutexGuard<'static, Vec<RawFd>> {
    WRITERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a request has in place of the process's descriptors 0, 1 and 2.
#[pyclass(frozen, module = "fcgi._fcgi")]
pub(super) struct Channel {
    request: Arc<Mutex<Request>>,
    /// Whoever holds both locks this before the request.
    own: Mutex<Own>,
    /// Nothing is sent before the request's end.
    ending: AtomicBool,
    had_children: AtomicBool,
}

/// The descriptors, as far as there are any.
#[derive(Default)]
struct Own {
    stdin: Option<OwnedFd>,
    /// The writing ends: stdout, stderr.
    write: [Option<Writer>; 2],
    ends: Option<Ends>,
    /// The request is over, or this is a child that a script forked.
    closed: bool,
}

struct Writer {
    fd: OwnedFd,
    inode: u64,
    /// The script has put something else in its place.
    replaced: bool,
}

impl Own {
    /// Makes the pipes, unless there are some. Somebody must take out what is written into them.
    fn pipes(&mut self, channel: &Arc<Mutex<Request>>) -> io::Result<()> {
        if self.ends.is_some() {
            return Ok(());
        }
        let pipes = Pipes::new()?;
        let ends = pipes.ends();
        self.write = pipes.into_writers().map(|(fd, inode)| Some(Writer { fd, inode, replaced: false }));
        self.ends = Some(ends.clone());
        writers().extend(self.write.iter().flatten().map(|writer| writer.fd.as_raw_fd()));
        let request = channel.clone();
        let carry = move || carry(&ends, &request);
        if let Err(e) = std::thread::Builder::new().name("descriptors".to_owned()).spawn(carry) {
            tracing::warn!(
                "no thread for the output of child processes ({e}): more than 64 KiB at once will block them"
            );
        }
        Ok(())
    }

    fn number(&self, of: RawFd) -> Option<RawFd> {
        match of {
            0 => self.stdin.as_ref().map(AsRawFd::as_raw_fd),
            1 | 2 => self.write[of as usize - 1].as_ref().map(|writer| writer.fd.as_raw_fd()),
            _ => None,
        }
    }

    /// Lets go of the writing ends. A number that the script has closed behind our back may be somebody else's by now.
    fn close_writers(&mut self) {
        for writer in self.write.iter_mut().filter_map(Option::take) {
            writers().retain(|number| *number != writer.fd.as_raw_fd());
            let is_ours = writer.replaced || rustix::fs::fstat(&writer.fd).is_ok_and(|s| s.st_ino == writer.inode);
            if !is_ours {
                let _ = writer.fd.into_raw_fd();
            }
        }
    }
}

impl Channel {
    /// For a request whose body has been taken from it.
    pub(super) fn new(request: &Arc<Mutex<Request>>, body: Option<OwnedFd>) -> Self {
        let (ending, had_children) = (AtomicBool::new(false), AtomicBool::new(false));
        let own = Mutex::new(Own { stdin: body, ..Own::default() });
        Self { request: request.clone(), own, ending, had_children }
    }

    fn own(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn request(&self) -> MutexGuard<'_, Request> {
        self.request.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body that has been taken from the request, as a file.
    pub(super) fn body(&self) -> Option<std::fs::File> {
        self.own().stdin.as_ref()?.try_clone().ok().map(std::fs::File::from)
    }

    /// From now on nothing is sent before the request's end; or again it is.
    pub(super) fn set_ending(&self, ending: bool) {
        self.ending.store(ending, Ordering::Relaxed);
    }

    fn put(&self, py: Python<'_>, data: &Bound<'_, PyAny>, output: Output) -> PyResult<usize> {
        let bytes = ffi::as_bytes(data)?;
        let bytes = bytes.as_bytes();
        let written = py.detach(|| {
            if descriptors::is_forked() {
                return descriptors::write_through(output, bytes);
            }
            let own = self.own();
            match &own.write[output.number() as usize - 1] {
                Some(writer) if writer.replaced => Ok(rustix::io::write(&writer.fd, bytes)?),
                _ => {
                    let ends = own.ends.clone();
                    drop(own);
                    let mut request = self.request();
                    if let Some(ends) = ends {
                        drain(&ends, &mut request)?;
                    }
                    output.put(&mut request, bytes).map(|()| bytes.len())
                }
            }
        });
        written.map_err(|e| match e.raw_os_error() {
            None if e.kind() == io::ErrorKind::BrokenPipe => PyOSError::new_err((libc::EPIPE, "Broken pipe")),
            _ => e.into(),
        })
    }
}

#[pymethods]
impl Channel {
    /// What writing to descriptor 1 does.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.put(py, data, Output::Stdout)
    }

    /// What writing to descriptor 2 does.
    fn write_error(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        self.put(py, data, Output::Stderr)
    }

    /// Sends what has been written, unless the request ends anyway.
    fn flush(&self, py: Python<'_>) -> PyResult<()> {
        if self.ending.load(Ordering::Relaxed) || descriptors::is_forked() {
            return Ok(());
        }
        Ok(py.detach(|| self.request().stdout().flush())?)
    }

    /// Nothing is sent any more before the request's end.
    fn end(&self) {
        self.set_ending(true);
    }

    /// Whether there is a body.
    fn has_body(&self) -> bool {
        self.own().stdin.is_some()
    }

    /// The request's own descriptor in place of 0, 1 or 2. In a child that a script forked, these are its own.
    fn fileno(&self, of: RawFd) -> PyResult<RawFd> {
        if descriptors::is_forked() {
            return Ok(of);
        }
        let mut own = self.own();
        if !own.closed {
            if of == 0 && own.stdin.is_none() {
                own.stdin = Some(pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?.0);
            } else if of != 0 {
                own.pipes(&self.request)?;
            }
        }
        Ok(own.number(of).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))?)
    }

    /// The script has put something else behind one of the descriptors, which it knows by our number.
    fn replaced(&self, number: RawFd) {
        for writer in self.own().write.iter_mut().flatten() {
            if writer.fd.as_raw_fd() == number {
                let stat = rustix::fs::fstat(&writer.fd);
                writer.replaced = stat.is_ok_and(|stat| stat.st_ino != writer.inode);
            }
        }
    }

    /// Which of 0, 1 and 2 a number of ours stands for.
    fn stands_for(&self, number: RawFd) -> Option<RawFd> {
        let own = self.own();
        (0..3).find(|of| own.number(*of) == Some(number))
    }

    /// The script starts other processes, which may hold its descriptors.
    fn children(&self) {
        self.had_children.store(true, Ordering::Relaxed);
    }

    /// This process is a child that the script has forked: the descriptors get the numbers that it has heard of.
    fn become_process(&self, py: Python<'_>) -> PyResult<()> {
        Ok(py.detach(|| {
            let own = self.own();
            for of in 0..3 {
                // SAFETY: only descriptors 0 to 2 are replaced, which nobody owns; the other one is open.
                let fd = own.number(of).map(|number| unsafe { BorrowedFd::borrow_raw(number) });
                fd.map_or(Ok(()), |fd| descriptors::put(fd, of))?;
            }
            // Other requests would wait until this child has ended.
            if let Ok(mut writers) = WRITERS.try_lock() {
                for number in
                    writers.drain(..).filter(|number| own.number(1) != Some(*number) && own.number(2) != Some(*number))
                {
                    // SAFETY: whoever owns it does not run in this process.
                    unsafe { libc::close(number) };
                }
            }
            Ok::<(), io::Error>(())
        })?)
    }

    /// Takes what still comes through the pipes into the answer, and lets go of all descriptors. With children, waits until
    /// they have closed their output.
    fn close(&self, py: Python<'_>) {
        let mut own = self.own();
        own.closed = true;
        own.close_writers();
        own.stdin = None;
        let Some(ends) = own.ends.take() else { return };
        drop(own);
        py.detach(|| {
            // A client that has gone is found out when the request is finished.
            let _ = drain(&ends, &mut self.request());
            if self.had_children.load(Ordering::Relaxed) {
                ends.until_closed(&self.request);
            }
        });
    }

    /// Ends the request where its script stands: what is still in buffers of Python's is not said.
    fn abandon(&self, py: Python<'_>, status: u32) {
        self.close(py);
        py.detach(|| descriptors::finish(&self.request, status, false));
    }
}

/// Takes out what there is.
fn drain(ends: &Ends, request: &mut Request) -> io::Result<()> {
    let mut result = Ok(());
    let mut buffer = [0; 16 << 10];
    for (end, output) in ends.each() {
        while let Ok(count @ 1..) = rustix::io::read(end, &mut buffer) {
            result = put(request, output, &buffer[..count]).and(result);
        }
    }
    result
}

/// Puts bytes into the answer; into the log when that is over.
fn put(request: &mut Request, output: Output, bytes: &[u8]) -> io::Result<()> {
    if request.is_finished() { io::stderr().write_all(bytes) } else { output.put(request, bytes) }
}

/// Carries what comes, until nobody holds the other ends any more.
fn carry(ends: &Ends, request: &Mutex<Request>) {
    let mut open = [true, true];
    let mut buffer = [0; 16 << 10];
    while open[0] || open[1] {
        let mut fds = ends.poll_fds();
        // A stream at its end would be ready for ever.
        let waited: &mut [_] = match open {
            [true, true] => &mut fds,
            [true, false] => &mut fds[..1],
            _ => &mut fds[1..],
        };
        let _ = poll(waited, None);
        let mut request = request.lock().unwrap_or_else(PoisonError::into_inner);
        for ((end, output), open) in ends.each().into_iter().zip(&mut open) {
            while let Ok(count) = rustix::io::read(end, &mut buffer) {
                if count == 0 {
                    *open = false;
                    break;
                }
                // A client that has gone does not change what children do.
                let _ = put(&mut request, output, &buffer[..count]);
            }
        }
    }
}

/// Says once in the log what scripts cannot have for themselves with `--threads`.
#[pyfunction]
pub(super) fn not_with_threads(what: &str) {
    static SAID: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if !said.iter().any(|known| known == what) {
        tracing::warn!("{what} does nothing with --threads: it is for the whole process (--workers gives each one)");
        said.push(what.to_owned());
    }
}
