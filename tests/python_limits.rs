//! What one request of a Python program may take: `--request-timeout`.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Reply, call, connect};
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment};

const SCRIPT: &str = r#"
import atexit, os, subprocess, sys, threading, time
what = os.environ["QUERY_STRING"]
print("Content-Type: text/plain\n")
if what == "loop":
    while True:
        pass
if what == "sleep":
    time.sleep(60)
if what == "child":
    subprocess.run(["sleep", "60"])
if what == "keeps":
    while True:
        try:
            time.sleep(60)
        except Exception:
            pass
if what == "cleans":
    try:
        time.sleep(60)
    finally:
        print("cleaned up", file=sys.stderr)
if what == "atexit":
    atexit.register(time.sleep, 60)
if what == "thread":
    threading.Thread(target=time.sleep, args=(5,)).start()
if what == "stubborn":
    end = time.monotonic() + 5
    while time.monotonic() < end:
        try:
            time.sleep(0.01)
        except BaseException:
            pass
print("done", what)
"#;

const APPLICATION: &str = r#"
import time
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    what = environ["QUERY_STRING"]
    if what == "loop":
        while True:
            pass
    if what == "sleep":
        time.sleep(5)
    return [b"done ", what.encode(), b"\n"]
"#;

const LOOP: &str = r#"
import fcgi, os, time
while fcgi.accept():
    print("Content-Type: text/plain\n")
    try:
        if os.environ["QUERY_STRING"] == "sleep":
            time.sleep(60)
    except fcgi.RequestTimeout as e:
        last = str(e)
        print("nobody hears this")
    if os.environ["QUERY_STRING"] == "last":
        print(last)
    print("done", os.environ["QUERY_STRING"])
"#;

struct Server {
    address: String,
    running: Running,
    _directory: Directory,
}

impl Server {
    fn new(program: &str, arguments: &[&str]) -> Self {
        let directory = Directory::new();
        directory.file("app.py", program);
        let address = directory.socket("s");
        let mut command = Command::new(FCGI_PYTHON);
        plain_environment(&mut command);
        command.args(["--listen", &address, "--request-timeout", "0.5"]).args(arguments).current_dir(directory.path());
        let running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        drop(connect(&address));
        Self { address, running, _directory: directory }
    }

    fn ask(&self, what: &str) -> Reply {
        call(&self.address, &[("QUERY_STRING", what.as_bytes()), ("REQUEST_METHOD", b"GET")], b"")
    }

    fn expect_late(&self, what: &str) -> Reply {
        let begin = Instant::now();
        let reply = self.ask(what);
        assert!(reply.text().starts_with("Status: 504 Gateway Timeout\r\n"), "{what}: {}", reply.text());
        // Far from the limit on a slow machine, and far from what the program would take.
        assert!(begin.elapsed() < Duration::from_secs(4), "{what}: {:?}", begin.elapsed());
        reply
    }

    fn expect_done(&self, what: &str) {
        let text = self.ask(what).text();
        assert!(text.ends_with(&format!("done {what}\n")), "{text}");
    }
}

#[test]
fn a_script_that_takes_too_long_ends_where_it_stands() {
    let server = Server::new(SCRIPT, &["app.py"]);
    server.expect_done("first");
    for what in ["loop", "sleep", "child", "keeps", "cleans", "atexit", "thread"] {
        let reply = server.expect_late(what);
        let errors = String::from_utf8_lossy(&reply.stderr).into_owned();
        let says = "fcgi.RequestTimeout: the request takes longer than 500ms (--request-timeout)";
        assert!(errors.contains(says), "{what}: {errors}");
        assert_eq!(errors.contains("cleaned up"), what == "cleans", "{errors}");
        server.expect_done("next");
    }
}

#[test]
fn a_client_is_told_although_the_code_does_not_end() {
    let mut server = Server::new(SCRIPT, &["app.py"]);
    server.expect_late("stubborn");
    server.running.signal("TERM");
    let (status, log) = server.running.wait(Duration::from_secs(30));
    assert!(status == Some(0) && log.contains("does not end (--request-timeout)"), "{status:?} {log}");
}

#[test]
fn applications_and_loops_have_the_limit_for_each_request() {
    for arguments in [&[][..], &["--threads", "2"]] {
        let server = Server::new(APPLICATION, &[arguments, &["--app", "app:application"]].concat());
        for what in ["loop", "sleep"] {
            server.expect_late(what);
            server.expect_done("next");
        }
    }
    let server = Server::new(LOOP, &["app.py"]);
    server.expect_done("first");
    for _ in 0..2 {
        server.expect_late("sleep");
        server.expect_done("next");
    }
    assert!(server.ask("last").text().contains("longer than 500ms"), "it went on where it stood");
}
