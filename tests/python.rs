//! Python: applications, and what scripts cannot be compared with.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::nginx::Nginx;
use crate::support::client::{call, connect, read_reply, request};
use crate::support::{Directory, FCGI_PYTHON, PYTHON, Running, plain_environment, serve_with};

fn serve(address: &str, arguments: &[&str]) -> Running {
    serve_with(FCGI_PYTHON, address, arguments)
}

/// A CGI script, and what it is to say.
fn says(text: &str) -> String {
    format!("Content-Type: text/plain\n\n{text}\n")
}

const APPLICATION: &str = r#"
import os
import sys
import time
from wsgiref.validate import validator

loaded = time.time_ns()


def plain(environ, start_response):
    what = environ["QUERY_STRING"]
    if what == "before":
        raise ValueError("before the answer")
    headers = [("Content-Type", "text/plain")]
    if what == "length":
        start_response("200 OK", headers)
        total = 0
        while block := environ["wsgi.input"].read(65536):
            total += len(block)
        return [b"%d" % total]
    if what == "lines":
        start_response("200 OK", headers)
        source = environ["wsgi.input"]
        return [source.readline(), b"|", source.readline(3), b"|", *source.readlines(), b"|", source.read(5)]
    if what == "again":
        start_response("200 OK", headers)
        try:
            raise KeyError("too late?")
        except KeyError:
            start_response("500 Sorry", headers, sys.exc_info())
        return [b"sorry"]
    if what == "errors":
        environ["wsgi.errors"].write("said to the log \u20ac\n")
        environ["wsgi.errors"].flush()
    if what == "big":
        start_response("200 OK", headers)
        return (b"0123456789abcdef" * 4096 for _ in range(320))
    if what == "during":
        start_response("200 OK", headers)
        return during()
    start_response("203 Fine", headers + [("X-Bytes", "\xe9")])
    return [b"%s|%s|%s|%d" % (environ["SCRIPT_NAME"].encode("latin-1"), environ["PATH_INFO"].encode("latin-1"), what.encode(), loaded)]


def during():
    yield b"begun"
    raise ValueError("during the answer")


application = validator(plain)

if __name__ == "__main__":
    print("never reached")
"#;

#[test]
fn an_application_behind_nginx() {
    let directory = Directory::new();
    let script = directory.file("site.py", APPLICATION).display().to_string();
    for (number, keep) in [(0, false), (1, true)] {
        let address = directory.socket(&format!("s{number}"));
        let _runner = serve(&address, &["--workers", "2", &script]);
        let nginx = Nginx::start(&directory, &address, keep);
        let (status, head, body) = nginx.ask("GET /a%20b/%C3%A9?q", b"");
        let body = String::from_utf8(body).unwrap();
        assert!(status == 203 && body.starts_with("|/a b/\u{e9}|q|"), "{head} {body}");
        assert!(head.contains("X-Bytes: \u{fffd}"), "{head}");
        let upload = vec![b'x'; 50 << 20];
        assert_eq!(nginx.ask("POST /?length", &upload).2, b"52428800");
        assert_eq!(nginx.ask("POST /?lines", b"one\ntwo\nthree").2, b"one\n|two|\nthree|");
        assert_eq!(nginx.ask("GET /?big", b"").2.len(), 20 << 20);
        assert_eq!(nginx.ask("GET /?before", b"").0, 500);
        assert_eq!((nginx.ask("GET /?again", b"").0, &nginx.ask("GET /?again", b"").2[..]), (500, &b"sorry"[..]));
    }
}

