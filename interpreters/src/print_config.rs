//! `--print-config`: the configuration of a web server for the program as it is called, so that it can be copied.
//!
//! What is printed for `/srv/www` and `/run/app.sock` lies in `examples/servers`, too; a test compares them.

mod apache;
mod caddy;
mod h2o;
mod haproxy;
mod lighttpd;
mod nginx;
mod systemd;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fcgi_core::Address;

use crate::languages::Known;
use crate::line::Line;
use crate::options::WORKER;
use crate::{Options, scripts};

/// The servers of `--print-config`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum WebServer {
    /// nginx
    Nginx,
    /// Apache httpd: mod_proxy_fcgi, or mod_fcgid
    Apache,
    /// lighttpd
    Lighttpd,
    /// Caddy
    Caddy,
    /// HAProxy
    Haproxy,
    /// H2O
    H2o,
    /// systemd, which starts the program for a web server of this machine
    Systemd,
}

/// What a configuration is made of.
struct Site {
    /// The command line, as a shell takes it.
    command: String,
    /// The same for one that is given its sockets.
    without_listen: String,
    /// Where requests go; none when the web server is to start the program.
    backends: Vec<Backend>,
    /// What a session is known by, when the backends are workers with sockets of their own.
    session: Option<Session>,
    /// Where the program listens, in systemd's words.
    listens: Vec<String>,
    served: Served,
}

/// What a balancer is to look at, so that a session stays with one worker.
enum Session {
    Cookie(String),
    Header(String),
}

/// What URLs name.
enum Served {
    /// One program answers all of them; its script, if it has one.
    One(Option<String>),
    /// Scripts of a directory.
    Directory {
        root: String,
        /// With their dots; none for any.
        extensions: Vec<String>,
    },
}

/// How a web server reaches the program.
enum Backend {
    Unix(String),
    Tcp(String),
}

/// The text for one server.
///
/// # Errors
/// When the command line leaves open what the configuration must say, or has what cannot be written into one.
pub(crate) fn print(language: &Known, options: &Options, line: &Line, server: WebServer) -> anyhow::Result<String> {
    let site = Site::new(language, options, line)?;
    let hashes = matches!(server, WebServer::Nginx | WebServer::Haproxy);
    if site.session.is_some() && !hashes {
        bail!(
            "{WORKER} in --listen is for balancers that know sessions: --print-config nginx and haproxy tell how; for this \
             server give one address for all workers"
        );
    }
    match server {
        WebServer::Nginx => nginx::print(&site),
        WebServer::Apache => Ok(apache::print(&site)),
        WebServer::Lighttpd => Ok(lighttpd::print(&site)),
        WebServer::Caddy => caddy::print(&site),
        WebServer::Haproxy => haproxy::print(&site),
        WebServer::H2o => Ok(h2o::print(&site)),
        WebServer::Systemd => systemd::print(&site),
    }
}

impl Site {
    fn new(language: &Known, options: &Options, line: &Line) -> anyhow::Result<Self> {
        let workers = options.workers_with_sockets()?;
        let backends = if workers > 0 {
            let own = (1..=workers).flat_map(|worker| options.listening.own(worker));
            own.map(|address| Backend::new(&address)).collect::<anyhow::Result<_>>()?
        } else {
            options.listening.listen.iter().map(Backend::new).collect::<anyhow::Result<_>>()?
        };
        let session = (workers > 0).then(|| Session::new(options)).transpose()?;
        let served = if let Some(script) = &line.script {
            Served::One(Some(written(&std::path::absolute(script)?)?))
        } else if scripts::needs_none(language, line) {
            Served::One(None)
        } else {
            let root = options.serving.root.as_deref().context(
                "say what the web server is to serve: give the script, or --root with the directory of scripts",
            )?;
            let list = options.serving.extensions.as_deref().unwrap_or(language.extension);
            let extensions = list.split(',').map(str::trim).filter(|e| !e.is_empty());
            Served::Directory {
                root: written(&std::path::absolute(root)?)?,
                extensions: extensions.map(|e| written(format!(".{e}"))).collect::<anyhow::Result<_>>()?,
            }
        };
        let listens = options.listening.shared().map(|address| match address {
            Address::Tcp { host, port } if host == "*" => Ok(port.to_string()),
            Address::Unix(path) => written(std::path::absolute(path)?),
            other => written(other.to_string()),
        });
        let listens = listens.collect::<anyhow::Result<_>>()?;
        let command = |with_listen| command(options, line, with_listen);
        Ok(Self { command: command(true)?, without_listen: command(false)?, backends, session, listens, served })
    }

