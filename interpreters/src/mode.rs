//! How the program was started.

use std::io;
use std::os::fd::OwnedFd;

use anyhow::Context;
use fcgi_core::{Listener, cgi, inherit};

use crate::Options;

/// What the program is to be.
#[derive(Debug)]
pub(crate) enum Mode {
    /// A server on sockets that it binds or was given.
    Serve(Vec<Listener>),
    /// One of the processes of a server.
    Worker {
        /// Sockets that its parent gave it.
        listeners: Vec<Listener>,
        /// Becomes readable when the parent says to stop, or is no more.
        stop: OwnedFd,
    },
    /// A CGI program.
    Cgi,
    /// The plain interpreter.
    Plain,
}

/// Whether the program is to be a server, as far as can be seen without beginning to be one.
pub(crate) fn serves(options: &Options) -> bool {
    !options.listening.listen.is_empty()
        || options.listening.http.is_some()
        || inherit::is_from_systemd()
        || inherit::is_listening(io::stdin())
}

/// Finds out, in this order: a parent of ours, `--listen` and `--http`, systemd, descriptor 0, CGI variables.
///
/// # Errors
/// When an address cannot be listened on, or a descriptor is not what it is said to be.
pub(crate) fn find(options: &Options) -> anyhow::Result<Mode> {
    let listeners = |fds: Vec<_>| fds.into_iter().map(Listener::inherited).collect::<io::Result<Vec<_>>>();
    if let Some(mut fds) = inherit::parent()? {
        let stop = fds.pop().context("a worker without descriptors")?;
        return Ok(Mode::Worker { listeners: listeners(fds)?, stop });
    }
    if !options.listening.listen.is_empty() || options.listening.http.is_some() {
        let bound: Result<Vec<_>, _> = options.listening.listen.iter().map(Listener::bind).collect();
        return Ok(Mode::Serve(bound?));
    }
    let passed = inherit::systemd().context("LISTEN_FDS")?;
    if !passed.is_empty() {
        return Ok(Mode::Serve(listeners(passed)?));
    }
    if let Some(fd) = inherit::standard_input().context("descriptor 0")? {
        return Ok(Mode::Serve(vec![Listener::inherited(fd)?]));
    }
    Ok(if cgi::is_cgi() { Mode::Cgi } else { Mode::Plain })
}
