//! H2O: by socket, or spawned.

use std::fmt::Write as _;

use super::{Backend, Served, Site};

pub(super) fn print(site: &Site) -> String {
    let comment = site.comment("H2O: this is one of the hosts of /etc/h2o/h2o.conf.");
    // Of several addresses H2O connects to one.
    let connect = match site.backends.first() {
        None => format!("fastcgi.spawn: \"exec {}\"\n", site.command),
        Some(Backend::Unix(path)) => format!("fastcgi.connect:\n  port: {path}\n  type: unix\n"),
        Some(Backend::Tcp(address)) => {
            let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
            format!("fastcgi.connect:\n  host: {}\n  port: {port}\n  type: tcp\n", host.trim_matches(['[', ']']))
        }
    };
    let indented = |by: usize| {
        connect.lines().fold(String::new(), |mut text, line| {
            let _ = writeln!(text, "{:by$}{line}", "");
            text
        })
    };
    let handlers = match &site.served {
        Served::One(_) => indented(8),
        Served::Directory { root, extensions } => {
            let list = extensions.join(", ");
            format!(
                "        file.dir: {root}\n        file.custom-handler:\n          extension: [{list}]\n{}",
                indented(10)
            )
        }
    };
    format!(
        "{comment}hosts:
  default:
    listen:
      port: 8080
    paths:
      /:
{handlers}"
    )
}
