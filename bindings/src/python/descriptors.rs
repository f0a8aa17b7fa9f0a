//! Descriptors 0, 1 and 2 of a process that serves one request at a time.
//!
//! What children, C code and `os.write` put into descriptors 1 and 2 goes into pipes of ours. It is taken out before
//! anything else is written to the answer, so all comes in the order in which it was written; and a thread takes it out
//! meanwhile, so that nobody waits for room. Descriptor 0 is a pipe with the request's body, or a file when that is large.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use fcgi_core::Request;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::pipe::{PipeFlags, pipe_with};

/// A body that is not longer goes into a pipe, which has room for it.
const PIPE: usize = 64 << 10;
/// How long children that a script leaves running are waited for.
const PATIENCE: Duration = Duration::from_secs(10);
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
/// How often a request is looked at whose children hold its output open.
const LOOK_EVERY: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// One of the two output descriptors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    pub(super) fn number(self) -> RawFd {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    pub(super) fn put(self, request: &mut Request, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => request.stdout().write_all(bytes),
            Self::Stderr => request.stderr().write_all(bytes),
        }
    }
}

/// A pipe whose writing end is a descriptor that scripts know.
#[derive(Debug)]
struct Pipe {
    read: Arc<OwnedFd>,
    write: OwnedFd,
    inode: u64,
}

impl Pipe {
    fn new() -> io::Result<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&read, true)?;
        let inode = rustix::fs::fstat(&write)?.st_ino;
        Ok(Self { read: Arc::new(read), write, inode })
    }
}

#[derive(Debug)]
pub(super) struct Pipes {
    stdout: Pipe,
    stderr: Pipe,
    /// Says at once whether there is something in one of them.
    filled: Arc<OwnedFd>,
}

impl Pipes {
    pub(super) fn new() -> io::Result<Self> {
        let (stdout, stderr) = (Pipe::new()?, Pipe::new()?);
        let filled = epoll::create(CreateFlags::CLOEXEC)?;
        for pipe in [&stdout, &stderr] {
            epoll::add(&filled, &pipe.read, EventData::new_u64(0), EventFlags::IN)?;
        }
        Ok(Self { stdout, stderr, filled: Arc::new(filled) })
    }

    pub(super) fn ends(&self) -> Ends {
        let (stdout, stderr) = (self.stdout.read.clone(), self.stderr.read.clone());
        Ends { stdout, stderr, filled: self.filled.clone() }
    }

    /// The writing ends, each with what tells it from other files.
    pub(super) fn into_writers(self) -> [(OwnedFd, u64); 2] {
        [self.stdout, self.stderr].map(|pipe| (pipe.write, pipe.inode))
    }
}

/// The ends that we read.
#[derive(Clone, Debug)]
pub(super) struct Ends {
    stdout: Arc<OwnedFd>,
    stderr: Arc<OwnedFd>,
    filled: Arc<OwnedFd>,
}

impl Ends {
    pub(super) fn each(&self) -> [(&OwnedFd, Output); 2] {
        [(&self.stdout, Output::Stdout), (&self.stderr, Output::Stderr)]
    }

    pub(super) fn poll_fds(&self) -> [PollFd<'_>; 2] {
        [PollFd::new(&*self.stdout, PollFlags::IN), PollFd::new(&*self.stderr, PollFlags::IN)]
    }

    /// Takes out what there is, for the request or for the log.
    fn drain(&self, request: Option<&mut Request>, log: &OwnedFd) -> io::Result<()> {
        let mut event = [const { MaybeUninit::<Event>::uninit() }; 1];
        if epoll::wait(&self.filled, &mut event, Some(&NOW)).is_ok_and(|(filled, _)| filled.is_empty()) {
            return Ok(());
        }
        let mut request = request;
        let mut result = Ok(());
        for (end, output) in self.each() {
            let mut buffer = [0; 16 << 10];
            while let Ok(count @ 1..) = rustix::io::read(end, &mut buffer) {
                match &mut request {
                    Some(request) => result = output.put(request, &buffer[..count]).and(result),
                    None => log_bytes(log, &buffer[..count]),
                }
            }
        }
        result
    }

