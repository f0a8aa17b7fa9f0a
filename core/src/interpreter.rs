//! The seam to a language, and where a language gets its requests from.

use std::cell::{Cell, RefCell};
use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::request::Request;
use crate::script::{NoScript, Scripts, Watch};
use crate::server::Server;
use crate::slow_log::SlowLog;
use crate::watchdog::Watchdog;

/// What an interpreter must know to be made: the same for every language.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The name that the program was called by: it stands before error messages.
    pub program: OsString,
    /// The whole command line.
    pub command_line: Vec<OsString>,
    /// The interpreter's own options, with their values.
    pub own: Vec<OsString>,
    /// Whether `--` ended the options.
    pub own_ended: bool,
    /// The script; `-` is standard input.
    pub script: Option<OsString>,
    /// Arguments of the script.
    pub arguments: Vec<OsString>,
    /// The process is a CGI program: a web server waits for one answer.
    pub is_cgi: bool,
    /// Error pages tell what went wrong.
    pub display_errors: bool,
    /// Requests may be for other scripts, too.
    pub other_scripts: bool,
    /// Other interpreters run in this process.
    pub shared_process: bool,
    /// Other processes serve the same requests.
    pub several_processes: bool,
    /// What separates one request from the next.
    pub isolation: Isolation,
    /// What scripts leave behind is to be [found](crate::audit::found), where that is [wanted](crate::audit::is_wanted).
    pub audit: bool,
    /// Bytes that one interpreter may use.
    pub memory_limit: Option<usize>,
    /// How long requests that are running may go on once the process is told to stop.
    pub shutdown_timeout: Duration,
    /// How long a request may run, if there is a limit.
    pub request_timeout: Option<Duration>,
    /// Has an entry for each request that runs for long.
    pub slow_log: Option<Arc<SlowLog>>,
    /// Notices requests that run for long.
    pub watchdog: Option<Watchdog>,
    /// Options of the runner that only this language has, by their long names, with their values ("" for those that take
    /// none).
    pub options: Vec<(&'static str, OsString)>,
}

impl Setup {
    /// The value of an option that only this language has.
    pub fn option(&self, name: &str) -> Option<&OsStr> {
        self.options.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }
}

/// What separates one request from the next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Isolation {
    /// One interpreter runs one request after the other; what a script changes is put back. Modules stay.
    #[default]
    Globals,
    /// Each request gets a fresh interpreter with the compiled script; nothing stays.
    State,
    /// Each request runs in a child process, forked from an interpreter that is warm; nothing stays.
    Fork,
}

thread_local! {
    static KEEPS: Cell<bool> = const { Cell::new(false) };
}

/// Notes that what the request of this thread leaves behind is meant to stay: it is one of an accept loop, or of an application.
pub fn keeps() {
    KEEPS.set(true);
}

/// Whether that was so since the last question.
pub(crate) fn has_kept() -> bool {
    KEEPS.take()
}

/// One interpreter, which lives in one thread and serves one request after the other.
pub trait Interpreter {
    /// Runs a script for a request and finishes the request. Whatever the script did must not be seen by the next one;
    /// whatever goes wrong is said on the request's error stream and by its exit status.
    ///
    /// A script may ask for `more` requests itself: an accept loop inside a script and the runner's own are the same.
    fn serve(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>);
}

/// The requests of a server, each with its script.
#[derive(Debug)]
pub struct Requests {
    server: Arc<Server>,
    scripts: Scripts,
    /// Came while a script looped that was not meant.
    put_back: Option<(PathBuf, Request)>,
}

impl Requests {
    /// All requests of a server.
    pub fn new(server: Arc<Server>, scripts: Scripts) -> Self {
        Self { server, scripts, put_back: None }
    }

    /// The server whose requests these are.
    pub fn server(&self) -> &Arc<Server> {
        &self.server
    }

    /// The next request and its script; requests without one are answered on the way. `None` when the server stops.
    ///
    /// # Errors
    /// As for [`Server::accept`].
    pub fn accept(&mut self) -> io::Result<Option<(PathBuf, Request)>> {
        if let Some(next) = self.put_back.take() {
            return Ok(Some(next));
        }
        while let Some(mut request) = self.server.accept()? {
            match self.scripts.locate(request.params_mut()) {
                Ok(script) => return Ok(Some((script, request))),
                Err(why) => refuse(request, &why),
            }
        }
        Ok(None)
    }

    /// The next request for a script that loops. `None` when the server stops, and when a request for another script has
    /// come: it is what [`accept`](Self::accept) gives then.
    ///
    /// # Errors
    /// As for [`Server::accept`].
    fn accept_for(&mut self, script: &Path) -> io::Result<Option<Request>> {
        match self.accept()? {
            Some((named, request)) if named == script => Ok(Some(request)),
            other => {
                self.put_back = other;
                Ok(None)
            }
        }
    }
}

/// The requests of a script that asks for them itself: an accept loop.
#[derive(Debug)]
pub struct Loop {
    script: Rc<Path>,
    requests: Rc<RefCell<Requests>>,
    /// Looks after the script's file, once it loops.
    watch: Option<Watch>,
}

impl Loop {
    /// For a script that runs for a request, and may ask for more.
    pub fn new(script: Rc<Path>, requests: Rc<RefCell<Requests>>) -> Self {
        Self { script, requests, watch: None }
    }

    /// The script begins to loop, with the request that it was started for.
    pub fn begin(&mut self) {
        keeps();
        self.watch = Some(Watch::new(&self.script));
    }

    /// The next request; the one before has been finished. `None` when the script shall end: the server stops, a request for
    /// another script has come, the script's file has changed, whose new version answers the request, or its requests are to run elsewhere.
    ///
    /// # Errors
    /// As for [`Server::accept`].
    #[expect(clippy::should_implement_trait, reason = "it is no iterator: it fails, and may give more after `None`")]
    pub fn next(&mut self) -> io::Result<Option<Request>> {
        let mut requests = self.requests.borrow_mut();
        let next = requests.accept_for(&self.script)?;
        if let Some(request) = next {
            let is_trusted = !requests.server.is_demoted(&self.script);
            if is_trusted && !self.watch.as_mut().is_some_and(Watch::has_changed) {
                return Ok(Some(request));
            }
            requests.put_back = Some((self.script.to_path_buf(), request));
        }
        Ok(None)
    }
}

/// Serves all requests of a server by one interpreter, in the calling thread, until the server stops.
///
/// # Errors
/// As for [`Server::accept`].
pub fn serve_all(interpreter: &mut dyn Interpreter, requests: Requests) -> io::Result<()> {
    let requests = Rc::new(RefCell::new(requests));
    loop {
        let next = requests.borrow_mut().accept()?;
        let Some((script, request)) = next else { return Ok(()) };
        interpreter.serve(&script, request, &requests);
    }
}

fn refuse(mut request: Request, why: &NoScript) {
    tracing::warn!("{why}");
    let status = why.status();
    // A client that has gone needs no answer.
    let _ = writeln!(request.stderr(), "{why}");
    request.answer_with_error(status, b"");
    let _ = request.finish(0);
}