#[test]
fn an_application_is_loaded_once_and_again_when_it_changes() {
    let directory = Directory::new();
    directory.file("site/app.py", APPLICATION);
    directory.file("site/cgi.py", "application = len\nprint('Content-Type: text/plain\\n')\nprint(__name__)");
    let address = directory.socket("s");
    let _runner = serve(&address, &["--root", &directory.path().join("site").display().to_string()]);
    let ask = |name: &str, rest: &str| {
        let file = directory.path().join("site").join(name).display().to_string() + rest;
        let params = [
            ("SCRIPT_FILENAME", file.as_bytes()),
            ("SCRIPT_NAME", "/app.py".as_bytes()),
            ("REQUEST_METHOD", b"GET"),
            ("QUERY_STRING", b"x"),
            ("SERVER_NAME", b"localhost"),
            ("SERVER_PORT", b"80"),
        ];
        call(&address, &params, b"")
    };
    let first = ask("app.py", "/rest").text();
    assert!(first.contains("\r\n\r\n/app.py|/rest|x|") || first.contains("|x|"), "{first}");
    assert_eq!(ask("app.py", "/rest").text(), first, "it stays loaded");
    // A script that only has such a name is a script.
    for _ in 0..2 {
        assert_eq!(ask("cgi.py", "").text(), says("__main__"));
    }
    std::thread::sleep(Duration::from_millis(1100));
    directory.file("site/app.py", APPLICATION.replace("203 Fine", "200 Changed"));
    assert!(ask("app.py", "").text().starts_with("Status: 200 Changed"));
}

#[test]
fn an_application_keeps_its_environment_and_not_its_first_requests() {
    const SCRIPT: &str = "import os
os.environ.setdefault('SETTINGS', os.environ['QUERY_STRING'])
os.environ['HTTP_KEPT'] = 'yes'
def application(environ, start_response):
    start_response('200 OK', [])
    names = ('HOME', 'SETTINGS', 'HTTP_KEPT', 'HTTP_GIVEN', 'QUERY_STRING')
    child = os.popen('echo $HOME $SETTINGS $HTTP_KEPT $HTTP_GIVEN $QUERY_STRING').read()
    return [repr([os.environ.get(name) for name in names]).encode(), child.encode()]
";
    let directory = Directory::new();
    directory.file("app.py", SCRIPT);
    directory.file("cgi.py", "import os\nprint('Content-Type: text/plain\\n')\nprint(os.environ['QUERY_STRING'], os.environ.get('SETTINGS'))");
    let address = directory.socket("s");
    let _runner = serve(&address, &["--root", &directory.path().display().to_string()]);
    let ask = |name: &str, query: &str| {
        let file = directory.path().join(name).display().to_string();
        let params = [
            ("SCRIPT_FILENAME", file.as_bytes()),
            ("REQUEST_METHOD", b"GET"),
            ("QUERY_STRING", query.as_bytes()),
            ("HTTP_GIVEN", b"by this request"),
            ("HOME", b"/of/the/server"),
        ];
        call(&address, &params, b"").text()
    };
    let home = std::env::var("HOME").unwrap_or_else(|_| String::from("/"));
    for query in ["first", "second"] {
        let said = ask("app.py", query);
        assert!(said.contains(&format!("['{home}', 'first', 'yes', None, None]{home} first yes\n")), "{said}");
        assert_eq!(ask("cgi.py", query), says(&format!("{query} None")));
    }
}

#[test]
fn mistakes_of_applications() {
    let directory = Directory::new();
    directory.file(
        "bad.py",
        r#"
def app(environ, start_response):
    what = environ["QUERY_STRING"]
    if what == "nothing":
        return [b"x"]
    if what == "twice":
        start_response("200 OK", [])
    if what == "text":
        start_response("200 OK", [])
        return ["text"]
    if what == "break":
        start_response("200 OK", [("X", "a\r\nInjected: 1")])
    if what == "hop":
        start_response("200 OK", [("Connection", "close")])
    if what == "status":
        start_response("fine", [])
    start_response("200 OK", [("X", "1")])
    return [b"good"]
"#,
    );
    let address = directory.socket("s");
    let script = directory.path().join("bad.py").display().to_string();
    let _runner = serve(&address, &["--display-errors", &script]);
    for (query, message) in [
        ("nothing", "AssertionError: the application wrote before it called start_response()"),
        ("twice", "AssertionError: start_response() was called twice"),
        ("text", "TypeError: the application gave str where bytes are wanted"),
        ("break", "ValueError: start_response(): the value of a header has control characters"),
        ("hop", "AssertionError: start_response(): the header Connection is the web server's to send"),
        ("status", "ValueError: start_response(): the status must be as '200 OK'"),
    ] {
        let reply = call(&address, &[("QUERY_STRING", query.as_bytes())], b"");
        assert!(
            reply.text().starts_with("Status: 500 ") && reply.text().contains(message),
            "{query}: {}",
            reply.text()
        );
        assert!(reply.errors().contains(message) && reply.app_status == 1, "{query}: {}", reply.errors());
        assert!(call(&address, &[("QUERY_STRING", b"")], b"").text().ends_with("X: 1\r\n\r\ngood"), "after {query}");
    }
}