    /// Carries what children still write, until all of them have closed standard output, as a web server does with a CGI
    /// program, or for as long as we wait for children. Gives which of the two some still hold.
    pub(super) fn until_closed(&self, request: &Mutex<Request>) -> [bool; 2] {
        let deadline = Instant::now() + PATIENCE;
        let mut open = [true, true];
        let mut buffer = [0; 16 << 10];
        while open[0] {
            let mut fds = self.poll_fds();
            let waited = poll(if open[1] { &mut fds } else { &mut fds[..1] }, Some(&LOOK_EVERY));
            let mut request = lock(request);
            if waited == Ok(0) && (request.is_aborted() || Instant::now() >= deadline) {
                break;
            }
            for ((end, output), open) in self.each().into_iter().zip(&mut open) {
                while let Ok(count) = rustix::io::read(end, &mut buffer) {
                    if count == 0 {
                        *open = false;
                        break;
                    }
                    // A client that has gone does not change what children do.
                    let _ = output.put(&mut request, &buffer[..count]);
                }
            }
        }
        open
    }
}

fn log_bytes(log: &OwnedFd, mut bytes: &[u8]) {
    while let Ok(count @ 1..) = rustix::io::write(log, bytes) {
        bytes = &bytes[count..];
    }
}

struct Descriptors {
    pipes: Mutex<Pipes>,
    /// The request that runs. Whoever holds both takes this lock before the request's own.
    current: Mutex<Option<Arc<Mutex<Request>>>>,
    /// Streams of former requests, which children of theirs hold open.
    orphans: Mutex<Vec<Arc<OwnedFd>>>,
    /// A stream at its end: the standard input of requests without a body.
    nothing: OwnedFd,
    log: OwnedFd,
    wake: OwnedFd,
    /// Descriptor 0 is a body.
    has_body: AtomicBool,
}

static DESCRIPTORS: OnceLock<Descriptors> = OnceLock::new();
/// This is a child of the process that serves requests.
static FORKED: AtomicBool = AtomicBool::new(false);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes descriptors 0, 1 and 2 for requests. What is written to them without a request goes where descriptor 2 led.
///
/// # Errors
/// When the system has no pipe or no thread for us.
pub(super) fn take() -> io::Result<()> {
    if let Some(descriptors) = DESCRIPTORS.get() {
        return descriptors.install();
    }
    let (nothing, _) = pipe_with(PipeFlags::CLOEXEC)?;
    let descriptors = Descriptors {
        pipes: Mutex::new(Pipes::new()?),
        current: Mutex::default(),
        orphans: Mutex::default(),
        nothing,
        log: rustix::io::fcntl_dupfd_cloexec(standard(2), 10)?,
        wake: eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?,
        has_body: AtomicBool::new(false),
    };
    let descriptors = DESCRIPTORS.get_or_init(|| descriptors);
    put(&descriptors.nothing, 0)?;
    descriptors.install()?;
    if let Err(e) = std::thread::Builder::new().name("descriptors".to_owned()).spawn(move || descriptors.pump()) {
        // Some hosts allow one thread. What is written is taken out by us, if it is less than what a pipe holds.
        tracing::warn!("no thread for the output of child processes ({e}): more than 64 KiB at once will block them");
    }
    Ok(())
}

/// One of the descriptors 0, 1 and 2.
fn standard(number: RawFd) -> BorrowedFd<'static> {
    // SAFETY: these are open from the start, and are only ever replaced.
    unsafe { BorrowedFd::borrow_raw(number) }
}

