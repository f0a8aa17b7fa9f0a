//! Mercurial's own CGI script behind the real nginx: its client clones, pushes and pulls, twenty at a time.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::nginx::Nginx;
use crate::support::{Directory, FCGI_PYTHON, Running, client, plain_environment};

const CLIENTS: usize = 20;
const SCRIPT: &str = "/usr/share/doc/mercurial-common/examples/hgweb.cgi";

/// Runs the client in a directory; gives what it prints.
fn hg(directory: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("hg");
    plain_environment(&mut command);
    let found = command
        .args(["--config", "ui.username=test"])
        .args(arguments)
        .current_dir(directory)
        .env("HGPLAIN", "1")
        .env("HGRCPATH", "")
        .output()
        .expect("hg cannot be started (is it installed? tests/run installs it)");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(found.status.success(), "hg {arguments:?}: {}{}", text(&found.stdout), text(&found.stderr));
    text(&found.stdout)
}

/// A repository with a first changeset, which anybody may push to.
fn repository(directory: &Directory) -> PathBuf {
    let repository = directory.path().join("repository");
    hg(directory.path(), &["init", "repository"]);
    directory.file("repository/.hg/hgrc", "[web]\nallow_push = *\npush_ssl = false\n");
    // Some answers and bodies need more than one record, and more than is kept in memory.
    let lines: String = (0..200_000).map(|n| format!("{} {n}\n", n * 7919 % 1_000_003)).collect();
    directory.file("repository/first", lines);
    hg(&repository, &["commit", "--addremove", "--message", "first"]);
    repository
}

/// Serves the repository by the script as it comes, but for the line that its comment says to edit.
fn serve(directory: &Directory, repository: &Path, arguments: &[&str]) -> Running {
    let script = std::fs::read_to_string(SCRIPT)
        .unwrap_or_else(|e| panic!("{SCRIPT}: {e} (tests/run installs mercurial with its documentation)"));
    let edited = script.replace("/path/to/repo/or/config", repository.to_str().unwrap());
    assert_ne!(script, edited);
    let script = directory.file("hgweb.cgi", edited);
    let address = directory.socket("s");
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    // Debian's package is for Debian's Python; with another one, Mercurial does without its C extensions.
    command.env("PYTHONPATH", "/usr/lib/python3/dist-packages").env("HGMODULEPOLICY", "allow").env("HGRCPATH", "");
    command.args(["--listen", &address]).args(arguments).arg(script);
    let running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    drop(client::connect(&address));
    running
}

/// Runs as many clients at once.
fn at_once(client: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let client = &client;
            scope.spawn(move || client(number));
        }
    });
}

#[test]
fn clone_push_and_pull_twenty_at_a_time() {
    let directory = Directory::new();
    let repository = repository(&directory);
    let _runner = serve(&directory, &repository, &["--workers", "4"]);
    let upstream = format!("upstream runner {{ server unix:{}/s; }}", directory.path().display());
    let location = "location /hg { fastcgi_split_path_info ^(/hg)(.*)$; include fastcgi.conf;
        fastcgi_param PATH_INFO $fastcgi_path_info; fastcgi_pass runner; }";
    let nginx = Nginx::with(&directory, &upstream, location);
    let url = format!("{}/hg", nginx.url());
    let changesets = |repository: &Path| {
        let log = hg(repository, &["log", "--template", "{node} {desc}\n"]);
        let mut lines: Vec<_> = log.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let copy = |number: usize| directory.path().join(format!("copy{number}"));

    let (status, _, page) = nginx.ask("GET /hg/file/tip/first?style=raw", b"");
    assert_eq!((status, page), (200, std::fs::read(repository.join("first")).unwrap()));

    at_once(|number| {
        hg(directory.path(), &["clone", &url, copy(number).to_str().unwrap()]);
        directory.file(&format!("copy{number}/file{number}"), format!("{number}\n").repeat(1000 << (number % 8)));
        hg(&copy(number), &["commit", "--addremove", "--message", &format!("of {number}")]);
    });
    at_once(|number| drop(hg(&copy(number), &["push", "--force"])));
    at_once(|number| drop(hg(&copy(number), &["pull"])));

    let all = changesets(&repository);
    assert_eq!(all.len(), 1 + CLIENTS);
    for number in 0..CLIENTS {
        assert_eq!(changesets(&copy(number)), all);
    }
    hg(&repository, &["verify"]);
}
