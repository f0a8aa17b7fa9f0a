//! What `--print-config` prints is what `examples/servers` has.

use std::process::{Command, Stdio};

use crate::support::client::call;
use crate::support::{Directory, FCGI_LUA, Running, repository};

/// The examples that are printed, and by which command line.
const PRINTED: [(&str, &str, &[&str]); 17] = [
    ("nginx.conf", "nginx", &["--listen", "unix:/run/app.sock", "/srv/www/app.lua"]),
    ("nginx-scripts.conf", "nginx", &["--listen", "unix:/run/app.sock", "--root", "/srv/www"]),
    ("nginx-sessions.conf", "nginx", &OWN),
    ("haproxy-sessions.cfg", "haproxy", &OWN),
    ("apache-proxy.conf", "apache", &["--listen", "unix:/run/app.sock", "/srv/www/app.lua"]),
    ("apache-proxy-scripts.conf", "apache", &["--listen", "unix:/run/app.sock", "--root", "/srv/www"]),
    ("apache-fcgid-wrapper.conf", "apache", &["/srv/www/app.lua"]),
    ("lighttpd.conf", "lighttpd", &["--listen", "unix:/run/app.sock", "/srv/www/app.lua"]),
    ("lighttpd-scripts.conf", "lighttpd", &["--listen", "unix:/run/app.sock", "--root", "/srv/www"]),
    ("caddy-scripts.conf", "caddy", &["--listen", "unix:/run/app.sock", "--root", "/srv/www"]),
    ("haproxy-scripts.cfg", "haproxy", &["--listen", "unix:/run/app.sock", "--root", "/srv/www"]),
    ("h2o-scripts.conf", "h2o", &["--listen", "unix:/run/app.sock", "--root", "/srv/www"]),
    ("lighttpd-spawn.conf", "lighttpd", &["/srv/www/app.lua"]),
    ("caddy.conf", "caddy", &["--listen", "unix:/run/app.sock", "/srv/www/app.lua"]),
    ("haproxy.cfg", "haproxy", &["--listen", "unix:/run/app.sock", "/srv/www/app.lua"]),
    ("h2o.conf", "h2o", &["--listen", "unix:/run/app.sock", "/srv/www/app.lua"]),
    ("h2o-spawn.conf", "h2o", &["/srv/www/app.lua"]),
];

/// Workers with sockets of their own.
const OWN: [&str; 5] = ["--listen", "unix:/run/app-{worker}.sock", "--workers", "4", "/srv/www/app.lua"];

/// With `FCGI_TEST_WRITE=1` the examples are written anew.
#[test]
fn the_examples_are_what_is_printed() {
    let directory = repository().join("examples/servers");
    for (file, server, words) in PRINTED {
        let output = Command::new(FCGI_LUA).args(["--print-config", server]).args(words).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).unwrap().replace(FCGI_LUA, "/usr/local/bin/fcgi-lua");
        let file = directory.join(file);
        if std::env::var_os("FCGI_TEST_WRITE").is_some() {
            std::fs::write(&file, &printed).unwrap();
        }
        let example = std::fs::read_to_string(&file).unwrap_or_default();
        assert_eq!(printed, example, "{} (FCGI_TEST_WRITE=1 writes it anew)", file.display());
    }
    let params = std::fs::read_to_string(repository().join("interpreters/src/print_config/nginx-params.conf")).unwrap();
    let example = std::fs::read_to_string(directory.join("nginx-fastcgi.conf")).unwrap();
    assert!(example.ends_with(&params), "nginx-fastcgi.conf has other variables than what is printed");
}