    /// The backends of a server that starts no programs.
    fn listening(&self, server: &str) -> anyhow::Result<&[Backend]> {
        if self.backends.is_empty() {
            bail!("{server} starts no programs: give --listen with the address that it is to connect to");
        }
        Ok(&self.backends)
    }

    /// The lines that a configuration begins with: where it belongs, and how the program is started.
    fn comment(&self, place: &str) -> String {
        let starts = if self.backends.is_empty() { "It starts" } else { "It expects a running" };
        let mut text = String::new();
        for line in place.lines() {
            let _ = writeln!(text, "# {line}");
        }
        let _ = writeln!(text, "# {starts}\n#\n#     {}\n#", self.command);
        text
    }

    /// A regular expression for the extensions of scripts.
    fn extensions_pattern(extensions: &[String]) -> String {
        let names: Vec<&str> = extensions.iter().map(|e| e.trim_start_matches('.')).collect();
        match names[..] {
            [] => r"\.[^./]+".to_owned(),
            [one] => format!(r"\.{one}"),
            _ => format!(r"\.(?:{})", names.join("|")),
        }
    }
}

impl Session {
    /// As `--affinity` says; without it, a cookie of a name that many give it.
    fn new(options: &Options) -> anyhow::Result<Self> {
        let source =
            options.processes.affinity.as_ref().map_or_else(|| "cookie:session".to_owned(), ToString::to_string);
        match source.split_once(':') {
            Some(("cookie", name)) => Ok(Self::Cookie(written(name)?)),
            Some(("header", name)) => Ok(Self::Header(written(name)?)),
            _ => bail!("a balancer does not know {source}: give --affinity cookie:NAME or header:NAME"),
        }
    }

    /// What the comment of a configuration calls it.
    fn told(&self) -> String {
        match self {
            Self::Cookie(name) => format!("cookie \"{name}\""),
            Self::Header(name) => format!("header \"{name}\""),
        }
    }
}

impl Backend {
    fn new(address: &Address) -> anyhow::Result<Self> {
        Ok(match address {
            Address::Unix(path) => Self::Unix(written(&std::path::absolute(path)?)?),
            Address::Tcp { host, port } => {
                // What listens on all addresses is reached on this machine.
                let host = match &**host {
                    "*" | "0.0.0.0" => "127.0.0.1",
                    "::" => "::1",
                    other => other,
                };
                let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
                Self::Tcp(format!("{}:{port}", written(host)?))
            }
            Address::Fd(_) => bail!("a web server cannot connect to {address}: give --listen with a path or a port"),
        })
    }
}

/// The program's own command line without `--print-config`, with full paths.
fn command(options: &Options, line: &Line, with_listen: bool) -> anyhow::Result<String> {
    let mut words = vec![written(&std::env::current_exe().context("cannot find this program's own path")?)?];
    let mut given = line.runner[1..].iter();
    while let Some(word) = given.next() {
        match word.to_str() {
            Some("--print-config") => drop(given.next()),
            Some(word) if word.starts_with("--print-config=") => {}
            Some("--listen") if !with_listen => drop(given.next()),
            Some(word) if word.starts_with("--listen=") && !with_listen => {}
            Some(word) if word == "--root" || word.starts_with("--root=") => {
                if word == "--root" {
                    given.next();
                }
                let root = options.serving.root.as_deref().unwrap_or(Path::new("."));
                words.extend(["--root".to_owned(), written(&std::path::absolute(root)?)?]);
            }
            _ => words.push(written(word)?),
        }
    }
    for word in &line.own {
        words.push(written(word)?);
    }
    if let Some(script) = &line.script {
        words.push(written(&std::path::absolute(script)?)?);
    }
    for word in &line.arguments {
        words.push(written(word)?);
    }
    Ok(words.join(" "))
}

/// A word as it stands in configurations. Each server has its own rules for quoting; what needs none is the same to all.
fn written(word: impl AsRef<OsStr>) -> anyhow::Result<String> {
    let plain = |c: char| c.is_alphanumeric() || "/._-+@:,=~[]*".contains(c);
    match word.as_ref().to_str() {
        // It stands in the command line alone.
        Some(text) if !text.is_empty() && text.replace(WORKER, "").chars().all(plain) => Ok(text.to_owned()),
        _ => {
            let shown = PathBuf::from(word.as_ref());
            bail!(
                "'{}' has signs that not every server takes in its configuration: choose another name",
                shown.display()
            )
        }
    }
}