/// Makes `number` another name of `fd`.
pub(super) fn put(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    // SAFETY: only descriptors 0 to 2 are replaced, which nobody owns.
    match unsafe { libc::dup2(fd.as_fd().as_raw_fd(), number) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

impl Descriptors {
    fn ends(&self) -> Ends {
        lock(&self.pipes).ends()
    }

    fn inode(&self, output: Output) -> u64 {
        let pipes = lock(&self.pipes);
        match output {
            Output::Stdout => pipes.stdout.inode,
            Output::Stderr => pipes.stderr.inode,
        }
    }

    /// Puts the pipes where they belong, whatever a script has put there.
    fn install(&self) -> io::Result<()> {
        let pipes = lock(&self.pipes);
        put(&pipes.stdout.write, 1)?;
        put(&pipes.stderr.write, 2)
    }

    /// Carries what comes, as long as the process lives.
    fn pump(&self) {
        loop {
            let ends = self.ends();
            let orphans = lock(&self.orphans).clone();
            let mut fds = vec![PollFd::new(&self.wake, PollFlags::IN)];
            fds.extend(ends.poll_fds());
            fds.extend(orphans.iter().map(|end| PollFd::new(&**end, PollFlags::IN)));
            let _ = poll(&mut fds, None);
            let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
            if ready[0] {
                let _ = rustix::io::read(&self.wake, &mut [0; 8]);
            }
            if ready[1] || ready[2] {
                let current = lock(&self.current);
                let mut request = current.as_ref().map(|request| lock(request));
                // The pipes may be others by now; those in use are drained.
                let _ = self.ends().drain(request.as_deref_mut(), &self.log);
            }
            for (orphan, _) in orphans.iter().zip(&ready[3..]).filter(|(_, ready)| **ready) {
                let mut buffer = [0; 4096];
                match rustix::io::read(&**orphan, &mut buffer) {
                    Ok(count @ 1..) => log_bytes(&self.log, &buffer[..count]),
                    Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                    _ => lock(&self.orphans).retain(|other| !Arc::ptr_eq(other, orphan)),
                }
            }
        }
    }

    fn begin(&self, request: &Arc<Mutex<Request>>) -> io::Result<()> {
        let body = body(&mut lock(request))?;
        let mut current = lock(&self.current);
        *current = Some(request.clone());
        drop(current);
        if let Some(body) = body {
            self.has_body.store(true, Ordering::Relaxed);
            put(body, 0)?;
        }
        Ok(())
    }

    fn end(&self, request: &Arc<Mutex<Request>>, had_children: bool) -> io::Result<()> {
        let mut current = lock(&self.current);
        let ends = self.ends();
        // What a program says behind the end of its request is for the log. A client that has gone is found out when the
        // request is finished.
        let mut has_them = current.is_some().then(|| lock(request));
        let _ = ends.drain(has_them.as_deref_mut(), &self.log);
        drop(has_them);
        if had_children {
            let former = std::mem::replace(&mut *lock(&self.pipes), Pipes::new()?);
            self.install()?;
            // Ours were the last writing ends but for those of children.
            drop(former);
            let open = ends.until_closed(request);
            let ends = [ends.stdout, ends.stderr].into_iter().zip(open).filter_map(|(end, open)| open.then_some(end));
            lock(&self.orphans).extend(ends);
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        } else {
            self.install()?;
        }
        *current = None;
        drop(current);
        if self.has_body.swap(false, Ordering::Relaxed) {
            put(&self.nothing, 0)?;
        }
        Ok(())
    }
}

/// The body as a file to read from; `None` when there is none.
pub(super) fn body(request: &mut Request) -> io::Result<Option<OwnedFd>> {
    thread_local! {
        static BUFFER: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
    }
    BUFFER.with_borrow_mut(|buffer| {
        buffer.resize(PIPE, 0);
        let mut length = 0;
        let mut ended = false;
        let mut stdin = request.stdin();
        while length < buffer.len() && !ended {
            let count = stdin.read(&mut buffer[length..])?;
            ended = count == 0;
            length += count;
        }
        if length == 0 {
            return Ok(None);
        }
        let start = &buffer[..length];
        if ended {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::io::ioctl_fionbio(&write, true)?;
            // Users with many pipes get smaller ones.
            if rustix::io::write(&write, start) == Ok(length) {
                return Ok(Some(read));
            }
        }
        let mut file = temporary_file()?;
        file.write_all(start)?;
        io::copy(&mut stdin, &mut file)?;
        file.rewind()?;
        Ok(Some(file.into()))
    })
}

/// A file without a name.
fn temporary_file() -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(std::env::temp_dir(), flags, mode) {
        Ok(fd) => Ok(fd.into()),
        // Not every file system can do it.
        Err(_) => Ok(rustix::fs::memfd_create("body", rustix::fs::MemfdFlags::CLOEXEC)?.into()),
    }
}

/// Gives the descriptors to a request.
///
/// # Errors
/// When its body cannot be read, or the system has no pipe for it.
pub(super) fn begin(request: &Arc<Mutex<Request>>) -> io::Result<()> {
    DESCRIPTORS.get().map_or(Ok(()), |descriptors| descriptors.begin(request))
}

/// Takes the descriptors back. With children, waits until they have closed their output.
pub(super) fn end(request: &Arc<Mutex<Request>>, had_children: bool) {
    if let Some(descriptors) = DESCRIPTORS.get()
        && let Err(e) = descriptors.end(request, had_children)
    {
        tracing::error!("cannot take back standard output: {e}");
    }
}

/// Takes the descriptors back and ends the request; an empty answer gets a page.
pub(super) fn finish(request: &Arc<Mutex<Request>>, status: u32, had_children: bool) {
    end(request, had_children);
    finish_alone(request, status);
}

/// Ends a request that does not have the descriptors; an empty answer gets a page.
pub(super) fn finish_alone(request: &Mutex<Request>, status: u32) {
    let mut request = lock(request);
    request.answer_with_error("500 Internal Server Error", b"");
    let _ = request.finish(status);
}

/// Carries what was written without a request to where it goes, unless there is a request.
pub(super) fn empty() {
    let Some(descriptors) = DESCRIPTORS.get() else { return };
    let current = lock(&descriptors.current);
    if current.is_none() {
        // The log takes all, or nobody does.
        let _ = descriptors.ends().drain(None, &descriptors.log);
    }
}

/// Ends what [`take`] began: what is written from now on goes straight where descriptor 2 led, even when the process ends
/// right behind it.
pub(super) fn give_back() {
    let Some(descriptors) = DESCRIPTORS.get() else { return };
    if is_forked() {
        return;
    }
    empty();
    if let Err(e) = put(&descriptors.log, 1).and_then(|()| put(&descriptors.log, 2)) {
        tracing::error!("cannot give back standard output: {e}");
    }
}

/// Whether descriptor 0 is a body.
pub(super) fn has_body() -> bool {
    DESCRIPTORS.get().is_some_and(|descriptors| descriptors.has_body.load(Ordering::Relaxed))
}

/// The body that lies in descriptor 0.
pub(super) fn spooled_body() -> Option<File> {
    has_body().then(|| standard(0).try_clone_to_owned().ok()).flatten().map(File::from)
}

/// This process has been forked off by a script: it writes to descriptors as any process does.
pub(super) fn forked() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Whether this process has been forked off by a script.
pub(super) fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Whether a descriptor leads to the answer.
pub(super) fn is_ours(output: Output) -> bool {
    let Some(descriptors) = DESCRIPTORS.get() else { return true };
    !is_forked()
        && rustix::fs::fstat(standard(output.number())).is_ok_and(|stat| stat.st_ino == descriptors.inode(output))
}

/// Writes to the answer, behind what lies in the pipes.
pub(super) fn write(request: &mut Request, output: Output, bytes: &[u8]) -> io::Result<()> {
    if let Some(descriptors) = DESCRIPTORS.get() {
        descriptors.ends().drain(Some(request), &descriptors.log)?;
    }
    output.put(request, bytes)
}

/// Writes to a descriptor that leads elsewhere; gives how much.
pub(super) fn write_through(output: Output, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::io::write(standard(output.number()), bytes)?)
}
