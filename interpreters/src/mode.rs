//! How the program was started.

use std::io;

use anyhow::Context;
use fcgi_core::inherit::{self, Passed};
use fcgi_core::supervisor::Kept;
use fcgi_core::{Address, Listener, cgi};

use crate::Options;

/// What the program is to be.
#[derive(Debug)]
pub(crate) enum Mode {
    /// A server on sockets that it binds or was given.
    Serve {
        /// The sockets.
        sockets: Sockets,
        /// What an earlier generation of this process has left.
        kept: Kept,
    },
    /// One of the processes of a server, with what its parent gave it.
    Worker(Passed),
    /// A CGI program.
    Cgi,
    /// The plain interpreter.
    Plain,
}

/// The sockets of a server.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    /// Those that all workers share.
    pub(crate) shared: Vec<Listener>,
    /// Those of each worker alone, if there are such sockets.
    pub(crate) own: Vec<Vec<Listener>>,
}

impl Sockets {
    /// All of them.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Listener> {
        self.shared.iter().chain(self.own.iter().flatten())
    }
}

/// Set by a master: numbers of descriptors that listen, separated by spaces.
pub(crate) const SOCKETS: &str = "FCGI_POOL_SOCKETS";
/// Names of sockets that have no address of their own.
const SYSTEMD: &str = "systemd:";
const DESCRIPTOR_0: &str = "fd:0";

/// Whether the program is to be a server, as far as can be seen without beginning to be one.
pub(crate) fn serves(options: &Options) -> bool {
    !options.listening.listen.is_empty()
        || options.listening.http.is_some()
        || inherit::is_from_systemd()
        || std::env::var_os(SOCKETS).is_some()
        || inherit::is_listening(io::stdin())
}

/// Finds out, in this order: a parent of ours, `--listen` and `--http`, systemd, descriptor 0, CGI variables.
///
/// # Errors
/// When an address cannot be listened on, or a descriptor is not what it is said to be.
pub(crate) fn find(options: &Options) -> anyhow::Result<Mode> {
    if let Some(passed) = inherit::parent()? {
        return Ok(Mode::Worker(passed));
    }
    let mut kept = Kept::take()?;
    let mut listeners = Vec::new();
    if !options.listening.listen.is_empty() || options.listening.http.is_some() {
        let workers = options.workers_with_sockets()?;
        for address in options.listening.shared() {
            listeners.push(open(address, options, &mut kept)?);
        }
        let of_worker =
            |worker| options.listening.own(worker).map(|address| open(&address, options, &mut kept)).collect();
        let own = (1..=workers).map(of_worker).collect::<anyhow::Result<_>>()?;
        return Ok(Mode::Serve { sockets: Sockets { shared: listeners, own }, kept });
    }
    let mut passed = inherit::systemd().context("LISTEN_FDS")?;
    if let Some(numbers) = inherit::variable(SOCKETS) {
        for number in numbers.to_string_lossy().split(' ') {
            passed.push(inherit::take(number.parse().context(SOCKETS)?).context(SOCKETS)?);
        }
    }
    for (number, fd) in passed.into_iter().enumerate() {
        listeners.push(Listener::inherited(fd)?.named(&format!("{SYSTEMD}{number}")));
    }
    // A program that is reloaded has given its sockets to the one that it became.
    listeners.extend((0..).map_while(|number: u32| kept.listener(&format!("{SYSTEMD}{number}"))));
    if listeners.is_empty() {
        let fd = inherit::standard_input().context("descriptor 0")?;
        let listener = fd.map(Listener::inherited).transpose()?.map(|listener| listener.named(DESCRIPTOR_0));
        listeners.extend(listener.or_else(|| kept.listener(DESCRIPTOR_0)));
    }
    if listeners.is_empty() {
        return Ok(if cgi::is_cgi() { Mode::Cgi } else { Mode::Plain });
    }
    Ok(Mode::Serve { sockets: Sockets { shared: listeners, own: Vec::new() }, kept })
}

/// The socket of an address: the one that is open, or a new one.
pub(crate) fn open(address: &Address, options: &Options, kept: &mut Kept) -> anyhow::Result<Listener> {
    Ok(match kept.listener(&address.to_string()) {
        Some(listener) => listener,
        None => Listener::bind_for(address, &options.system.access())?,
    })
}
