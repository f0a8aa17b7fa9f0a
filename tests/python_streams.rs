//! Python: what modules that stay keep of the standard streams belongs to the request that runs.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use crate::support::client::{call, connect, request};
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment, serve_with};

/// Takes the streams when it is loaded, as modules of Mercurial and handlers of `logging` do.
const MODULE: &str = r#"
import sys

stdin, stdout, stderr = sys.stdin, sys.stdout, sys.stderr
body, answer = stdin.buffer, stdout.buffer
"#;

const SCRIPT: &str = r#"
import codecs
import io
import os
import sys

import keeps

print("Content-Type: text/plain\n")
print(sys.stdout is keeps.stdout, sys.stdin.buffer is keeps.body, keeps.stdout.encoding, keeps.stdout.line_buffering, flush=True)
# Some of a long body is left, which the next request does not see.
keeps.answer.write(keeps.body.read(8) + b"\n")
keeps.answer.flush()
keeps.stderr.write("log\n")
what = os.environ["QUERY_STRING"]
if what == "reconfigure":
    sys.stdout.reconfigure(encoding="latin-1", line_buffering=True)
elif what == "wrap":
    sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="latin-1")
    sys.stdin = io.TextIOWrapper(sys.stdin.buffer, encoding="latin-1")
elif what == "detach":
    sys.stdout = codecs.getwriter("latin-1")(sys.stdout.detach())
    sys.stdin = codecs.getreader("latin-1")(sys.stdin.detach())
print("\xe9")
if what == "close":
    sys.stdin.close()
    sys.stdout.close()
    sys.stderr.close()
"#;

#[test]
fn modules_may_keep_them_whatever_scripts_do_to_them() {
    let directory = Directory::new();
    directory.file("keeps.py", MODULE);
    let script = directory.file("script.py", SCRIPT).display().to_string();
    let address = directory.socket("s");
    let _server = serve_with(FCGI_PYTHON, &address, &["-X", "utf8", &script]);
    let long = "long ".repeat(50_000);
    let mut turn = 0;
    for first in ["", "reconfigure", "wrap", "detach", "close"] {
        for second in ["", "wrap", "close"] {
            for (what, body) in [(first, ""), (second, "short"), ("", &long), (first, "again")] {
                turn += 1;
                let params = [("QUERY_STRING", what.as_bytes()), ("REQUEST_METHOD", b"POST")];
                let reply = call(&address, &params, body.as_bytes());
                let read = &body[..body.len().min(8)];
                let letter: &[u8] = if what.is_empty() || what == "close" { "\u{e9}".as_bytes() } else { b"\xe9" };
                let head = format!("Content-Type: text/plain\n\nTrue True utf-8 False\n{read}\n");
                let expected = [head.as_bytes(), letter, b"\n"].concat();
                let seen = String::from_utf8_lossy(&reply.stdout);
                assert_eq!(reply.stdout, expected, "request {turn}, {what}: {seen}{}", reply.errors());
                assert_eq!((reply.errors().as_str(), reply.app_status), ("log\n", 0), "request {turn}, {what}");
            }
        }
    }
}

/// As `python3 -u`: what is written goes to the client at once, without a word from the script.
#[test]
fn unbuffered_output_does_not_wait() {
    for threads in ["1", "2"] {
        let directory = Directory::new();
        let address = directory.socket("s");
        let go = directory.path().join("go");
        let script = directory.file(
            "s.py",
            format!(
                "import os, time\nprint('Content-Type: text/plain\\n')\nprint('first', end='')\n\
                 while not os.path.exists('{}'):\n    time.sleep(0.005)\nprint(' second', end='')\n",
                go.display()
            ),
        );
        let mut command = Command::new(FCGI_PYTHON);
        plain_environment(&mut command);
        command.args(["--listen", &address, "--threads", threads]).arg(&script).env("PYTHONUNBUFFERED", "1");
        let _runner = Running::start(command.stdin(Stdio::null()).stderr(Stdio::null()));
        for _ in 0..2 {
            let mut socket = connect(&address);
            socket.write_all(&request(1, 1, false, &[], b"")).unwrap();
            let mut came = Vec::new();
            while !came.windows(5).any(|window| window == b"first") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                came.push(byte[0]);
            }
            std::fs::write(&go, "").unwrap();
            let mut rest = Vec::new();
            socket.read_to_end(&mut rest).unwrap();
            assert!(rest.windows(7).any(|window| window == b" second"));
            std::fs::remove_file(&go).unwrap();
        }
    }
}

/// A thread that waits for ever has not yet met the exception that is to end it: the code of others is not to be held up.
#[test]
fn a_thread_that_stays_holds_nobody_up() {
    let directory = Directory::new();
    directory.file(
        "script.py",
        r#"
import os, sys, threading
print("Content-Type: text/plain\n")
if os.environ["QUERY_STRING"] == "leave":
    lock = threading.Lock()
    lock.acquire()
    threading.Thread(target=lock.acquire, daemon=True).start()
events = []
def function():
    for n in range(3):
        pass
sys.settrace(lambda frame, event, argument: events.append(frame.f_code.co_name))
function()
sys.settrace(None)
print(events)
"#,
    );
    let address = directory.socket("s");
    let script = directory.path().join("script.py").display().to_string();
    let _server = serve_with(FCGI_PYTHON, &address, &["--request-timeout", "20", &script]);
    for what in ["leave", "", "leave", "", ""] {
        let reply = call(&address, &[("QUERY_STRING", what.as_bytes())], b"");
        assert_eq!(reply.text(), "Content-Type: text/plain\n\n['function']\n", "{}", reply.errors());
    }
}
