//! HAProxy.

use std::fmt::Write as _;

use super::{Backend, Served, Session, Site};

pub(super) fn print(site: &Site) -> anyhow::Result<String> {
    let mut servers = site.session.as_ref().map(sticky).unwrap_or_default();
    for (number, backend) in (1..).zip(site.listening("HAProxy")?) {
        let address = match backend {
            Backend::Unix(path) => format!("unix@{path}"),
            Backend::Tcp(address) => address.clone(),
        };
        let _ = writeln!(servers, "    server app{number} {address} proto fcgi");
    }
    let comment = site.comment("HAProxy: this belongs to the end of /etc/haproxy/haproxy.cfg.");
    let (chosen, app) = match &site.served {
        Served::One(script) => {
            let script = script.as_deref().unwrap_or("/");
            let (root, _) = script.rsplit_once('/').unwrap_or(("", script));
            let root = if root.is_empty() { "/" } else { root };
            let app = format!(
                "    docroot {root}
    # Programs see the whole path as PATH_INFO.
    path-info ^()(/.*)$
    set-param SCRIPT_FILENAME {script}
"
            );
            ("    default_backend app\n".to_owned(), app)
        }
        Served::Directory { root, extensions } => {
            let pattern = Site::extensions_pattern(extensions);
            let chosen = format!(
                "    # HAProxy has no files of its own.\n    use_backend app if {{ path_reg {pattern}(/|$) }}\n"
            );
            (chosen, format!("    docroot {root}\n    path-info ^(/.*?{pattern})(/.*)?$\n"))
        }
    };
    Ok(format!(
        "{comment}frontend web
    mode http
    bind :8080
{chosen}
backend app
    mode http
    use-fcgi-app app
{servers}
fcgi-app app
    # Programs see the passwords of clients.
    pass-header authorization
{app}"
    ))
}

/// The hash of a session.
fn sticky(session: &Session) -> String {
    let sample = match session {
        Session::Cookie(name) => format!("req.cook({name})"),
        Session::Header(name) => format!("req.hdr({name})"),
    };
    format!(
        "    # A session ({}) stays with one worker. Requests without one go to all in turn.
    balance hash {sample}
    hash-type consistent
    # No checks: a worker that dies has a successor at the same socket, and none is ever left out.
",
        session.told()
    )
}
