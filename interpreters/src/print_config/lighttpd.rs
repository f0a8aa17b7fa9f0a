//! lighttpd: by socket, or by `bin-path` for a program that the server starts.

use std::fmt::Write as _;

use super::{Backend, Served, Site};

pub(super) fn print(site: &Site) -> String {
    let comment =
        site.comment("lighttpd: this belongs into /etc/lighttpd/conf-available/50-app.conf (lighty-enable-mod app).");
    let shared = match site.served {
        // What its name promises not to look at need not exist.
        Served::One(_) => "\"check-local\" => \"disable\", \"fix-root-scriptname\" => \"enable\"",
        Served::Directory { .. } => "\"check-local\" => \"enable\"",
    };
    let mut hosts = String::new();
    for backend in &site.backends {
        let place = match backend {
            Backend::Unix(path) => format!("\"socket\" => \"{path}\""),
            Backend::Tcp(address) => {
                let (host, port) = address.rsplit_once(':').unwrap_or((address, "0"));
                format!("\"host\" => \"{}\", \"port\" => {port}", host.trim_matches(['[', ']']))
            }
        };
        let _ = writeln!(hosts, "        ( {place}, {shared} ),");
    }
    if site.backends.is_empty() {
        let _ = writeln!(
            hosts,
            "        (
            \"bin-path\" => \"{}\",
            \"socket\" => \"/run/app.sock\",
            # One program; --workers has it start processes of its own.
            \"max-procs\" => 1,
            {shared}
        ),",
            site.command
        );
    }
    match &site.served {
        Served::One(_) => format!(
            "{comment}server.modules += ( \"mod_fastcgi\" )
# Answers go out as they come, and a program learns that its client has left.
server.stream-response-body = 2
fastcgi.server += (
    \"/\" => (
{hosts}    ),
)
"
        ),
        Served::Directory { root, extensions } => {
            let mut servers = String::new();
            for extension in extensions {
                let _ = writeln!(servers, "    \"{extension}\" => (\n{hosts}    ),");
            }
            let hidden: Vec<String> = extensions.iter().map(|e| format!("\"{e}\"")).collect();
            format!(
                "{comment}server.modules += ( \"mod_fastcgi\" )
# Answers go out as they come, and a program learns that its client has left.
server.stream-response-body = 2
server.document-root := \"{root}\"
# The source of scripts is nobody's business.
static-file.exclude-extensions += ( {} )
fastcgi.server += (
{servers})
",
                hidden.join(", ")
            )
        }
    }
}
