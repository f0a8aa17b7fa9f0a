//! The rows of the table.

use super::software::{APACHE, CADDY, H2O, HAPROXY, LIGHTTPD, NGINX, Software};

/// A server, and how it comes to its program.
pub struct Way {
    pub name: &'static str,
    pub software: Software,
    pub config: Config,
    pub program: Program,
    pub served: Served,
    /// Further options of the program.
    pub options: &'static [&'static str],
    /// Who follows a redirect inside of the site.
    pub local_redirect: Redirect,
    /// Checks that this way does not pass, and why that is not the program's fault.
    pub cannot: &'static [(&'static str, &'static str)],
}

/// Where the configuration comes from.
pub enum Config {
    /// A file in `examples/servers`.
    Example(&'static str),
    /// `--print-config` for the command line that the program is started with.
    Printed(&'static str),
}

/// How the program is started.
pub enum Program {
    /// By itself, with `--listen`.
    Unix,
    Tcp,
    /// By itself, with a socket for each of four workers.
    Workers,
    /// By a launcher: a shell script in `examples/servers`.
    Launched(&'static str),
    /// By the web server.
    ByServer,
}

/// What URLs name.
pub enum Served {
    /// One program for all of them.
    One,
    /// Files of a directory.
    Directory,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Redirect {
    /// The server, as RFC 3875 (section 6.2.2) has it.
    Server,
    /// The client is told.
    Client,
}

const fn way(name: &'static str, software: Software, config: Config, program: Program, served: Served) -> Way {
    Way { name, software, config, program, served, options: &[], local_redirect: Redirect::Client, cannot: &[] }
}

/// The server follows redirects inside of the site itself.
const fn follows(way: Way) -> Way {
    Way { local_redirect: Redirect::Server, ..way }
}

use Config::{Example, Printed};
use Program::{ByServer, Launched, Tcp, Unix, Workers};
use Served::{Directory, One};

/// Programs that the web server starts are not there to be restarted by others.
pub static WAYS: [Way; 31] = [
    way("nginx, unix", NGINX, Example("nginx.conf"), Unix, One),
    way("nginx, unix, scripts", NGINX, Example("nginx-scripts.conf"), Unix, Directory),
    way("nginx, TCP", NGINX, Printed("nginx"), Tcp, One),
    Way { options: &["--workers", "2"], ..way("nginx, TCP, scripts", NGINX, Printed("nginx"), Tcp, Directory) },
    way("nginx, workers' sockets", NGINX, Example("nginx-sessions.conf"), Workers, One),
    way("nginx, spawn-fcgi", NGINX, Example("nginx.conf"), Launched("spawn-fcgi.sh"), One),
    way("nginx, multiwatch", NGINX, Example("nginx.conf"), Launched("multiwatch.sh"), One),
    way("nginx, socket activation", NGINX, Example("nginx.conf"), Launched("systemd-socket-activate.sh"), One),
    way("apache, proxy, unix", APACHE, Example("apache-proxy.conf"), Unix, One),
    way("apache, proxy, TCP", APACHE, Printed("apache"), Tcp, One),
    way("apache, SetHandler, unix", APACHE, Example("apache-proxy-scripts.conf"), Unix, Directory),
    way("apache, SetHandler, TCP", APACHE, Printed("apache"), Tcp, Directory),
    way("apache, ProxyPassMatch, unix", APACHE, Example("apache-proxy-match.conf"), Unix, Directory),
    way("apache, ProxyPassMatch, TCP", APACHE, Example("apache-proxy-match.conf"), Tcp, Directory),
    follows(way("apache, fcgid", APACHE, Example("apache-fcgid.conf"), ByServer, Directory)),
    follows(way("apache, fcgid, wrapper", APACHE, Printed("apache"), ByServer, One)),
    follows(way("apache, fcgid, wrapper, scripts", APACHE, Printed("apache"), ByServer, Directory)),
    follows(way("apache, cgi", APACHE, Example("apache-cgi.conf"), ByServer, Directory)),
    way("lighttpd, unix", LIGHTTPD, Example("lighttpd.conf"), Unix, One),
    way("lighttpd, TCP, scripts", LIGHTTPD, Printed("lighttpd"), Tcp, Directory),
    way("lighttpd, bin-path", LIGHTTPD, Example("lighttpd-spawn.conf"), ByServer, One),
    way("lighttpd, cgi", LIGHTTPD, Example("lighttpd-cgi.conf"), ByServer, Directory),
    way("caddy, unix", CADDY, Example("caddy.conf"), Unix, One),
    way("caddy, TCP, scripts", CADDY, Printed("caddy"), Tcp, Directory),
    way("caddy, php_fastcgi", CADDY, Example("caddy-php-fastcgi.conf"), Unix, Directory),
    way("haproxy, unix", HAPROXY, Example("haproxy.cfg"), Unix, One),
    way("haproxy, TCP, scripts", HAPROXY, Printed("haproxy"), Tcp, Directory),
    way("haproxy, workers' sockets", HAPROXY, Example("haproxy-sessions.cfg"), Workers, One),
    way("h2o, unix", H2O, Example("h2o.conf"), Unix, One),
    way("h2o, TCP, scripts", H2O, Printed("h2o"), Tcp, Directory),
    way("h2o, spawn", H2O, Example("h2o-spawn.conf"), ByServer, One),
];
