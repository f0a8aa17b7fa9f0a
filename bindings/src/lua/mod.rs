//! Lua: ordinary scripts, run for one request after the other in one Lua state.
//!
//! # What a script can rely on
//!
//! It finds what it would find as a CGI program:
//!
//! * globals, library tables, `package.path`, the metatable of strings, default files, locale, collector and random
//!   numbers as at the start of `lua`;
//! * `arg`, `...`, the environment (`os.getenv`, children), standard input, output and error of its own;
//! * its own directory as the working directory.
//!
//! It may end by `os.exit` or an error wherever it stands, even inside `pcall` or a coroutine: the request ends, with that
//! status, and with the message and traceback that `lua` prints.
//!
//! # What stays
//!
//! Modules that were loaded by `require` (`package.loaded`), with what they keep in their own tables and upvalues. When a
//! module set globals or changed library tables as it was loaded, they are set again for each request that requires it. A
//! module whose loading itself looked at the request (a CGI variable, the body) or wrote output is not kept: it is
//! loaded anew for the next request, since its result would be another one.
//!
//! # How it is done
//!
//! Lua's own `io` library runs on C streams whose ends are the request's (`stdio`), so its files are the real ones.
//! Functions that would end the process, see the environment, or start children are replaced (`functions`, `ends`). After each
//! request the library tables are compared with how they were and put back (`isolation`, `modules`).
//!
//! # Safety
//!
//! What a function asks of its caller that takes a `lua_State` is the same everywhere, unless it says more: the state is live and
//! used by this thread alone, its stack holds what the function's description says and has room for what it adds, and around
//! one that may raise an error there is a protected call. Lua itself calls those that are `extern "C-unwind"`, and keeps to it.

mod accept;
mod application;
mod audit;
mod command_line;
mod context;
mod devices;
mod ends;
mod engine;
mod error;
mod ffi;
mod forked;
mod functions;
mod hook;
mod interrupts;
mod isolation;
#[cfg(feature = "luajit")]
mod luajit;
mod memory;
mod module;
mod modules;
mod originals;
mod plain;
mod pristine;
mod process;
mod repl;
mod state;
mod stdio;
mod timeout;

pub use engine::{Engine, compile, interpreter};
pub use ffi::version;
pub use plain::run as run_plain;
