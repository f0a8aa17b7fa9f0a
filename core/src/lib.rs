//! FastCGI 1.0 for applications. Knows no scripting language.
//!
//! # The walk of one request
//!
//! ```text
//! listener -> connection -> protocol -> request -> your program -> request -> protocol -> connection
//! ```
//!
//! In the order in which a request meets them:
//!
//! * [`address`], [`inherit`], [`listener`]: where requests come from, and from whom they may come.
//! * `clock`, `poll`, [`affinity`], `queue`, `hub`, `inbox`, `connection`, `exchange`: sockets, bytes, and which thread does what; private.
//! * [`protocol`]: bytes to records to requests, and back; no I/O.
//! * [`gateway`]: what web servers get wrong about variables, put right.
//! * [`server`]: the accept loop, or a [reactor](server::reactor) for event loops.
//! * [`request`]: what a program sees and says.
//! * [`cgi`]: the same request type for a process that was started for one request.
//! * [`script`], [`interpreter`], [`child`]: which file a request runs, the seam to a language, child processes of scripts.
//! * [`fork`], [`audit`], [`demotion`]: requests that run in processes of their own; what scripts leave behind; who runs where.
//! * [`client`], [`response`]: the web server's side.
//! * [`signals`], [`thread`]: what stops a server; threads that each have a working directory.
//! * [`watchdog`], [`slow_log`]: requests that run for long.
//! * [`scoreboard`], [`status`], [`access_log`]: what interpreters do, pages that tell it, a line for each request.
//! * [`supervisor`]: the parent of several processes that serve.
//!
//! # A program in ten lines
//!
//! ```no_run
//! use std::io::Write;
//!
//! let server = fcgi_core::Server::builder().listen(&"unix:/tmp/hello.sock".parse()?)?.start()?;
//! let mut count = 0;
//! while let Some(mut request) = server.accept()? {
//!     count += 1;
//!     write!(request.stdout(), "Content-Type: text/html\r\n\r\nHello world!<br>Request number {count}.")?;
//!     request.finish(0)?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod access_log;
pub mod address;
pub mod affinity;
pub mod audit;
pub mod cgi;
pub mod child;
pub mod client;
mod clock;
mod connection;
pub mod demotion;
mod error_lines;
mod exchange;
pub mod fork;
pub mod gateway;
mod handover;
#[cfg(feature = "http")]
pub mod http;
mod hub;
mod inbox;
pub mod inherit;
pub mod interpreter;
pub mod listener;
mod log_file;
mod poll;
pub mod protocol;
mod queue;
pub mod request;
pub mod response;
pub mod scoreboard;
pub mod script;
pub mod server;
pub mod signals;
pub mod slow_log;
pub mod status;
pub mod supervisor;
pub mod thread;
pub mod watchdog;

pub use address::Address;
pub use affinity::Affinity;
pub use interpreter::{Interpreter, Isolation, Setup};
pub use listener::{AllowList, ListenError, Listener};
pub use protocol::{Params, ProtocolStatus, Role};
pub use request::Request;
pub use server::reactor::{Event, PolledRequest, Reactor};
pub use server::{Books, Server, ServerConfig};
pub use watchdog::Watchdog;
