//! The server from outside: what a peer says on a socket, and what comes back.
// A test binary has no outside that `pub` could mean.
#![allow(unreachable_pub)]
// Bodies of requests, on stacks of 2 MiB.
#![allow(clippy::large_stack_arrays)]

mod affinity;
mod app;
mod client;
mod gateway;
mod lifecycle;
mod limits;
mod listeners;
mod management;
mod memory;
mod polled;
mod polled_app;
mod polled_ends;
mod protocol;
mod scheduling;
mod session;
mod stopping;
