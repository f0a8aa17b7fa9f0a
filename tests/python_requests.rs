//! Python: requests as objects, in all roles; launchers made for flup.

use std::io::Write;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::{Reply, call, connect, params, read_reply, record, stream};
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment, repository, serve_with};

/// A runner whose log can be read when it has ended.
fn serve(address: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command.args(["--listen", address]).args(arguments).stdin(Stdio::null()).stderr(Stdio::piped());
    Running::start(&mut command)
}

fn says(text: &str) -> String {
    format!("Content-Type: text/plain\r\n\r\n{text}")
}

/// Sends a request of any role, with a file for a filter.
fn call_as(address: &str, role: u8, query: &str, body: &[u8], data: &[u8]) -> Reply {
    let mut bytes = record(1, 1, &[0, role, 0, 0, 0, 0, 0, 0]);
    bytes.extend(stream(4, 1, &params(&[("QUERY_STRING", query.as_bytes())])));
    if role != 2 {
        bytes.extend(stream(5, 1, body));
    }
    if role == 3 {
        bytes.extend(stream(8, 1, data));
    }
    let mut socket = connect(address);
    socket.write_all(&bytes).unwrap();
    read_reply(&mut *socket, 1)
}

/// Runs a program without a server; gives its output and its exit status.
fn without_server(arguments: &[&str], environment: &[(&str, &str)], body: &str) -> (String, String, Option<i32>) {
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command.args(arguments).envs(environment.iter().copied());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(body.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

const OBJECTS: &str = r#"
import io
import os
import subprocess
import sys

import fcgi

print("before the loop")
count = 0
for request in fcgi.requests():
    count += 1
    what = request.params["QUERY_STRING"]
    print("printed in the loop")
    os.environ["KEPT"] = str(count)
    if what == "error":
        raise ValueError("in the loop")
    if what == "exit":
        sys.exit(9)
    if what == "nothing":
        continue
    if what == "both":
        fcgi.accept()
    answer = io.TextIOWrapper(request.stdout, encoding="utf-8", newline="", write_through=True)
    answer.write("Content-Type: text/plain\r\n\r\n")
    first = request.stdin.readline()
    print(count, what, first, len(request.stdin.read()), [*request.data], os.environ.get("QUERY_STRING"), file=answer)
    print(request.raw_params[b"QUERY_STRING"], request.aborted, file=answer)
    subprocess.run(["echo", "said by a child"])
    request.stderr.write(b"to the error log\n")
    if what == "status":
        fcgi.set_exit_status(7)
    elif what == "finish":
        request.finish(8)
        answer.write("never sent")
    del answer
print("behind the loop", os.environ["KEPT"])
"#;

fn answer(count: usize, query: &str, rest: &str) -> String {
    says(&format!("{count} {query} {rest} None\nb'{query}' False\n"))
}

#[test]
fn requests_are_objects() {
    let directory = Directory::new();
    let script = directory.file("objects.py", OBJECTS).display().to_string();
    let address = directory.socket("s");
    let mut runner = serve(&address, &[&script]);
    let long = b"line\n".repeat(100_000);
    for (count, (query, status)) in [("a", 0), ("status", 7), ("finish", 8), ("b", 0)].into_iter().enumerate() {
        let reply = call(&address, &[("QUERY_STRING", query.as_bytes())], &long);
        assert_eq!(reply.text(), answer(count + 1, query, "b'line\\n' 499995 []"));
        assert_eq!((reply.errors(), reply.app_status), ("to the error log\n".to_owned(), status), "{query}");
    }
    // Where there is no answer there is a page; the loop goes on.
    let reply = call(&address, &[("QUERY_STRING", b"nothing")], b"");
    assert!(reply.text().starts_with("Status: 500 ") && reply.app_status == 0);
    // What ends the loop ends the request that it has; the next one finds a new one.
    for (query, status, errors) in
        [("error", 1, "ValueError: in the loop\n"), ("exit", 9, ""), ("both", 1, "not by both\n")]
    {
        let reply = call(&address, &[("QUERY_STRING", query.as_bytes())], b"");
        assert!(reply.text().starts_with("Status: 500 "), "{query}: {}", reply.text());
        assert!(reply.errors().ends_with(errors) && !reply.errors().contains("printed"), "{}", reply.errors());
        assert_eq!(reply.app_status, status, "{query}");
        let reply = call_as(&address, 1, "new", b"", b"");
        assert_eq!(reply.text(), answer(1, "new", "b'' 0 []"), "after {query}");
    }
    runner.signal("TERM");
    let (status, log) = runner.wait(Duration::from_secs(20));
    assert_eq!(status, Some(0));
    for text in ["before the loop", "printed in the loop", "said by a child", "behind the loop 1"] {
        assert!(log.contains(text), "{text}: {log}");
    }
}

#[test]
fn a_child_that_is_forked_sends_nothing_twice() {
    let directory = Directory::new();
    let script = directory.file(
        "fork.py",
        "import os, sys, time
print('Content-Type: text/plain\\n', flush=True)
os.system('echo by a child')
# It is with the server, and has not been sent.
time.sleep(0.1)
if os.fork() == 0:
    print('forked', flush=True)
    os._exit(0)
os.wait()
print('end')
",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &[script.to_str().unwrap()]);
    for _ in 0..3 {
        assert_eq!(call(&address, &[], b"").text(), "Content-Type: text/plain\n\nby a child\nforked\nend\n");
    }
}

#[test]
fn a_filter_and_an_authorizer_by_objects() {
    let directory = Directory::new();
    let script = repository().join("examples/roles.py").display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script]);
    // Of a file that is longer than what is kept, too, and with a body that nobody reads.
    let file = b"a line\n".repeat(50_000);
    for number in 0..2 {
        let reply = call_as(&address, 1, "", b"body", b"");
        assert_eq!(reply.text(), says(&format!("Request number {}, with 4 bytes.\n", number * 4 + 1)));
        let reply = call_as(&address, 3, "", b"body", &file);
        assert_eq!((reply.text(), reply.app_status), (says(&"A LINE\n".repeat(50_000)), 0));
        let reply = call_as(&address, 2, "word=sesame", b"", b"");
        assert_eq!(reply.text(), "Status: 200 OK\r\nVariable-GUEST: yes\r\n\r\n");
        let reply = call_as(&address, 2, "word=please", b"", b"");
        assert!(reply.text().starts_with("Status: 403 Forbidden\r\n"), "{}", reply.text());
    }
}

#[test]
fn once_under_cgi_and_on_a_terminal() {
    let directory = Directory::new();
    let script = directory.file("objects.py", OBJECTS).display().to_string();
    let (stdout, stderr, status) =
        without_server(&[&script], &[("REQUEST_METHOD", "POST"), ("QUERY_STRING", "finish")], "body\nmore");
    assert!(stdout.contains("1 finish b'body\\n' 4 [] finish\n") && !stdout.contains("never sent"), "{stdout}");
    assert_eq!((&*stderr, status), ("to the error log\n", Some(8)));
    assert!(stdout.ends_with("behind the loop 1\n"), "{stdout}");
    let script = repository().join("examples/roles.py").display().to_string();
    assert_eq!(
        without_server(&[&script], &[], "typed"),
        (says("Request number 1, with 5 bytes.\n"), String::new(), Some(0))
    );
    // A filter's file and an authorizer are asked for by FastCGI, but a role can be named.
    let environment = [("FCGI_ROLE", "AUTHORIZER"), ("QUERY_STRING", "word=sesame")];
    assert!(without_server(&[&script], &environment, "").0.starts_with("Status: 200 OK\r\nVariable-GUEST: yes\r\n"));
}

#[test]
fn a_loop_of_objects_has_a_time_limit_for_each_request() {
    let directory = Directory::new();
    let script = directory.file(
        "slow.py",
        "import time
import fcgi
for request in fcgi.requests():
    try:
        time.sleep(60 if request.params['QUERY_STRING'] == 'slow' else 0.1)
        request.stdout.write(b'Content-Type: text/plain\\r\\n\\r\\ngood')
    except fcgi.RequestTimeout:
        print('it was late')
",
    );
    let address = directory.socket("s");
    let mut runner = serve(&address, &["--request-timeout", "0.5", script.to_str().unwrap()]);
    for query in ["", "slow", "", "slow", ""] {
        let text = call(&address, &[("QUERY_STRING", query.as_bytes())], b"").text();
        assert!(text.starts_with(if query.is_empty() {
            "Content-Type: text/plain\r\n\r\ngood"
        } else {
            "Status: 504 "
        }));
    }
    runner.signal("TERM");
    let (status, log) = runner.wait(Duration::from_secs(20));
    assert_eq!((status, log.matches("it was late").count()), (Some(0), 2), "{log}");
}

/// As they were written for flup; `MODULE` and `ARGUMENTS` are what differs.
const DISPATCH: &str = r#"#!/usr/bin/python
import os
import sys

from flup.server.MODULE import WSGIServer

calls = 0


def my_application(environ, start_response):
    global calls
    calls += 1
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["QUERY_STRING"] == "error":
        raise ValueError("in the application")
    kind = [environ["wsgi." + name] for name in ("multithread", "multiprocess", "run_once")]
    # Text is what flup takes, too.
    yield "%d %s %s\xe9 " % (calls, environ["OWN"], environ["PATH_INFO"])
    yield b"%r %r %r" % (kind, os.environ.get("QUERY_STRING"), environ["wsgi.input"].read())


if __name__ == "__main__":
    if WSGIServer(my_application, environ={"OWN": "own"}, ARGUMENTS).run():
        os.execv(sys.executable, [sys.executable, *sys.argv])
    print("behind the server")
"#;

fn dispatch(directory: &Directory, module: &str, arguments: &str) -> String {
    let text = DISPATCH.replace("MODULE", module).replace("ARGUMENTS", arguments);
    directory.file(&format!("{module}.fcgi"), text).display().to_string()
}

fn flups_answer(count: usize, kind: &str, query: &str, body: &str) -> Vec<u8> {
    let mut bytes = b"Status: 200 OK\r\nContent-Type: text/plain\r\n\r\n".to_vec();
    bytes.extend(format!("{count} own /path").bytes());
    bytes.push(0xe9);
    bytes.extend(format!(" {kind} {query} {body}").bytes());
    bytes
}

#[test]
fn launchers_made_for_flup_run_unchanged() {
    for (module, arguments, kind, vain) in [
        ("fcgi", "", "[False, False, False]", ""),
        (
            "fcgi",
            "bindAddress=('127.0.0.1', 1), maxThreads=9, debug=True",
            "[False, False, False]",
            "debug, bindAddress, maxThreads",
        ),
        ("fcgi_single", "", "[False, False, False]", ""),
        ("fcgi_fork", "maxRequests=100, maxChildren=3", "[False, True, False]", "maxRequests, processes"),
    ] {
        let directory = Directory::new();
        let script = dispatch(&directory, module, arguments);
        let address = directory.socket("s");
        let mut runner = serve(&address, &["--flup", &script]);
        for count in 1..=3 {
            let pairs: [(&str, &[u8]); 3] =
                [("SCRIPT_NAME", b"/fcgi.fcgi"), ("PATH_INFO", b"/path"), ("QUERY_STRING", b"q")];
            let reply = call(&address, &pairs, b"body");
            assert_eq!(reply.stdout, flups_answer(count, kind, "None", "b'body'"), "{}", reply.text());
            // What is asked for in vain is said once.
            let names: Vec<_> = vain.split(", ").filter(|_| count == 1).collect();
            assert!(names.iter().all(|name| reply.errors().contains(name)), "{}", reply.errors());
            assert_eq!(reply.errors().is_empty(), names.concat().is_empty(), "{}", reply.errors());
        }
        let reply = call(&address, &[("QUERY_STRING", b"error")], b"");
        assert!(reply.text().starts_with("Status: 500 "), "{}", reply.text());
        assert!(reply.errors().ends_with("ValueError: in the application\n"), "{}", reply.errors());
        runner.signal("TERM");
        let (status, log) = runner.wait(Duration::from_secs(20));
        assert!(status == Some(0) && log.contains("behind the server"), "{log}");
    }
}

#[test]
fn a_launcher_with_a_socket_of_its_own_and_as_a_cgi_program() {
    let directory = Directory::new();
    let path = directory.path().join("own").display().to_string();
    let script = dispatch(&directory, "fcgi", &format!("maxThreads=3, umask=0o007, bindAddress={path:?}"));
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    let mut launcher = Running::start(command.args(["--flup", &script]).stdin(Stdio::null()).stdout(Stdio::null()));
    for count in 1..=3 {
        let reply = call(&format!("unix:{path}"), &[("SCRIPT_NAME", b"/path"), ("QUERY_STRING", b"q")], b"");
        assert_eq!(reply.stdout, flups_answer(count, "[True, False, False]", "None", "b''"), "{}", reply.text());
    }
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o770);
    launcher.signal("TERM");
    assert_eq!(launcher.wait(Duration::from_secs(20)).0, Some(0));
    let script = dispatch(&directory, "fcgi_fork", "");
    let environment = [("REQUEST_METHOD", "GET"), ("SCRIPT_NAME", "/path"), ("QUERY_STRING", "q")];
    let (stdout, stderr, status) = without_server(&["--flup", &script], &environment, "");
    let expected = flups_answer(1, "[False, True, True]", "'q'", "b''");
    assert_eq!((stdout, &*stderr, status), (String::from_utf8_lossy(&expected).into_owned(), "", Some(0)));
    let named = directory.file(
        "app.fcgi",
        DISPATCH.replace("my_application", "app").replace("MODULE", "fcgi").replace(", ARGUMENTS", ""),
    );
    let (stdout, stderr, _) = without_server(&["--flup", &named.display().to_string()], &environment, "");
    assert_eq!((stdout, &*stderr), (String::from_utf8_lossy(&expected).into_owned(), ""));
    // Without the option, there is no such module.
    assert!(without_server(&[&script], &environment, "").1.contains("No module named 'flup'"));
}