#[test]
fn blocks_are_sent_as_they_come_and_close_is_called() {
    let directory = Directory::new();
    let log = directory.path().join("closed").display().to_string();
    let script = directory.file(
        "stream.py",
        format!(
            r#"
import time


class Blocks:
    def __init__(self, pause):
        self.pause = pause

    def __iter__(self):
        yield b"first"
        time.sleep(self.pause)
        for _ in range(2000):
            yield b"x" * 10000

    def close(self):
        open({log:?}, "a").write("closed\n")


def app(environ, start_response):
    start_response("200 OK", [])
    return Blocks(float(environ["QUERY_STRING"]))
"#
        ),
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script.display().to_string()]);
    let mut socket = connect(&address);
    socket.write_all(&request(1, 1, false, &[("QUERY_STRING", b"2")], b"")).unwrap();
    let begun = Instant::now();
    let mut seen: Vec<u8> = Vec::new();
    while !seen.windows(5).any(|w| w == b"first") {
        let mut buffer = [0; 100];
        let count = std::io::Read::read(&mut socket, &mut buffer).unwrap();
        seen.extend(&buffer[..count]);
    }
    assert!(begun.elapsed() < Duration::from_millis(1900), "the first block waited for the second");
    // The client goes away.
    drop(socket);
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(&log).unwrap_or_default() != "closed\n" {
        assert!(Instant::now() < end, "close() was not called");
        std::thread::sleep(Duration::from_millis(10));
    }
    let reply = call(&address, &[("QUERY_STRING", b"0")], b"");
    assert_eq!((reply.app_status, reply.errors()), (0, String::new()));
    assert!(reply.stdout.ends_with(&[b'x'; 10000]) && reply.stdout.len() > 20_000_000);
}

#[test]
fn an_application_that_the_command_line_names() {
    let directory = Directory::new();
    directory.file("site/package/__init__.py", "");
    directory.file(
        "site/package/module.py",
        "def make():\n    def answer(environ, start_response):\n        start_response('200 OK', [])\n        return [environ['PATH_INFO'].encode(), b' ', repr(environ['wsgi.run_once']).encode()]\n    return answer\n\napp = make()\n",
    );
    let site = directory.path().join("site");
    for (number, spec) in ["package.module:make()", "package.module:app", "package.module"].into_iter().enumerate() {
        let socket = directory.path().join(format!("s{number}"));
        let address = format!("unix:{}", socket.display());
        let mut command = Command::new(FCGI_PYTHON);
        plain_environment(&mut command);
        command.args(["--listen", &address, "--threads", "2", "--app", spec]).current_dir(&site);
        let _runner = Running::start(command.stderr(Stdio::null()));
        let reply = call(&address, &[("SCRIPT_NAME", b"/x/y")], b"");
        assert_eq!(reply.text(), "Status: 200 OK\r\n\r\n/x/y False", "{spec} {}", reply.errors());
        // As a CGI program it is called once.
        let mut command = Command::new(FCGI_PYTHON);
        plain_environment(&mut command);
        command.args(["--app", spec]).current_dir(&site).env("GATEWAY_INTERFACE", "CGI/1.1").env("PATH_INFO", "/cgi");
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), "Status: 200 OK\r\n\r\n/cgi True", "{output:?}");
    }
    let output = Command::new(FCGI_PYTHON)
        .args(["--listen", &directory.socket("none"), "--app", "package.module:missing"])
        .current_dir(&site)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("has no 'missing'"), "{text}");
    assert!(!text.contains("Traceback"), "{text}");
}

