//! The server from outside: what a peer says on a socket, and what comes back.

mod app;
mod client;
mod gateway;
mod lifecycle;
mod limits;
mod listeners;
mod management;
mod memory;
mod protocol;
mod scheduling;
mod session;
mod stopping;