/// An environment is used again only when it is as it was and nobody has kept it.
#[test]
fn an_environment_belongs_to_one_request() {
    let directory = Directory::new();
    directory.file("keeps.py", "held = []\n");
    directory.file(
        "script.py",
        r#"
import os
import keeps
print("Content-Type: text/plain\n")
print(os.environ.get("ADDED"), os.environ["QUERY_STRING"], [held[b"QUERY_STRING"].decode() for held in keeps.held])
what = os.environ["QUERY_STRING"].partition("-")[0]
if what == "hold":
    keeps.held.append(os.environ._data)
elif what == "write":
    os.environ["ADDED"] = "1"
    os.environb[b"QUERY_STRING"] = b"changed"
elif what == "delete":
    del os.environ["QUERY_STRING"]
elif what == "clear":
    os.environ.clear()
"#,
    );
    let address = directory.socket("s");
    let script = directory.path().join("script.py").display().to_string();
    let _server = serve_with(FCGI_PYTHON, &address, &[&script]);
    let mut held: Vec<String> = Vec::new();
    for n in 0..3 {
        for what in ["hold", "", "", "write", "", "hold", "delete", "", "clear", "", "write", "hold", ""] {
            let query = format!("{what}-{n}");
            let reply = call(&address, &[("QUERY_STRING", query.as_bytes())], b"");
            let expected = format!("Content-Type: text/plain\n\nNone {query} {held:?}\n").replace('"', "'");
            assert_eq!(reply.text(), expected, "{}", reply.errors());
            if what == "hold" {
                held.push(query);
            }
        }
    }
}
