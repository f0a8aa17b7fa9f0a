//! `--isolation auto`: scripts are trusted with an interpreter until they leave something behind in it, or end its process.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{Reply, call, connect, request};
use crate::support::logged::Logged;
use crate::support::{Directory, FCGI_LUA};

const SAID: &str = "each of its requests runs in a process of its own from now on";

/// A runner that serves the scripts of a directory.
struct Server(Logged);

impl std::ops::Deref for Server {
    type Target = Logged;
    fn deref(&self) -> &Logged {
        &self.0
    }
}

impl Server {
    fn start(runner: &str, directory: Directory, arguments: &[&str]) -> Self {
        let root = directory.path().display().to_string();
        Self(Logged::start(runner, directory, &[&["--isolation", "auto", "--root", &root], arguments].concat()))
    }

    fn pairs<'a>(path: &'a str, query: &'a str) -> [(&'a str, &'a [u8]); 3] {
        [("REQUEST_METHOD", b"POST"), ("SCRIPT_FILENAME", path.as_bytes()), ("QUERY_STRING", query.as_bytes())]
    }

    fn path(&self, script: &str) -> String {
        self.directory.path().join(script).display().to_string()
    }

    fn ask(&self, script: &str, query: &str) -> Reply {
        call(&self.address, &Self::pairs(&self.path(script), query), b"body")
    }

    fn says(&self, script: &str) -> String {
        self.ask(script, "").text().lines().last().unwrap_or_default().to_owned()
    }

    /// What comes of a request whose worker dies.
    fn lost(&self, script: &str, query: &str) -> Vec<u8> {
        let mut socket = connect(&self.address);
        socket.write_all(&request(1, 1, false, &Self::pairs(&self.path(script), query), b"")).unwrap();
        let mut all = Vec::new();
        // It may be reset, too.
        let _ = socket.read_to_end(&mut all);
        all
    }
}

const HELPER: &str = "package.path = './?.lua;' .. package.path
    local helper = require 'helper' helper.count = helper.count + 1
    print('Content-Type: text/plain\\n') print(io.read('*a') .. helper.count)";
const PID: &str =
    "print('Content-Type: text/plain\\n') local f = io.open('/proc/self/stat') print(f:read('*n')) f:close()";

#[test]
fn what_leaves_something_behind_is_isolated() {
    let directory = Directory::new();
    directory.file("helper.lua", "return {count = 0}");
    directory.file("leaves.lua", HELPER);
    directory.file("clean.lua", PID);
    let server = Server::start(FCGI_LUA, directory, &["--workers", "2"]);
    // It may be found with the second request of a process.
    let end = Instant::now() + Duration::from_secs(60);
    while !server.log().contains(SAID) {
        assert!(Instant::now() < end, "{}", server.log());
        server.says("leaves.lua");
    }
    for _ in 0..20 {
        assert_eq!(server.says("leaves.lua"), "body1");
    }
    // The other one is served as before, by processes that live on.
    let mut pids: Vec<String> = (0..20).map(|_| server.says("clean.lua")).collect();
    pids.sort_unstable();
    pids.dedup();
    assert!(pids.len() <= 4, "{pids:?}");
    let log = server.0.stop();
    assert_eq!(log.matches(SAID).count(), 1, "{log}");
    assert!(log.contains("leaves.lua: helper.count was changed") && !log.contains("clean.lua"), "{log}");
}

