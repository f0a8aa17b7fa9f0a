//! Apache httpd: mod_proxy_fcgi for a program that listens, mod_fcgid for one that the server starts.

use std::fmt::Write as _;

use super::{Backend, Served, Site};

pub(super) fn print(site: &Site) -> String {
    if site.backends.is_empty() { spawned(site) } else { connected(site) }
}

const PLACE: &str = "Apache httpd: this belongs into /etc/apache2/sites-available/app.conf (a2ensite app).";

fn connected(site: &Site) -> String {
    let url = |backend: &Backend, name: &str| match backend {
        Backend::Unix(path) => format!("unix:{path}|fcgi://{name}"),
        Backend::Tcp(address) => format!("fcgi://{address}"),
    };
    let (balancer, target, modules) = if let [one] = &site.backends[..] {
        let worker = match one {
            Backend::Unix(_) => "fcgi://app".to_owned(),
            Backend::Tcp(address) => format!("fcgi://{address}"),
        };
        // The handler's connections are kept only by a worker of that name.
        let kept = match &site.served {
            Served::One(_) => String::new(),
            Served::Directory { .. } => format!("    <Proxy \"{worker}\" enablereuse=on>\n    </Proxy>\n"),
        };
        (kept, url(one, "app"), "proxy_fcgi")
    } else {
        let mut members = "    <Proxy \"balancer://app\">\n".to_owned();
        for (number, backend) in site.backends.iter().enumerate() {
            let _ = writeln!(
                members,
                "        BalancerMember \"{}\" enablereuse=on",
                url(backend, &format!("app{number}"))
            );
        }
        members += "    </Proxy>\n";
        (members, "balancer://app".to_owned(), "proxy_fcgi proxy_balancer lbmethod_byrequests")
    };
    let comment = site.comment(&format!("{PLACE}\nIt needs: a2enmod {modules}"));
    let body = match &site.served {
        Served::One(script) => {
            let script = script
                .as_ref()
                .map(|s| format!("        ProxyFCGISetEnvIf \"true\" SCRIPT_FILENAME \"proxy:fcgi://app{s}\"\n"))
                .unwrap_or_default();
            let kept = if site.backends.len() == 1 { " enablereuse=on" } else { "" };
            format!(
                "    <Location \"/\">
        ProxyPass \"{target}/\"{kept}
        # Programs see the whole path as PATH_INFO, and passwords of clients.
        ProxyFCGISetEnvIf \"true\" SCRIPT_NAME \"\"
        ProxyFCGISetEnvIf \"true\" PATH_INFO \"%{{REQUEST_URI}}\"
{script}        CGIPassAuth On
    </Location>\n"
            )
        }
        Served::Directory { root, extensions } => format!(
            "    DocumentRoot \"{root}\"
    <Directory \"{root}\">
        Require all granted
        # Scripts see the passwords of clients.
        CGIPassAuth On
        <FilesMatch \"{}$\">
            SetHandler \"proxy:{target}\"
        </FilesMatch>
    </Directory>\n",
            Site::extensions_pattern(extensions)
        ),
    };
    format!("{comment}Listen 8080\n<VirtualHost *:8080>\n{balancer}{body}</VirtualHost>\n")
}

fn spawned(site: &Site) -> String {
    let comment = site.comment(&format!("{PLACE}\nIt needs: apt install libapache2-mod-fcgid"));
    let command = &site.command;
    let (root, handled) = match &site.served {
        Served::One(Some(script)) => {
            let (directory, name) = script.rsplit_once('/').unwrap_or(("", script));
            (format!("    Alias \"/\" \"{script}/\"\n    <Directory \"{directory}\">\n"), format!("<Files \"{name}\">"))
        }
        // A program by its name has no file, which the module asks for: it is taken for that file.
        Served::One(None) => {
            let program = command.split(' ').next().unwrap_or_default();
            let (directory, name) = program.rsplit_once('/').unwrap_or(("", program));
            (
                format!("    Alias \"/\" \"{program}/\"\n    <Directory \"{directory}\">\n"),
                format!("<Files \"{name}\">"),
            )
        }
        Served::Directory { root, extensions } => (
            format!("    DocumentRoot \"{root}\"\n    <Directory \"{root}\">\n"),
            format!("<FilesMatch \"{}$\">", Site::extensions_pattern(extensions)),
        ),
    };
    let end = if handled.starts_with("<FilesMatch") { "</FilesMatch>" } else { "</Files>" };
    format!(
        "{comment}Listen 8080
<VirtualHost *:8080>
    # What is uploaded in one request; without this line, 128 KiB.
    FcgidMaxRequestLen 1073741824
    # Seconds without a byte of an answer.
    FcgidIOTimeout 60
    FcgidPassHeader Authorization
{root}        Require all granted
        Options +ExecCGI
        {handled}
            SetHandler fcgid-script
            FcgidWrapper \"{command}\"
        {end}
    </Directory>
</VirtualHost>
"
    )
}
