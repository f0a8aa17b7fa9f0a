//! nginx.

use std::fmt::Write as _;

use anyhow::bail;

use super::{Backend, Served, Session, Site};

/// The variables of a request. Those below depend on what is served.
const PARAMS: &str = include_str!("nginx-params.conf");

pub(super) fn print(site: &Site) -> anyhow::Result<String> {
    let (map, mut servers, of_worker) = match &site.session {
        Some(session) => {
            let (map, hash) = sticky(session)?;
            (map, hash, " max_fails=0")
        }
        None => (String::new(), String::new(), ""),
    };
    for backend in site.listening("nginx")? {
        let _ = match backend {
            Backend::Unix(path) => writeln!(servers, "    server unix:{path}{of_worker};"),
            Backend::Tcp(address) => writeln!(servers, "    server {address}{of_worker};"),
        };
    }
    let (location, root, own) = match &site.served {
        Served::One(script) => {
            let script = script.as_ref().map(|s| format!("        fastcgi_param  SCRIPT_FILENAME    {s};\n"));
            let own = format!(
                "        fastcgi_split_path_info ^()(/.*)$;\n{}        fastcgi_param  SCRIPT_NAME        \"\";\n",
                script.unwrap_or_default()
            );
            ("/".to_owned(), String::new(), own)
        }
        Served::Directory { root, extensions } => {
            let pattern = Site::extensions_pattern(extensions);
            let own = format!(
                "        fastcgi_split_path_info ^(/.*?{pattern})(/.*)?$;
        fastcgi_param  SCRIPT_FILENAME    $document_root$fastcgi_script_name;
        fastcgi_param  SCRIPT_NAME        $fastcgi_script_name;\n"
            );
            (format!("~ {pattern}(/|$)"), format!("    root {root};\n\n"), own)
        }
    };
    let mut params = String::new();
    for line in PARAMS.lines() {
        let _ = writeln!(params, "        {line}");
    }
    let comment = site.comment("nginx: this belongs into its http block, on Debian into /etc/nginx/conf.d/app.conf.");
    Ok(format!(
        "{comment}# Its user (www-data) must be allowed to write to the socket: --socket-owner www-data sees to it.
{map}upstream app {{
{servers}    keepalive 16;
}}

server {{
    listen 8080;
    # What is uploaded in one request; without this line, 1 MB.
    client_max_body_size 100m;

{root}    location {location} {{
        fastcgi_pass app;
        fastcgi_keep_conn on;
{own}        fastcgi_param  PATH_INFO          $fastcgi_path_info;
{params}    }}
}}
"
    ))
}

/// What a session is hashed by, and the hash.
fn sticky(session: &Session) -> anyhow::Result<(String, String)> {
    let variable = match session {
        Session::Cookie(name) => format!("cookie_{name}"),
        Session::Header(name) => format!("http_{}", name.to_ascii_lowercase().replace('-', "_")),
    };
    if !variable.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        bail!("nginx has no variable for the {}: choose a name of letters, digits and _", session.told());
    }
    let map = format!(
        "\n# A session ({}) stays with one worker. Requests without one go to any.
map ${variable} $app_session {{
    \"\"      $request_id;
    default ${variable};
}}

",
        session.told()
    );
    let hash = "    hash $app_session consistent;
    # A worker that dies has a successor at the same socket: none is ever left out.
";
    Ok((map, hash.to_owned()))
}