#[test]
fn what_ends_its_worker_ends_only_its_child_from_then_on() {
    let directory = Directory::new();
    let text = "io.write('Content-Type: text/plain\\n\\n') io.stdout:flush()
        if os.getenv('QUERY_STRING') == 'die' then os.execute('kill -s ABRT $PPID') os.execute('sleep 100') end print('lives')";
    directory.file("dies.lua", text);
    // No number of workers is given.
    let server = Server::start(FCGI_LUA, directory, &[]);
    assert_eq!(server.says("dies.lua"), "lives");
    server.lost("dies.lua", "die");
    server.until_log(SAID);
    for _ in 0..3 {
        assert_eq!(server.ask("dies.lua", "die").app_status, 128 + 6);
        assert_eq!(server.says("dies.lua"), "lives");
    }
    let log = server.0.stop();
    assert_eq!(log.matches(SAID).count(), 1, "{log}");
    assert!(
        log.contains("was killed by SIGABRT while it ran this") && log.matches("is started again").count() == 1,
        "{log}"
    );
}

#[test]
fn a_reload_trusts_again_and_others_are_not_blamed() {
    let directory = Directory::new();
    directory.file("helper.lua", "return {count = 0}");
    directory.file("leaves.lua", HELPER);
    directory.file(
        "pid.lua",
        format!("{PID} io.stdout:flush() if os.getenv('QUERY_STRING') == 'long' then os.execute('sleep 100') end"),
    );
    directory.file(
        "counter.lua",
        "local file = io.open('log') local fcgi = require 'fcgi' local count = 0
        while fcgi.accept() do count = count + 1 print('Content-Type: text/plain\\n') print(count) end",
    );
    let server = Server::start(FCGI_LUA, directory, &["--workers", "1"]);
    // What a loop keeps, its file as well, is meant to stay.
    for count in 1..=3 {
        assert_eq!(server.says("counter.lua"), count.to_string());
    }
    server.says("leaves.lua");
    server.says("leaves.lua");
    server.until_log(SAID);
    // Somebody else kills a worker while a script runs.
    let mut socket = connect(&server.address);
    let path = server.path("pid.lua");
    socket.write_all(&request(1, 1, false, &Server::pairs(&path, "long"), b"")).unwrap();
    let mut text = Vec::new();
    let pid = loop {
        let mut bytes = [0; 256];
        let count = socket.read(&mut bytes).unwrap();
        assert_ne!(count, 0, "{}", server.log());
        text.extend(&bytes[..count]);
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = text.split("text/plain\n\n").nth(1).and_then(|rest| rest.split_once('\n'));
        if let Some((pid, _)) = line {
            break pid.to_owned();
        }
    };
    assert!(Command::new("kill").args(["-s", "KILL", &pid]).status().unwrap().success());
    server.until("its end", || !std::path::Path::new("/proc").join(&pid).exists());
    assert!(server.says("pid.lua").parse::<u32>().is_ok());
    server.directory.file("leaves.lua", "print('Content-Type: text/plain\\n') print('mended')");
    server.running.signal("HUP");
    server.until_log("reloaded: the new workers serve");
    assert_eq!(server.says("leaves.lua"), "mended");
    let log = server.0.stop();
    assert!(log.matches(SAID).count() == 1, "{log}");
    assert!(!log.contains("counter.lua") && !log.contains("pid.lua"), "{log}");
}

