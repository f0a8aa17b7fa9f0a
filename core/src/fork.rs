//! Each request in a process of its own, forked from an interpreter that is warm: CGI, without its start.
//!
//! The child has the request's streams as its descriptors 0, 1 and 2, and the request's variables as its environment. It is a
//! CGI program in all that it does, and all that it does dies with it: what C code keeps, modules, threads, a crash. The
//! parent keeps the connection, carries bytes between it and the child's pipes in both directions (`relay`), and lives on.
//!
//! In the order of a request: the parent makes the script ready ([`Warm::prepare`]), the child is born (`birth`) and runs it
//! ([`Warm::run`]), it tells what it has loaded from the library ([`Report`]), and the parent loads that as well
//! ([`Warm::preload`]), so that the next child has it.

mod birth;
mod relay;
mod report;

use std::cell::RefCell;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, WaitStatus, waitpid};

use crate::interpreter::{Interpreter, Requests, Setup};
use crate::request::Request;
use birth::{Birth, Child};
use relay::{Ended, Relay};
pub use report::Report;

/// The exit status of a child whose worker has failed it.
const FAILED: u8 = 70;

/// What a language does so that its requests run in children.
pub trait Warm {
    /// In the parent: makes ready what every child would have to do again, such as to compile the script. What fails is
    /// left to the child, which says it to its client.
    fn prepare(&mut self, script: &Path);

    /// Around the fork: what the interpreter must do about it.
    fn fork(&mut self, moment: Moment);

    /// In the child: runs the script as a CGI program that was started for it, to its very end, and gives the exit status.
    /// Descriptors and environment are the request's.
    fn run(&mut self, script: &Path, report: &Report) -> u8;

    /// In the parent, between two requests: loads what a child has reported.
    fn preload(&mut self, reported: &[Vec<u8>]);
}

/// When something is done about a fork.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// In the parent, before it.
    Before,
    /// In the parent, behind it, whether or not there is a child.
    InParent,
    /// In the child, first of all.
    InChild,
}

/// What children are made of. To be had before the interpreter is made: descriptors that are open by then are the server's,
/// and no child gets them.
pub struct Ground {
    birth: Birth,
    report: Report,
    program: OsString,
    display_errors: bool,
    timeout: Option<Duration>,
}

impl Ground {
    /// Makes ready to make children.
    ///
    /// # Errors
    /// When the system has no pipe or no memory for us.
    pub fn new(setup: &Setup) -> io::Result<Self> {
        Ok(Self {
            birth: Birth::new(setup.memory_limit)?,
            report: Report::new()?,
            program: setup.program.clone(),
            display_errors: setup.display_errors,
            timeout: setup.request_timeout,
        })
    }
}

/// Serves each request by a child of its own.
pub struct Forking<W> {
    warm: W,
    ground: Ground,
    /// Children that have answered and work on. They are asked for their ends now and then, so that none stays a zombie.
    left: Vec<Pid>,
}

impl<W: Warm> Forking<W> {
    /// Serves with children of a warm interpreter.
    pub fn new(ground: Ground, warm: W) -> Self {
        Self { warm, ground, left: Vec::new() }
    }

    /// Makes the child and carries its bytes to the end of its request.
    fn answer(&mut self, script: &Path, request: &mut Request, more: &Rc<RefCell<Requests>>) -> io::Result<Ended> {
        let Self { warm, ground, .. } = self;
        warm.prepare(script);
        ground.report.clear();
        let servers = more.borrow().server().descriptors();
        let born = ground.birth.give(request, &servers, |moment| warm.fork(moment))?;
        let streams = match born {
            Child::Parent(streams) => streams,
            Child::Itself => {
                // Whatever happens, it must not go on as if it were the parent.
                let run = std::panic::AssertUnwindSafe(|| warm.run(script, &ground.report));
                let status = std::panic::catch_unwind(run).unwrap_or(FAILED);
                std::process::exit(status.into());
            }
        };
        Relay::new(streams, ground.timeout, ground.display_errors).carry(request)
    }

    /// Says how it ended and ends the request.
    fn finish(&mut self, script: &Path, request: &mut Request, ended: io::Result<Ended>) {
        let shown = script.display();
        let status = match ended {
            Ok(Ended::Exited { status, said }) => {
                request.answer_with_error("500 Internal Server Error", &said);
                status
            }
            Ok(Ended::Killed { signal, said }) => {
                let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal without a name");
                tracing::warn!("{shown} was killed by {name}");
                request.answer_with_error("500 Internal Server Error", &said);
                128 + signal as u32
            }
            Ok(Ended::Late) => {
                let timeout = self.ground.timeout.unwrap_or_default();
                tracing::warn!("{shown} took longer than {timeout:?} and was ended (--request-timeout)");
                1
            }
            Ok(Ended::WorksOn { child }) => {
                self.left.push(child);
                request.answer_with_error("500 Internal Server Error", b"");
                0
            }
            Err(e) => {
                let _ = writeln!(request.stderr(), "{}: {shown}: no child for it: {e}", self.ground.program.display());
                request.answer_with_error("500 Internal Server Error", b"");
                FAILED.into()
            }
        };
        // A client that has gone needs no answer.
        let _ = request.finish(status);
    }
}

impl<W: Warm> Interpreter for Forking<W> {
    fn serve(&mut self, script: &Path, mut request: Request, more: &Rc<RefCell<Requests>>) {
        let ended = self.answer(script, &mut request, more);
        self.finish(script, &mut request, ended);
        let reported = self.ground.report.read();
        if !reported.is_empty() {
            self.warm.preload(&reported);
        }
        self.left.retain(|child| matches!(waitpid(Some(*child), WaitOptions::NOHANG), Ok(None)));
    }
}

/// How a process has ended, as its parent is told.
fn ended(status: WaitStatus, said: Vec<u8>) -> Ended {
    match status.terminating_signal() {
        Some(signal) => Ended::Killed { signal, said },
        None => Ended::Exited { status: status.exit_status().unwrap_or_default() as u32, said },
    }
}
