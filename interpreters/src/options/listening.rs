//! Where requests come from.

use clap::Args;
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
        help = "Serve FastCGI at this address: unix:PATH, HOST:PORT, [IPV6]:PORT, *:PORT or fd:N (repeatable)"
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

impl Listening {
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
