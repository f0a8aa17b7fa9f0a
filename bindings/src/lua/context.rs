//! What the functions of the interpreter reach of the request that runs. One interpreter lives in one thread, and so does
//! its context.

use std::cell::{Cell, RefCell};
use std::io::{self, Read, Write};
use std::ptr::NonNull;

use fcgi_core::interpreter::Loop;
use fcgi_core::watchdog::Watched;
use fcgi_core::{Request, child::Streams};

use super::pristine::Shape;

/// The status of a program that SIGPIPE has killed, as shells report it.
const CLIENT_GONE: i32 = 128 + libc::SIGPIPE;

/// How a script ended itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Exit {
    pub(super) status: i32,
    /// `os.exit(_, true)`: pending variables are closed and finalizers run.
    pub(super) close: bool,
}

/// What the script did that costs more than comparing tables to undo.
#[derive(Default)]
pub(super) struct Traces {
    pub(super) collector: Cell<bool>,
    pub(super) locale: Cell<bool>,
    pub(super) random: Cell<bool>,
    pub(super) buffering: Cell<bool>,
    /// The default files were set.
    pub(super) files: Cell<bool>,
    /// LuaJIT's compiler was set.
    pub(super) compiler: Cell<bool>,
    pub(super) registry: Cell<bool>,
    /// Metatables that only `debug.setmetatable` can set were set.
    pub(super) metatables: Cell<bool>,
    /// Tables with a `__gc` metamethod were made.
    pub(super) finalizers: Cell<bool>,
    /// Files were opened, or C modules made userdata: what is left of them must be collected, for files are flushed and
    /// closed then.
    pub(super) userdata: Cell<bool>,
}

impl Traces {
    fn forget(&self) {
        let Self { collector, locale, random, buffering, files, compiler, registry, .. } = self;
        let Self { metatables, finalizers, userdata, .. } = self;
        for trace in [collector, locale, random, buffering, files, compiler, registry, metatables, finalizers, userdata]
        {
            trace.set(false);
        }
    }
}

#[derive(Default)]
pub(super) struct Context {
    pub(super) request: RefCell<Option<Request>>,
    pub(super) children: RefCell<Option<Streams>>,
    pub(super) exit: Cell<Option<Exit>>,
    pub(super) traces: Traces,
    /// Counts whenever the script looks at its request or answers.
    pub(super) looks: Cell<u64>,
    /// How deep `require` is in itself.
    pub(super) loading: Cell<i32>,
    /// Counts requests.
    pub(super) requests: Cell<i64>,
    /// Calls of `xpcall` that the script is in.
    pub(super) handlers: Cell<u32>,
    /// So many allocations of userdata are to fail.
    pub(super) no_memory: Cell<u8>,
    /// Modules that are not to be kept.
    pub(super) volatile: RefCell<Vec<Vec<u8>>>,
    pub(super) warnings: Cell<bool>,
    pub(super) warning_continues: Cell<bool>,
    /// Other interpreters run in this process.
    pub(super) shared_process: Cell<bool>,
    /// Where more requests for the script that runs come from.
    pub(super) accept: RefCell<Option<Loop>>,
    /// The exit status of the request, unless the script ends otherwise.
    pub(super) status: Cell<u32>,
    /// Interrupts requests that run too long.
    pub(super) watched: RefCell<Option<Watched>>,
    /// What is said of a request that was interrupted.
    pub(super) timed_out: RefCell<Option<Vec<u8>>>,
    /// `accept` has been called: it has given the request that the script was started for.
    pub(super) accepted: Cell<bool>,
    /// The metatable of texts in the state that runs, as it is unless a script changes it, if that is known.
    pub(super) texts: Cell<Option<NonNull<Shape>>>,
}

thread_local! {
    static CONTEXT: Context = Context::default();
}

/// Calls `f` with this thread's context.
pub(super) fn with<R>(f: impl FnOnce(&Context) -> R) -> R {
    CONTEXT.with(f)
}

impl Context {
    /// The script looked at its request.
    pub(super) fn looked(&self) {
        self.looks.set(self.looks.get() + 1);
    }

