//! Caddy.

use super::{Backend, Served, Site};

pub(super) fn print(site: &Site) -> anyhow::Result<String> {
    let upstreams: Vec<String> = site
        .listening("Caddy")?
        .iter()
        .map(|backend| match backend {
            Backend::Unix(path) => format!("unix/{path}"),
            Backend::Tcp(address) => address.clone(),
        })
        .collect();
    let upstreams = upstreams.join(" ");
    let comment = site.comment("Caddy: this belongs into /etc/caddy/Caddyfile.");
    Ok(match &site.served {
        Served::One(script) => {
            let script = script.as_ref().map(|s| format!("\t\t\tenv SCRIPT_FILENAME {s}\n")).unwrap_or_default();
            format!(
                "{comment}:8080 {{
\treverse_proxy {upstreams} {{
\t\ttransport fastcgi {{
\t\t\t# Programs see the whole path as PATH_INFO.
\t\t\tenv SCRIPT_NAME \"\"
\t\t\tenv PATH_INFO {{http.request.uri.path}}
{script}\t\t}}
\t}}
}}
"
            )
        }
        Served::Directory { root, extensions } => {
            let pattern = Site::extensions_pattern(extensions);
            let split = if extensions.is_empty() { "" } else { &format!("\t\t\tsplit {}\n", extensions.join(" ")) };
            format!(
                "{comment}:8080 {{
\troot * {root}
\t@scripts path_regexp {pattern}(/|$)
\treverse_proxy @scripts {upstreams} {{
\t\ttransport fastcgi {{
{split}\t\t}}
\t}}
\tfile_server
}}
"
            )
        }
    })
}
