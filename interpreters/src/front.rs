//! The HTTP front of a runner: it hands requests to the runner's own FastCGI server, through a socket of its own.

use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fcgi_core::http::{Config, Front, Roles, Site, Timeouts};
use fcgi_core::{Address, Listener};

/// A front, and the directory of the socket that only this user can reach.
pub(crate) struct RunnerFront {
    front: Front,
    directory: PathBuf,
}

/// What a front that has started asks of its runner.
pub(crate) struct Started {
    pub(crate) front: RunnerFront,
    /// Serve this.
    pub(crate) listener: Listener,
    /// Stop when this is readable: the front has stopped, and has no request any more.
    pub(crate) has_stopped: OwnedFd,
}

impl RunnerFront {
    /// Starts to serve HTTP, until `stop_on` becomes readable.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) fn start(
        address: &str,
        site: Site,
        static_dir: Option<&Path>,
        roles: Roles,
        timeouts: Timeouts,
        stop_on: OwnedFd,
    ) -> anyhow::Result<Started> {
        let http = bind(address)?;
        if let Some(directory) = static_dir
            && !directory.is_dir()
        {
            bail!("{} is not a directory (--static)", directory.display());
        }
        let directory = private_directory().context("cannot make a directory for the front's socket")?;
        let backend = directory.join("fcgi.sock");
        let listener = Listener::bind(&Address::Unix(backend.clone()))?;
        let static_dir = static_dir.map(std::path::absolute).transpose()?;
        let config = Config { backend, site, static_dir, roles };
        let (front, has_stopped) =
            Front::start_ahead(http, config, timeouts, stop_on).context("cannot start the HTTP front")?;
        tracing::info!("serving http://{}/", front.address());
        Ok(Started { front: Self { front, directory }, listener, has_stopped })
    }

    /// Waits until clients have read their answers, and cleans up.
    pub(crate) fn stop(self) {
        self.front.stop();
        // The socket went with its listener.
        let _ = std::fs::remove_dir(&self.directory);
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