fn printed(server: &str, words: &[&str]) -> Result<String, String> {
    let output = Command::new(FCGI_LUA).args(["--print-config", server]).args(words).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// The units are good ones, and what they say starts a program that answers.
#[test]
fn units_of_systemd() {
    let directory = Directory::new();
    let script = directory.file("app.lua", "print('Content-Type: text/plain\\n\\nfrom a unit')").display().to_string();
    let socket = directory.socket("s");
    let text = printed("systemd", &["--listen", &socket, "--workers", "2", &script]).unwrap();
    let units: Vec<(&str, &str)> = text
        .split("# /etc/systemd/system/")
        .skip(1)
        .map(|unit| unit.split_once('\n').expect("a name above a unit"))
        .collect();
    let files: Vec<_> = units.iter().map(|(name, unit)| directory.file(name, unit)).collect();
    let verified = Command::new("systemd-analyze").arg("verify").args(&files).output().expect("systemd-analyze");
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stderr));
    let value = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('=')).expect(name);
    let mut command = Command::new("systemd-socket-activate");
    command.args(["-l", value("ListenStream")]).args(value("ExecStart").split(' '));
    let _running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    assert!(call(&socket, &[("REQUEST_METHOD", b"GET")], b"").text().ends_with("from a unit\n"));
}

#[test]
fn command_lines_that_no_configuration_is_for() {
    for (words, server, expected) in [
        (&["app.lua"][..], "nginx", "nginx starts no programs: give --listen"),
        (&["app.lua"], "haproxy", "HAProxy starts no programs: give --listen"),
        (&["app.lua"], "systemd", "give --listen"),
        (&["--listen", "9000"], "nginx", "give the script, or --root"),
        (&["--listen", "fd:3", "app.lua"], "nginx", "cannot connect to fd:3"),
        (&["--listen", "9000", "a b.lua"], "nginx", "choose another name"),
        (&["--listen", "9000", "app.lua"], "iis", "invalid value 'iis'"),
        (&OWN, "caddy", "--print-config nginx and haproxy tell how"),
        (&OWN, "systemd", "give one address for all workers"),
        (
            &["--affinity", "cookie:my-id", OWN[0], OWN[1], OWN[2], OWN[3], "a.lua"],
            "nginx",
            "nginx has no variable for the cookie",
        ),
        (
            &["--affinity", "param:REMOTE_USER", OWN[0], OWN[1], OWN[2], OWN[3], "a.lua"],
            "haproxy",
            "give --affinity cookie:NAME",
        ),
        (&OWN[..2], "nginx", "say how many there are"),
    ] {
        let error = printed(server, words).unwrap_err();
        assert!(error.contains(expected), "{server} {words:?}: {error}");
    }
}

#[test]
fn sessions_are_known_by_what_affinity_says() {
    for (source, nginx, haproxy) in [
        ("cookie:sid", "map $cookie_sid $app_session {", "balance hash req.cook(sid)\n"),
        ("header:X-Tenant", "map $http_x_tenant $app_session {", "balance hash req.hdr(X-Tenant)\n"),
    ] {
        let words = [&["--threads", "2", "--affinity", source][..], &OWN].concat();
        for (server, expected) in [("nginx", nginx), ("haproxy", haproxy)] {
            let text = printed(server, &words).unwrap();
            assert!(text.contains(expected), "{text}");
            assert_eq!(text.matches("/run/app-").count(), 5, "the command line and four sockets: {text}");
        }
    }
}

#[test]
fn several_addresses_and_paths_that_are_not_whole() {
    let words = ["--listen", "*:9000", "--listen", "[::1]:9001", "--listen=/run/a.sock", "--workers", "2", "app.lua"];
    for (server, expected) in [
        ("nginx", &["server 127.0.0.1:9000;", "server [::1]:9001;", "server unix:/run/a.sock;"][..]),
        ("apache", &["\"fcgi://127.0.0.1:9000\"", "\"unix:/run/a.sock|fcgi://app2\"", "balancer://app/"]),
        ("lighttpd", &["\"host\" => \"::1\", \"port\" => 9001", "\"socket\" => \"/run/a.sock\""]),
        ("caddy", &["reverse_proxy 127.0.0.1:9000 [::1]:9001 unix//run/a.sock {"]),
        ("haproxy", &["server app2 [::1]:9001 proto", "server app3 unix@/run/a.sock proto"]),
        ("systemd", &["ListenStream=9000\n", "ListenStream=/run/a.sock\n", " --workers 2 /"]),
    ] {
        let text = printed(server, &words).unwrap();
        for part in expected {
            assert!(text.contains(part), "{server} lacks {part}:\n{text}");
        }
        let script = std::env::current_dir().unwrap().join("app.lua").display().to_string();
        assert!(text.contains(&format!("--workers 2 {script}\n")), "{server}:\n{text}");
    }
}
