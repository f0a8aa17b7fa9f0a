//! Whole programs, tested from outside: real sockets, real web servers, the real interpreter beside ours.
//!
//! * `audit`: what scripts leave behind
//! * `demoted`: scripts that are trusted until they leave something behind
//! * `forked`: requests in children of a warm interpreter
//! * `fidelity`: every script in `scripts/` answers as under CGI, the first time and the tenth
//! * `modes`: how the runner finds out what it is to be; errors of use
//! * `scripts_by_name`: scripts that requests name, kept inside a root
//! * `access_log`: a line for each request
//! * `affinity`: sessions that stay with their interpreter
//! * `accept`: accept loops inside scripts, and what else the module `fcgi` offers
//! * `applications`: scripts that give a function, called by the rules of WSAPI
//! * `asgi`: applications by ASGI, many requests at once
//! * `limits`: time and memory of one request, levels of isolation
//! * `conformance`: the same programs in all languages, started in all ways
//! * `command_line`: the command line of `lua`, beside the real one
//! * `changes`: scripts that change on disk, or are broken
//! * `slow_log`: where requests are that run for long
//! * `system`: users, limits, environment, log, the service manager
//! * `status`: status pages and ping
//! * `workers`: processes, threads, signals, stopping
//! * `worker_sockets`: sockets that each worker has for itself
//! * `pools`: how many processes serve, when they are replaced, what becomes of their connections
//! * `reload`: programs, options and scripts that are replaced under load
//! * `master`: several pools of one file
//! * `storm`: load through nginx while workers are killed, scripts loop, leak and exit, and servers are reloaded
//! * `watch`: source files that reload the server when they change
//! * `configuration`: the configuration file, right and wrong
//! * `constrained`: hosts that allow one process and no thread
//! * `nginx`: behind the real one
//! * `distribution`: several hosts behind HAProxy and nginx; one that is taken down, one that vanishes
//! * `servers`: behind all web servers, started in all ways, in all languages
//! * `mercurial`: its CGI script behind nginx, asked by its own client, twenty times at once
//! * `python`: applications of Python, and what its scripts cannot be compared with
//! * `python_threads`: ordinary scripts of Python in several threads
//! * `python_command_line`: the command line of `python3`, beside the real one
//! * `python_regression`: CPython's own tests, run by ours
//! * `python_streams`: its standard streams, kept by modules
//! * `python_limits`: what one request of a Python program may take
//! * `python_preload`: workers that are forked from a process which has loaded what they share
//! * `python_reload`: modules that change on disk
//! * `python_removed`: modules that the standard library once had
//! * `python_requests`: requests as objects, in all roles; launchers made for flup
//! * `python_wsgi`: what PEP 3333 asks of a server
//! * `roles`: scripts that authorize, transform files and take the log
//! * `rhai`: scripts, loops and applications in Rhai; its sandbox; its command line
//! * `rhai_documentation`: the examples of `docs/rhai.md` do what the page says
//! * `rhai_limits`: scripts in Rhai that want too much time, memory or files are ended while others are served
//! * `rhai_prompt`: the prompt of `fcgi-rhai` at a terminal
//! * `shape`: the languages have the same files and the same options
//! * `http`: the built-in front
//! * `command`: the client `fcgi`, asking and showing
//! * `examples`: what the README tells to run
//! * `examples_alike`: each example in all languages, behind nginx and the front
// What pedantry asks of a library (panics documented, casts argued) only hides what a test is about.
#![allow(clippy::pedantic, unreachable_pub)]

mod support;

mod accept;
mod access_log;
mod affinity;
mod applications;
#[cfg(feature = "python")]
mod asgi;
mod audit;
mod changes;
mod command;
#[cfg(all(feature = "python", feature = "rhai"))]
mod conformance;
// There is no other program of 5.5 to compare with.
#[cfg(not(feature = "lua55"))]
mod command_line;
mod configuration;
mod constrained;
mod demoted;
mod distribution;
mod examples;
#[cfg(all(feature = "python", feature = "rhai"))]
mod examples_alike;
mod fidelity;
mod forked;
mod http;
mod limits;
mod master;
#[cfg(feature = "python")]
mod mercurial;
mod modes;
mod nginx;
mod pools;
#[cfg(feature = "python")]
mod python;
#[cfg(feature = "python")]
mod python_command_line;
#[cfg(feature = "python")]
mod python_limits;
#[cfg(feature = "python")]
mod python_preload;
#[cfg(feature = "python")]
mod python_regression;
#[cfg(feature = "python")]
mod python_reload;
#[cfg(feature = "python")]
mod python_removed;
#[cfg(feature = "python")]
mod python_requests;
#[cfg(feature = "python")]
mod python_streams;
#[cfg(feature = "python")]
mod python_threads;
#[cfg(feature = "python")]
mod python_wsgi;
mod reload;
#[cfg(feature = "rhai")]
mod rhai;
#[cfg(feature = "rhai")]
mod rhai_documentation;
#[cfg(feature = "rhai")]
mod rhai_limits;
#[cfg(feature = "rhai")]
mod rhai_prompt;
#[cfg(all(feature = "python", feature = "rhai"))]
mod roles;
mod scripts_by_name;
#[cfg(all(feature = "python", feature = "rhai"))]
mod servers;
#[cfg(all(feature = "python", feature = "rhai"))]
mod shape;
mod slow_log;
mod status;
mod storm;
mod system;
mod watch;
mod worker_sockets;
mod workers;
