//! The parent of several processes: it starts them, replaces those that end, and passes on what it is told by signals. It
//! runs no script, so no script can harm it.
//!
//! One parent looks after several [pools](Pool). A worker is a process that inherits its pool's listening sockets, and a
//! socket on which both tell each other what there is to tell (`control`).
//!
//! # Signals
//!
//! | signal | what happens |
//! | --- | --- |
//! | TERM, INT | quick stop: no more connections, what has begun may go on for five seconds ([`QUICK`]), exit status 0; a second INT ends everything at once |
//! | QUIT, WINCH | graceful stop: the same, and what has begun may go on for [`Plan::shutdown_timeout`] |
//! | HUP, USR2 | reload: options, scripts and the program itself are new; the sockets stay open, and no request is lost |
//! | USR1 | nothing: the log goes to standard error, and whoever keeps it opens it anew |
//!
//! WINCH is left out on a terminal, which sends it whenever its window changes. A worker that is told to stop by a signal of
//! its own asks its parent to be replaced.
//!
//! # Reload
//!
//! First the new program is tried: started with the same command line and the open sockets, it does everything up to
//! serving, and ends. When it complains, all stays as it is, and the log says so. Otherwise the parent becomes the new
//! program (`exec`, so it keeps its process id, its sockets and its workers), which starts workers of its own. When these
//! serve, those from before give their connections to them, finish what they have begun, and end. When these fail before they
//! serve, those from before go on.
//!
//! With [`Plan::watched`], changed files reload the server as a signal does, and the program that is tried is told which they
//! are ([`Kept::changed`]).
//!
//! In the order of reading: `control` (what both sides say), `link` (a worker's end), `worker` (one process), `template`
//! (which forks them), `pool` (how many there should be), `reception` (what the parent answers), `lobby` (whether connections
//! wait), `entrance` (where they come), `crew` (those that there are), `sources` (files that are watched), `reload` (from one
//! program to the next), `parent` (the loop).

pub(crate) mod control;
mod crew;
mod entrance;
pub(crate) mod link;
mod lobby;
mod observer;
mod parent;
mod pool;
mod reception;
mod reload;
mod sources;
mod template;
mod worker;

use std::ffi::OsString;
use std::time::Duration;

use crate::listener::Listener;
use crate::scoreboard::Scoreboard;

pub use link::Link;
pub use observer::{Nobody, Observer};
pub use parent::supervise;
pub use pool::Size;
pub use reception::Reception;
pub use reload::Kept;
pub use sources::{Tree, Watched};
pub use template::fork_workers;
pub use worker::{Program, how_it_ended};

/// The name of the number that tells a process to [fork workers](fork_workers), and not to be one.
pub const TEMPLATE: &str = "template";

/// The name of the number that tells a worker to run each request in a child process.
pub const FORKS: &str = "forks";

/// The name of the descriptor by which a worker gives requests of [demoted](crate::demotion) scripts to others.
pub const ELSEWHERE: &str = "elsewhere";

/// What a quick stop leaves to requests that are running.
pub const QUICK: Duration = Duration::from_secs(5);

/// Processes that serve the same sockets.
#[derive(Debug)]
pub struct Pool {
    /// Its name, in the log; no two pools have the same.
    pub name: String,
    /// The sockets that its workers inherit.
    pub listeners: Vec<Listener>,
    /// For each worker, in a pool of a fixed size, the sockets that it alone inherits, and after it whoever takes its place;
    /// none where they share all.
    pub own: Vec<Vec<Listener>>,
    /// What is started.
    pub program: Program,
    /// How many workers there are.
    pub size: Size,
    /// Bytes of memory beyond which a worker is replaced (its resident set, looked at once a second).
    pub max_memory: Option<u64>,
    /// It stands before the pools behind it in the list: they serve until it has ended.
    pub is_front: bool,
    /// Answers while all workers are busy.
    pub reception: Option<Reception>,
    /// Where its interpreters tell what they do.
    pub scoreboard: Option<Scoreboard>,
    /// Its workers are forked from a process that has loaded what they have in common, and is told by [`TEMPLATE`] that it
    /// is that one.
    pub is_preloaded: bool,
    /// Its workers are told by [`FORKS`] that each request is to run in a child process: they take the requests of the pool
    /// before them whose scripts are [demoted](crate::demotion).
    pub forks_requests: bool,
}

impl Pool {
    /// One that nobody works in: it keeps its sockets.
    pub fn without_workers(name: &str, listeners: Vec<Listener>) -> Self {
        Self {
            name: name.to_owned(),
            listeners,
            own: Vec::new(),
            program: Program::this(),
            size: Size::fixed(0),
            max_memory: None,
            is_front: false,
            reception: None,
            scoreboard: None,
            is_preloaded: false,
            forks_requests: false,
        }
    }
}

/// What a parent looks after.
#[derive(Debug)]
pub struct Plan {
    /// Who is told what happens.
    pub observer: Box<dyn Observer>,
    /// What the environment of the program that the parent becomes by a reload has besides its own.
    pub environment: Vec<(OsString, OsString)>,
    /// The pools.
    pub pools: Vec<Pool>,
    /// How long requests that are running may go on once the parent is told to stop gracefully, or a worker to retire.
    pub shutdown_timeout: Duration,
    /// Where a thread of the parent answers what its pools' receptions do.
    pub answers_at: Option<Listener>,
    /// A change of these is as a signal to reload.
    pub watched: Option<Watched>,
}
