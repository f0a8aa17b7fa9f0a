//! Trust that is taken back (`--isolation auto`): every script begins with an interpreter that runs one request after the other; one
//! that leaves something behind for the next request is demoted, and each of its requests runs in a child process from then on
//! ([`fork`](crate::fork)). One that ends its worker the parent demotes.
//!
//! Children are forked by processes of another pool, whose interpreters have run no script: to these a request goes by a
//! connection of its own, which is given to them as workers give connections to each other.
//!
//! To look at what a script leaves costs more than to run a short one. So the first requests of each script are looked at in each
//! process, and then one in many.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use crate::audit::Audited;
use crate::client::{self, Client, ClientError, Event};
use crate::handover;
use crate::interpreter::{self, Interpreter, Requests};
use crate::request::Request;
use crate::scoreboard::{Full, Scoreboard};

/// So many requests of a script are looked at first.
pub const FIRST: u64 = 8;
/// Then one in so many.
pub const EVERY: u64 = 256;
/// Scripts whose requests are counted.
const COUNTED: usize = 4096;

thread_local! {
    /// Where it is noted what runs in this thread.
    static BOARD: RefCell<Option<Scoreboard>> = const { RefCell::new(None) };
}

/// What runs in this thread serves many requests at once from now on: it is of no use in a child process, and whatever ends the
/// worker, it is not demoted.
pub fn serves_by_itself() {
    interpreter::keeps();
    BOARD.with_borrow(|board| board.iter().for_each(|board| board.runs(None)));
}

/// An interpreter that scripts are trusted with until they leave something behind.
pub struct Trusting {
    inner: Audited,
    board: Scoreboard,
    /// Where connections are given to those who fork.
    elsewhere: OwnedFd,
    /// Requests of each script in this process.
    seen: HashMap<PathBuf, u64>,
}

impl Trusting {
    /// Serves by an interpreter of this process, which has a line of the scoreboard; demoted scripts elsewhere, by what the parent
    /// has passed as `elsewhere`.
    pub fn new(inner: Box<dyn Interpreter>, board: Scoreboard, elsewhere: OwnedFd) -> Self {
        BOARD.replace(Some(board.clone()));
        Self { inner: Audited::new(inner), board, elsewhere, seen: HashMap::new() }
    }

    /// Whether the request that comes now is to be looked at.
    fn is_due(&mut self, script: &Path) -> bool {
        if !self.seen.contains_key(script) {
            if self.seen.len() >= COUNTED {
                self.seen.clear();
            }
            self.seen.insert(script.to_owned(), 0);
        }
        let Some(count) = self.seen.get_mut(script) else { return true };
        *count += 1;
        *count <= FIRST || *count % EVERY == 0
    }

    fn look_at(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        interpreter::has_kept();
        let findings = self.inner.look_at(script, request, more);
        if interpreter::has_kept() {
            return;
        }
        let Some(left) = findings.into_iter().find(|finding| finding.stays) else { return };
        demoted(self.board.demote(script), script, &left.what);
        // What it has left is still here. Another process takes the place of this one.
        more.borrow().server().ask_to_be_replaced();
    }
}

impl Interpreter for Trusting {
    fn serve(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        if self.board.is_demoted(script) {
            return pass_on(request, &self.elsewhere);
        }
        self.board.runs(Some(script));
        if self.is_due(script) {
            self.look_at(script, request, more);
        } else {
            self.inner.pass_on(script, request, more);
        }
        self.board.runs(None);
    }
}

/// Says it once.
pub(crate) fn demoted(is_new: Result<bool, Full>, script: &Path, why: &str) {
    let shown = script.display();
    match is_new {
        Ok(true) => tracing::warn!(
            "{shown}: {why}: each of its requests runs in a process of its own from now on (--isolation auto)"
        ),
        Ok(false) => {}
        Err(full) => tracing::warn!("{shown}: {why}: it is trusted on, for these are {full} (--isolation auto)"),
    }
}

/// Lets others answer a request, who take it from a connection.
fn pass_on(mut request: Request, elsewhere: &OwnedFd) {
    let status = match answer_by(&mut request, elsewhere) {
        Ok(status) => status,
        Err(e) => {
            let _ = writeln!(request.stderr(), "the request could not be given to a process of its own: {e}");
            if request.discard() {
                request.answer_with_error("500 Internal Server Error", b"");
            }
            1
        }
    };
    // A client that has gone needs no answer.
    let _ = request.finish(status);
}

fn answer_by(request: &mut Request, elsewhere: &OwnedFd) -> Result<u32, ClientError> {
    let (ours, theirs) = UnixStream::pair()?;
    handover::give(elsewhere.as_fd(), theirs.as_fd(), false).map_err(io::Error::from)?;
    drop(theirs);
    let mut client = Client::over(ours.into())?;
    let aborter = client.aborter()?;
    let params = request.params().clone();
    let role = request.role() as u16;
    let shared = RefCell::new(request);
    let asked =
        client::Request { id: 1, role, keep_conn: false, params: &params, stdin: &mut Body(&shared), data: None };
    let ended = client.request(asked, &mut |event| {
        let mut request = shared.borrow_mut();
        let written = match event {
            // What comes in pieces was sent in pieces.
            Event::Stdout(bytes) => {
                let mut stdout = request.stdout();
                stdout.write_all(bytes).and_then(|()| stdout.flush())
            }
            Event::Stderr(bytes) => request.stderr().write_all(bytes),
        };
        if written.is_err() {
            aborter.abort();
        }
    })?;
    Ok(ended.app_status)
}

/// The body of a request.
struct Body<'a, 'b>(&'a RefCell<&'b mut Request>);

impl Read for Body<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.borrow_mut().stdin().read(buffer)
    }
}
