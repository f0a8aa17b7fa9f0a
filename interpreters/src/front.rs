//! The HTTP front of a runner: it hands requests to the runner's own FastCGI server, through a socket of its own.

use std::ffi::OsString;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use anyhow::{Context, bail};
use fcgi_core::http::{Config, Front, Site};
use fcgi_core::listener::Access;
use fcgi_core::supervisor::Kept;
use fcgi_core::{Address, Listener};

use crate::Options;

/// Tells a worker that it is the front, and where the FastCGI server is.
pub(crate) const BACKEND: &str = "FCGI_FRONT_BACKEND";
/// The name of the socket between the two.
const BACKEND_NAME: &str = "http backend";

/// What a front needs.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// HTTP comes here.
    pub(crate) http: Listener,
    /// The FastCGI server is to listen here.
    pub(crate) backend: Listener,
    /// The directory of that socket, which only this user can reach.
    pub(crate) directory: Directory,
}

/// A directory that goes when it is no longer needed, if it is empty.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // The socket went with its listener.
        let _ = std::fs::remove_dir(&self.0);
    }
}

impl Sockets {
    /// Opens them, if `--http` is given and they are not open.
    ///
    /// # Errors
    /// When the address cannot be listened on.
    pub(crate) fn open(options: &Options, kept: &mut Kept) -> anyhow::Result<Option<Self>> {
        let Some(address) = &options.listening.http else { return Ok(None) };
        if let Some(directory) = &options.serving.static_dir
            && !directory.is_dir()
        {
            bail!("{} is not a directory (--static)", directory.display());
        }
        let name = format!("http {address}");
        let http = match kept.listener(&name) {
            Some(http) => http,
            None => Listener::inherited(bind(address)?.into())?.named(&name),
        };
        let backend = if let Some(backend) = kept.listener(BACKEND_NAME) {
            backend
        } else {
            let directory = private_directory().context("cannot make a directory for the front's socket")?;
            // For the user that the front and the other workers become.
            let user = options.system.user.as_ref().map(|user| user.uid);
            std::os::unix::fs::chown(&directory, user, None)?;
            let access = Access { user, ..Access::default() };
            Listener::bind_for(&Address::Unix(directory.join("fcgi.sock")), &access)?.named(BACKEND_NAME)
        };
        let directory = path_of(&backend).parent().map(PathBuf::from).unwrap_or_default();
        if !kept.is_reload() {
            tracing::info!("serving http://{}/", http.address());
        }
        Ok(Some(Self { http, backend, directory: Directory(directory) }))
    }

    /// The path of the socket to the FastCGI server.
    pub(crate) fn backend_path(&self) -> OsString {
        path_of(&self.backend).into()
    }
}

fn path_of(listener: &Listener) -> PathBuf {
    match listener.address() {
        Address::Unix(path) => path.clone(),
        _ => PathBuf::new(),
    }
}

/// Starts to serve HTTP, until `stop_on` becomes readable. The descriptor becomes readable when the front has stopped, and
/// has no request any more.
///
/// # Errors
/// When its thread cannot be started.
pub(crate) fn start(
    http: Listener,
    backend: PathBuf,
    site: Site,
    options: &Options,
    stop_on: OwnedFd,
) -> anyhow::Result<(Front, OwnedFd)> {
    let static_dir = options.serving.static_dir.as_ref().map(std::path::absolute).transpose()?;
    let config = Config { backend, site, static_dir, roles: options.roles.of_front()? };
    // Nobody else may hold it: once the front stops, connections are refused.
    let http = TcpListener::from(OwnedFd::from(http));
    Front::start_ahead(http, config, options.front_timeouts(), stop_on).context("cannot start the HTTP front")
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