#[test]
fn an_application_as_a_cgi_program() {
    let directory = Directory::new();
    let script = directory.file(
        "app.py",
        "def application(environ, start_response):\n    start_response('200 OK', [('X', '1')])\n    return [environ['wsgi.input'].read()]\n",
    );
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command.arg(script).env("REQUEST_METHOD", "POST").env("CONTENT_LENGTH", "4");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"bodyand more").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Status: 200 OK\r\nX: 1\r\n\r\nbody");
}

#[test]
fn a_script_that_changes_or_is_broken() {
    let directory = Directory::new();
    let script = directory.file("app.py", "print('Content-Type: text/plain\\n')\nprint('first')");
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script.display().to_string()]);
    assert_eq!(call(&address, &[], b"").text(), says("first"));
    directory.file("app.py", "def broken(:\n");
    std::thread::sleep(Duration::from_millis(1100));
    let reply = call(&address, &[], b"");
    assert!(reply.text().starts_with("Status: 500 ") && reply.errors().contains("SyntaxError"), "{}", reply.errors());
    assert!(!reply.errors().contains("Traceback"), "python3 shows none either: {}", reply.errors());
    directory.file("app.py", "print('Content-Type: text/plain\\n')\nprint('mended')");
    assert_eq!(call(&address, &[], b"").text(), says("mended"));
}

#[test]
fn what_ends_the_process_ends_one_request() {
    let directory = Directory::new();
    let script = directory.file(
        "app.py",
        "import os, signal\nprint('Content-Type: text/plain\\n', flush=True)\nexec(os.environ['QUERY_STRING'])\nprint('end')",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script.display().to_string()]);
    let mut kept = connect(&address);
    for (query, status) in [
        ("os._exit(5)", 5),
        ("os.abort()", 134),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143),
        ("signal.raise_signal(signal.SIGUSR2)", 140),
        ("os.execv('/bin/false', ['false'])", 1),
    ] {
        let reply = call(&address, &[("QUERY_STRING", query.as_bytes())], b"");
        assert_eq!((reply.text(), reply.app_status), ("Content-Type: text/plain\n\n".to_owned(), status), "{query}");
        // Nobody else notices: a connection that was open stays so.
        kept.write_all(&request(1, 1, true, &[("QUERY_STRING", b"pass")], b"")).unwrap();
        assert_eq!(read_reply(&mut *kept, 1).text(), says("end"));
    }
}

#[test]
fn the_plain_interpreter() {
    for words in [
        &["-c", "import sys; print(sys.argv, sys.flags, sys.prefix)", "a", "--listen"][..],
        &["-OO", "-W", "error", "-X", "dev", "-c", "import sys; print(sys.flags, sys.warnoptions, sys._xoptions)"],
        &["-I", "-S", "-c", "import sys; print(sys.path, sys.flags.isolated)"],
        &["-m", "platform", "terse"],
        &["-V"],
        &["-c", "import sys; sys.exit('text')"],
        &["-c", "raise SystemExit(9)"],
        &["-c", "1/0"],
        &["-c", "import sys; print(sys.executable is not None, __name__, sys.stdin.read())"],
        &["no-such-file.py"],
        &["-", "argument"],
        &["-q", "-x", "--check-hash-based-pycs", "never", "-c", "print(1)"],
        &["-h"],
        &["--help-xoptions"],
        &["-Z"],
    ] {
        let run = |program: &str| {
            let mut command = Command::new(program);
            plain_environment(&mut command);
            command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // Not every one reads it.
            let _ = child.stdin.take().unwrap().write_all(b"print('from standard input')\n");
            let output = child.wait_with_output().unwrap();
            // Messages begin with the program's name.
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(program, "PROGRAM");
            (text(&output.stdout), text(&output.stderr), output.status.code())
        };
        assert_eq!(run(FCGI_PYTHON), run(PYTHON), "{words:?}");
    }
}