    /// Does something with the request; nothing when there is none.
    pub(super) fn request<R>(&self, f: impl FnOnce(&mut Request) -> R) -> Option<R> {
        self.request.borrow_mut().as_mut().map(f)
    }

    pub(super) fn read_stdin(&self, buf: &mut [u8]) -> io::Result<usize> {
        self.looked();
        self.request(|request| match self.children.borrow_mut().as_mut() {
            Some(children) => children.read_body(request, buf),
            None => request.stdin().read(buf),
        })
        .unwrap_or(Ok(0))
    }

    pub(super) fn write_stdout(&self, bytes: &[u8]) -> io::Result<()> {
        self.looked();
        self.request(|request| request.stdout().write_all(bytes)).unwrap_or(Ok(()))
    }

    /// Writes a text and the end of its line.
    pub(super) fn write_line(&self, text: &[u8]) -> io::Result<()> {
        self.looked();
        let write = |request: &mut Request| {
            let mut stdout = request.stdout();
            stdout.write_all(text)?;
            stdout.write_all(b"\n")
        };
        self.request(write).unwrap_or(Ok(()))
    }

    pub(super) fn write_stderr(&self, bytes: &[u8]) -> io::Result<()> {
        self.looked();
        match self.request(|request| request.stderr().write_all(bytes)) {
            Some(result) => result,
            // Between requests there is only our own log.
            None => io::stderr().write_all(bytes),
        }
    }

    /// Nobody reads what the script writes: it is to end as soon as it calls one of our functions.
    pub(super) fn client_has_gone(&self) {
        if self.exit.get().is_none() {
            self.exit.set(Some(Exit { status: CLIENT_GONE, close: false }));
        }
    }

    /// A variable of the request. The value is good as long as the request is left alone: it is no borrow, because Lua may
    /// raise an error while it is copied.
    pub(super) fn param(&self, name: &[u8]) -> Option<*const [u8]> {
        let request = self.request.borrow();
        let value = request.as_ref().and_then(|r| r.params().get(name));
        if value.is_some() || is_cgi_variable(name) {
            self.looked();
        }
        value.map(std::ptr::from_ref)
    }

    /// A request begins to run.
    pub(super) fn begin_watch(&self) {
        self.watched.borrow().iter().for_each(Watched::begin);
    }

    /// The request may take its time from now on.
    pub(super) fn end_watch(&self) {
        self.watched.borrow().iter().for_each(Watched::end);
    }

    /// Takes back what has been written but not sent.
    pub(super) fn discard(&self) -> bool {
        super::stdio::renew();
        self.request(Request::discard).unwrap_or(false)
    }

    /// Ends the request: what its children still say is taken, an empty answer gets a page, all is sent. `details` go on
    /// that page.
    pub(super) fn finish(&self, status: u32, details: &[u8]) {
        let Some(mut request) = self.request.take() else { return };
        let timed_out = self.timed_out.borrow().is_some();
        match self.children.take() {
            // Nobody waits for children that did not come back in time.
            Some(children) if !timed_out => children.finish(&mut request),
            _ => {}
        }
        if timed_out && !request.is_finished() {
            request.discard();
        }
        let page = if timed_out { "504 Gateway Timeout" } else { "500 Internal Server Error" };
        request.answer_with_error(page, details);
        let _ = request.finish(status);
    }

    /// Forgets what belongs to one request.
    pub(super) fn reset(&self) {
        // They tell of a state that was put back, or is no scripts' any more.
        self.traces.forget();
        self.status.set(0);
        self.accepted.set(false);
        self.accept.take();
        self.exit.set(None);
        self.timed_out.take();
        self.handlers.set(0);
        self.no_memory.set(0);
        self.loading.set(0);
        self.warnings.set(false);
        self.warning_continues.set(false);
        self.requests.set(self.requests.get() + 1);
    }
}

/// Whether a variable is one that web servers set, though this request may lack it.
fn is_cgi_variable(name: &[u8]) -> bool {
    const BEGINNINGS: [&[u8]; 8] =
        [b"HTTP_", b"REQUEST_", b"REMOTE_", b"SCRIPT_", b"SERVER_", b"PATH_", b"CONTENT_", b"QUERY_STRING"];
    BEGINNINGS.iter().any(|start| name.starts_with(start))
}
