//! Where requests come from.

use std::path::PathBuf;

use clap::Args;
use fcgi_core::address::BadAddress;
use fcgi_core::{Address, AllowList};

use crate::print_config::WebServer;

/// Addresses, and who may connect to them.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Where requests come from")]
pub(crate) struct Listening {
    /// Addresses to serve FastCGI at.
    #[arg(
        long,
        value_name = "ADDRESS",
        value_parser = address,
        help = "Serve FastCGI at this address: unix:PATH, HOST:PORT, [IPV6]:PORT, *:PORT or fd:N (repeatable); with --workers N, \
                unix:/run/app-{worker}.sock gives each process a socket of its own, numbered from 1"
    )]
    pub(crate) listen: Vec<Address>,

    /// Serve HTTP/1.1 at this address, for development and small sites
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) http: Option<String>,

    /// Let only these TCP peers connect: addresses or networks, separated by commas (repeatable; also from
    /// FCGI_WEB_SERVER_ADDRS)
    #[arg(long, value_name = "ADDR[/BITS]")]
    pub(crate) allow: Vec<String>,

    /// Print a configuration of this web server for the rest of the command line, and do nothing else
    #[arg(long, value_name = "SERVER")]
    pub(crate) print_config: Option<WebServer>,
}

/// What stands in a path for the number of a worker.
pub(crate) const WORKER: &str = "{worker}";

/// An address of FastCGI.
fn address(text: &str) -> Result<Address, String> {
    let address: Address = text
        .parse()
        .map_err(|e: BadAddress| if text.contains(WORKER) { ONLY_UNIX.to_owned() } else { e.to_string() })?;
    match address {
        Address::Tcp { .. } if text.contains(WORKER) => Err(ONLY_UNIX.to_owned()),
        address => Ok(address),
    }
}

const ONLY_UNIX: &str = "{worker} is for unix sockets: write unix:/run/app-{worker}.sock";

/// The path of an address that is a template for those of workers.
fn template(address: &Address) -> Option<&str> {
    match address {
        Address::Unix(path) => path.to_str().filter(|path| path.contains(WORKER)),
        _ => None,
    }
}

impl Listening {
    /// The addresses of sockets that all workers share.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &Address> {
        self.listen.iter().filter(|address| template(address).is_none())
    }

    /// Whether workers have sockets of their own.
    pub(crate) fn has_own(&self) -> bool {
        self.listen.iter().any(|address| template(address).is_some())
    }

    /// The addresses of one worker's own sockets. Workers are numbered from 1.
    pub(crate) fn own(&self, worker: u16) -> impl Iterator<Item = Address> {
        let templates = self.listen.iter().filter_map(template);
        templates.map(move |path| Address::Unix(PathBuf::from(path.replace(WORKER, &worker.to_string()))))
    }

    /// The peers of `--allow` and `FCGI_WEB_SERVER_ADDRS`.
    pub(crate) fn allow_list(&self) -> anyhow::Result<AllowList> {
        let mut allowed = AllowList::everybody();
        let environment = std::env::var("FCGI_WEB_SERVER_ADDRS").ok().filter(|list| !list.trim().is_empty());
        for list in self.allow.iter().chain(&environment) {
            allowed.add(list)?;
        }
        Ok(allowed)
    }
}
