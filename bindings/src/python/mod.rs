//! Python: ordinary scripts and applications, served for one request after the other by one CPython.
//!
//! # What a script can rely on
//!
//! It finds what it would find as a CGI program: a `__main__` of its own, `sys.argv`, `sys.path`, the environment (of
//! children and C extensions, too), descriptors 0, 1 and 2 and the streams on them, its own directory as the working
//! directory; and what it changes is put back.
//!
//! # What stays
//!
//! Modules that were imported, with what they keep. A module of the script's own directory whose loading looked at the
//! request or wrote output is loaded anew for the next request.
//!
//! # How it is done
//!
//! What has to do with requests is here: the class `Request`, descriptors, environment, comparing. What has to do with
//! Python's own library is written in Python: the package `fcgi` beside this crate's sources, which the wheel installs and
//! the program carries inside.

mod accept;
mod application;
mod asgi;
mod builtin;
mod channel;
mod descriptors;
mod dict;
mod engine;
#[cfg(not(feature = "python-extension"))]
mod executable;
#[cfg(feature = "python-extension")]
mod extension;
mod ffi;
mod files;
mod flusher;
mod forked;
mod isolation;
mod module;
mod own;
#[cfg(not(feature = "python-extension"))]
mod plain;
mod preload;
mod process;
mod reload;
mod request;
mod slow;
mod stdio;
mod timeout;
mod traces;
mod turn;
mod wsgi;

pub use asgi::serve_asgi;
pub use engine::{compile, interpreter};
#[cfg(not(feature = "python-extension"))]
pub use executable::{built_with, outdated};
#[cfg(feature = "python-extension")]
pub use extension::{afresh, run as run_plain, start, version};
pub use module::add_to;
#[cfg(not(feature = "python-extension"))]
pub use plain::{run as run_plain, start, version};
pub use preload::{around_fork, preload};