#[test]
fn several_threads_serve_applications() {
    let directory = Directory::new();
    let script = directory.file(
        "app.py",
        "import threading, time\nbarrier = threading.Barrier(4)\n\ndef app(environ, start_response):\n    barrier.wait(20)\n    start_response('200 OK', [])\n    return [repr(environ['wsgi.multithread']).encode()]\n",
    );
    let address = directory.socket("s");
    let name = script.file_stem().unwrap().to_str().unwrap();
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command.args(["--listen", &address, "--threads", "4", "--app", name]).current_dir(directory.path());
    let mut runner = Running::start(command.stderr(Stdio::null()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(call(&address, &[], b"").text(), "Status: 200 OK\r\n\r\nTrue"));
        }
    });
    // The application's threads had `threading` first: the end does not wait for them.
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(20)).0, Some(0));
}

#[test]
fn options_that_are_not_for_python() {
    let directory = Directory::new();
    let script = directory.file("s.py", "").display().to_string();
    for (words, message) in
        [(&["--isolation", "state"][..], "--isolation state"), (&["--memory-limit", "1M"], "--memory-limit")]
    {
        let mut command = Command::new(FCGI_PYTHON);
        command.args(["--listen", &directory.socket("s")]).args(words).arg(&script);
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(message), "{words:?}: {text}");
    }
}

#[test]
fn an_accept_loop() {
    let directory = Directory::new();
    let script = directory.file(
        "loop.py",
        r#"
import os
import subprocess
import sys

import fcgi

count = 0
while fcgi.accept():
    count += 1
    print("Content-Type: text/plain\n")
    print(count, os.environ.get("QUERY_STRING"), os.getenv("ONLY"), sys.stdin.read(), flush=True)
    subprocess.run(["sh", "-c", "echo child $QUERY_STRING"])
    if os.environ.get("QUERY_STRING") == "status":
        fcgi.set_exit_status(7)
    if os.environ.get("QUERY_STRING") == "finish":
        fcgi.finish()
        print("never sent")
print("behind the loop", file=sys.stderr)
"#,
    );
    let address = directory.socket("s");
    let mut runner = serve(&address, &[&script.display().to_string()]);
    let ask = |query: &str, body: &[u8]| call(&address, &[("QUERY_STRING", query.as_bytes()), (query, b"x")], body);
    for (number, query) in ["a", "status", "finish", "ONLY", "b"].into_iter().enumerate() {
        let reply = ask(query, b"body");
        let only = if query == "ONLY" { "x" } else { "None" };
        let expected = says(&format!("{} {query} {only} body\nchild {query}", number + 1));
        assert_eq!((reply.text(), reply.errors()), (expected, String::new()), "{query}");
        assert_eq!(reply.app_status, if query == "status" { 7 } else { 0 });
    }
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(20)).0, Some(0));
    // Without a server the body runs once.
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    let output = command.arg(&script).stdin(Stdio::null()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "Content-Type: text/plain\n\n1 None None \nchild\n");
}

#[test]
fn functions_of_atexit_are_called_when_the_server_stops() {
    let directory = Directory::new();
    let log = directory.path().join("log").display().to_string();
    directory.file(
        "site_of_test.py",
        format!(
            "import atexit\natexit.register(lambda: open({log:?}, 'a').write('ended\\n'))\n\n\ndef app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'good']\n"
        ),
    );
    let address = directory.socket("s");
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command
        .args(["--listen", &address, "--app", "site_of_test:app"])
        .current_dir(directory.path())
        .stderr(Stdio::null());
    let mut runner = Running::start(&mut command);
    assert_eq!(call(&address, &[], b"").text(), "Status: 200 OK\r\n\r\ngood");
    assert!(!std::path::Path::new(&log).exists());
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(20)).0, Some(0));
    assert_eq!(std::fs::read_to_string(&log).unwrap(), "ended\n");
}