#[cfg(feature = "python")]
#[test]
fn python_too() {
    let directory = Directory::new();
    directory.file("helper.py", "count = 0\nfiles = []");
    let begin = "import os, sys\nprint('Content-Type: text/plain\\n', flush=True)\n";
    directory.file(
        "leaves.py",
        format!("{begin}import helper\nhelper.count += 1\nprint(sys.stdin.read() + str(helper.count))\n"),
    );
    directory.file(
        "opens.py",
        format!("{begin}import helper\nhelper.files.append(open('/dev/zero'))\nprint(len(helper.files))\n"),
    );
    directory.file("clean.py", format!("{begin}import json\njson.left = 1\nprint(os.getpid())\n"));
    let dies = "import ctypes\nwhat = os.environ['QUERY_STRING']\nif what == 'crash':\n    ctypes.string_at(0)\n\
        if what == 'exit':\n    ctypes.CDLL(None)._exit(3)\nprint('lives')\n";
    directory.file("dies.py", format!("{begin}{dies}"));
    directory.file("exits.py", format!("{begin}{dies}"));
    directory.file("app.py", "hits = 0\ndef app(environ, start_response):\n    global hits\n    hits += 1\n    start_response('200 OK', [])\n    return [b'%d' % hits]\n");
    let server = Server::start(crate::support::FCGI_PYTHON, directory, &["--workers", "1"]);
    for script in ["leaves.py", "opens.py"] {
        let end = Instant::now() + Duration::from_secs(60);
        while server.log().matches(script).count() == 0 {
            assert!(Instant::now() < end, "{}", server.log());
            server.says(script);
        }
    }
    for _ in 0..3 {
        assert_eq!(server.says("leaves.py"), "body1");
        assert_eq!(server.says("opens.py"), "1");
    }
    // What is put back is left to nobody, and applications are meant to keep what they have.
    for _ in 0..3 {
        assert!(server.says("clean.py").parse::<u32>().is_ok());
    }
    for hit in 1..=3 {
        assert_eq!(server.says("app.py"), hit.to_string());
    }
    for (script, query, status) in [("dies.py", "crash", 128 + 11), ("exits.py", "exit", 3)] {
        assert_eq!(server.says(script), "lives");
        server.lost(script, query);
        server.until_log(script);
        for _ in 0..2 {
            assert_eq!(server.ask(script, query).app_status, status, "{script}");
            assert_eq!(server.says(script), "lives");
        }
    }
    let log = server.0.stop();
    assert_eq!(log.matches(SAID).count(), 4, "{log}");
    for word in
        ["leaves.py: helper.count was changed (line 4)", "opens.py: ", "dies.py: ", "exits.py: ", "ended with status 3"]
    {
        assert!(log.contains(word), "{word}: {log}");
    }
    assert!(!log.contains("clean.py") && !log.contains("app.py"), "{log}");
}

#[cfg(feature = "rhai")]
#[test]
fn rhai_too() {
    let directory = Directory::new();
    let text = r#"print("Content-Type: text/plain\n"); flush(); if env("QUERY_STRING") == "long" { sleep(100); } print("lives" + stdin.read());"#;
    directory.file("page.rhai", text);
    let server = Server::start(crate::support::FCGI_RHAI, directory, &["--workers", "1"]);
    for _ in 0..12 {
        assert_eq!(server.says("page.rhai"), "livesbody");
    }
    // Nothing of a script's stays; what ends the process all the same has to come from outside.
    let mut socket = connect(&server.address);
    socket.write_all(&request(1, 1, false, &Server::pairs(&server.path("page.rhai"), "long"), b"")).unwrap();
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 8, "it runs");
    let parent = server.running.0.id().to_string();
    assert!(Command::new("pkill").args(["-ABRT", "-P", &parent]).status().unwrap().success());
    server.until_log(SAID);
    assert_eq!(server.says("page.rhai"), "livesbody");
    server.0.stop();
}

#[test]
fn wrong_use_is_refused() {
    let directory = Directory::new();
    let script = directory.file("hello.lua", PID).display().to_string();
    let cases = vec![
        (FCGI_LUA, vec!["--threads", "2", &*script], "--threads is not for --isolation auto"),
        (FCGI_LUA, vec!["--audit", &*script], "--audit is not for --isolation auto"),
        (FCGI_LUA, vec!["--memory-limit", "50M", &*script], "--memory-limit is not for --isolation auto"),
    ];
    #[cfg(feature = "python")]
    let cases =
        [cases, vec![(crate::support::FCGI_PYTHON, vec!["--app", "x:y"], "--isolation auto is for scripts")]].concat();
    for (runner, arguments, says) in cases {
        let address = directory.socket("s");
        let output = Command::new(runner).args(["--listen", &address, "--isolation", "auto"]).args(arguments).output();
        let output = output.unwrap();
        let log = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{log}");
        assert!(log.contains(says), "{log}");
    }
}
