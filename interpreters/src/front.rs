//! The HTTP front of a runner: it hands requests to the runner's own FastCGI server, through a socket of its own.

use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use fcgi_core::http::{Config, Front, Site};
use fcgi_core::{Address, Listener};
use rustix::event::{PollFd, PollFlags, poll};

/// A front, and the directory of the socket that only this user can reach.
pub(crate) struct RunnerFront {
    front: Front,
    directory: PathBuf,
}

impl RunnerFront {
    /// Starts to serve HTTP. Gives the front and the listener that the runner must serve.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) fn start(address: &str, site: Site, static_dir: Option<&Path>) -> anyhow::Result<(Self, Listener)> {
        let listener = bind(address)?;
        if let Some(directory) = static_dir
            && !directory.is_dir()
        {
            bail!("{} is not a directory (--static)", directory.display());
        }
        let directory = private_directory().context("cannot make a directory for the front's socket")?;
        let backend = directory.join("fcgi.sock");
        let inner = Listener::bind(&Address::Unix(backend.clone()))?;
        let static_dir = static_dir.map(std::path::absolute).transpose()?;
        let front =
            Front::start(listener, Config { backend, site, static_dir }).context("cannot start the HTTP front")?;
        tracing::info!("serving http://{}/", front.address());
        Ok((Self { front, directory }, inner))
    }

    /// Stops the front when `stop` becomes readable, and the server behind it afterwards: then nobody asks it any more.
    /// `stop` is exchanged for what tells the server.
    ///
    /// # Errors
    /// When the system has no thread or descriptors for it.
    pub(crate) fn stop_on(self, stop: &mut OwnedFd) -> std::io::Result<Stopping> {
        let (server, told) = UnixStream::pair()?;
        let signals = std::mem::replace(stop, server.into());
        let front = Arc::new(Mutex::new(Some(self.front)));
        let stopped = front.clone();
        std::thread::Builder::new().name("front's end".to_owned()).spawn(move || {
            let mut fds = [PollFd::new(&signals, PollFlags::IN)];
            while poll(&mut fds, None).is_err() {}
            take_and_stop(&stopped);
            // Closing the other end is readable, too.
            drop(told);
        })?;
        Ok(Stopping { front, directory: self.directory })
    }
}

/// A front that stops when a signal comes.
pub(crate) struct Stopping {
    front: Arc<Mutex<Option<Front>>>,
    directory: PathBuf,
}

impl Stopping {
    /// The server has ended: stops the front unless that was done, and cleans up.
    pub(crate) fn end(self) {
        take_and_stop(&self.front);
        // The socket went with its listener.
        let _ = std::fs::remove_dir(&self.directory);
    }
}

/// Waits until clients have read their answers.
fn take_and_stop(front: &Mutex<Option<Front>>) {
    if let Some(front) = front.lock().unwrap_or_else(PoisonError::into_inner).take() {
        front.stop();
    }
}

fn bind(address: &str) -> anyhow::Result<TcpListener> {
    // A port alone means this machine only: the front is for development first.
    let full = if address.contains(':') { address.to_owned() } else { format!("127.0.0.1:{address}") };
    let full = full.strip_prefix('*').map_or(full.clone(), |port| format!("[::]{port}"));
    let addresses: Vec<_> = full
        .to_socket_addrs()
        .with_context(|| format!("'{address}' is no address: write HOST:PORT (--http)"))?
        .collect();
    TcpListener::bind(&addresses[..]).map_err(|e| match e.kind() {
        std::io::ErrorKind::AddrInUse => {
            anyhow::anyhow!("{address} is in use by a running server: stop it, or choose another (--http)")
        }
        _ => anyhow::anyhow!("cannot listen on {address}: {e} (--http)"),
    })
}

fn private_directory() -> std::io::Result<PathBuf> {
    let base = std::env::temp_dir();
    let pid = std::process::id();
    let mut number = 0;
    loop {
        let directory = base.join(format!("fcgi-http-{pid}-{number}"));
        match std::fs::DirBuilder::new().mode(0o700).create(&directory) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            other => return other.map(|()| directory),
        }
    }
}
