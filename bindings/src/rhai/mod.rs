//! Rhai: scripts for one request after the other, in one engine for each thread.
//!
//! # What a script can rely on
//!
//! It runs from its first statement, in a scope of its own; nothing that it sets is seen by the next request. `print` and
//! `write` go to the answer, `debug` to the error stream; `env`, `args`, `stdin` and the functions of `web` give the
//! request. `exit(n)` ends the request with that status, from wherever it is called.
//!
//! A script that has a function `handle(request)` is an application: what the function returns is the answer.
//!
//! # What it cannot do
//!
//! Rhai is a sandbox: a script reaches its request and the modules that lie in its own directory or below it. It has no
//! processes, no network, and no files but those that `--fs-root` grants.
//!
//! # What stays
//!
//! Compiled scripts and modules, until their files change.

mod accept;
mod application;
mod bounded;
mod context;
mod engine;
mod error;
mod files;
mod forked;
mod forms;
mod functions;
mod memory;
mod module;
mod modules;
mod plain;
mod repl;
mod slow;
mod stdio;
mod time;
mod timeout;
mod web;

pub use engine::{Engine, compile, interpreter};
pub use memory::Allocator;
pub use plain::{run as run_plain, version};
