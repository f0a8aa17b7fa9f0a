//! Accept loops inside scripts, and what else the module `fcgi` offers.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{call, connect, params, read_reply, record, request, stream};
use crate::support::{Directory, FCGI_LUA, serve};

const LOOP: &str = r#"
local fcgi = require "fcgi"
local count = 0
while fcgi.accept() do
  count = count + 1
  local query = os.getenv("QUERY_STRING") or ""
  if query == "status" then fcgi.set_exit_status(7) end
  if query == "error" then error("in the loop") end
  if query == "exit" then os.exit(9) end
  print("Content-Type: text/plain\n")
  print(count, query, io.read("*a"))
  io.stderr:write("request ", count, "\n")
end
"#;

fn page(text: &str) -> String {
    format!("Content-Type: text/plain\n\n{text}\n")
}

#[test]
fn state_before_the_loop_stays() {
    let directory = Directory::new();
    let script = directory.file("loop.lua", LOOP).display().to_string();
    let address = directory.socket("s");
    let mut runner = serve(&address, &[&script]);
    for number in 1..=3 {
        let reply = call(&address, &[("QUERY_STRING", b"q"), ("CONTENT_LENGTH", b"4")], b"body");
        assert_eq!(reply.text(), page(&format!("{number}\tq\tbody")));
        assert_eq!(reply.errors(), format!("request {number}\n"));
    }
    let reply = call(&address, &[("QUERY_STRING", b"status")], b"");
    assert_eq!((reply.text(), reply.app_status), (page("4\tstatus\t"), 7));
    assert_eq!(call(&address, &[], b"").app_status, 0);
    // An error or an exit ends the loop, as it ends a process; the next request finds a new one.
    let reply = call(&address, &[("QUERY_STRING", b"error")], b"");
    assert_eq!(reply.app_status, 1);
    assert!(reply.text().starts_with("Status: 500 ") && reply.errors().contains("loop.lua:8: in the loop"));
    assert_eq!(call(&address, &[], b"").text(), page("1\t\t"));
    assert_eq!(call(&address, &[("QUERY_STRING", b"exit")], b"").app_status, 9);
    assert_eq!(call(&address, &[], b"").text(), page("1\t\t"));
    // It stops while it waits.
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(20)).0, Some(0));
}

#[test]
fn once_under_cgi_and_on_a_terminal() {
    let directory = Directory::new();
    let script = directory.file("loop.lua", LOOP);
    for method in [Some("GET"), None] {
        let mut command = Command::new(FCGI_LUA);
        command.arg(&script).env_clear().stdin(std::process::Stdio::null());
        if let Some(method) = method {
            command.env("REQUEST_METHOD", method);
        }
        let output = command.output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout), page("1\t\t"), "{method:?}");
    }
}

#[test]
fn several_loops_take_turns() {
    let directory = Directory::new();
    let one = directory.file("one.lua", LOOP).display().to_string();
    let two = directory.file("two.lua", LOOP).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[]);
    for script in [&one, &one, &two, &one] {
        let text = call(&address, &[("SCRIPT_FILENAME", script.as_bytes())], b"").text();
        assert!(text.starts_with("Content-Type"), "{text}");
    }
}

#[test]
fn a_changed_loop_is_started_anew() {
    let directory = Directory::new();
    let script = directory.file("loop.lua", LOOP).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script]);
    assert_eq!(call(&address, &[], b"").text(), page("1\t\t"));
    directory.file("loop.lua", "print('Content-Type: text/plain\\n') print('the new one')");
    let end = Instant::now() + Duration::from_secs(20);
    while call(&address, &[], b"").text() != page("the new one") {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_answer_is_sent_and_the_script_goes_on() {
    let directory = Directory::new();
    let script = directory.file(
        "finish.lua",
        "local fcgi = require 'fcgi'
         print('Content-Type: text/plain\\n') print('answered')
         fcgi.finish(3)
         print('nobody reads this')
         repeat os.execute('sleep 0.01') until io.open('go')
         io.open('done', 'w'):close()",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &[script.to_str().unwrap()]);
    let reply = call(&address, &[], b"");
    assert_eq!((reply.text(), reply.app_status), (page("answered"), 3));
    assert!(!directory.path().join("done").exists(), "the answer came first");
    directory.file("go", "");
    let end = Instant::now() + Duration::from_secs(20);
    while !directory.path().join("done").exists() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(call(&address, &[], b"").text(), page("answered"), "the interpreter lives on");
}

#[test]
fn roles() {
    let directory = Directory::new();
    let script = directory.file(
        "roles.lua",
        "local fcgi = require 'fcgi'
         while fcgi.accept() do
           print('Content-Type: text/plain\\n')
           print(fcgi.role(), os.getenv('FCGI_ROLE'), fcgi.params().NAME, fcgi.aborted())
           if fcgi.role() == 'FILTER' then
             print(io.read('*a'))
             for line in fcgi.data():lines() do print(line:upper()) end
           end
         end",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &[script.to_str().unwrap()]);
    let mut socket = connect(&address);
    for (role, expected) in [
        (1, "RESPONDER\tRESPONDER\tvalue\tfalse"),
        (2, "AUTHORIZER\tAUTHORIZER\tvalue\tfalse"),
        (3, "FILTER\tFILTER\tvalue\tfalse\nbody\nA FILE\nOF LINES"),
    ] {
        let mut bytes = record(1, 5, &[0, role, 1, 0, 0, 0, 0, 0]);
        bytes.extend(stream(4, 5, &params(&[("NAME", b"value")])));
        if role != 2 {
            bytes.extend(stream(5, 5, b"body"));
        }
        if role == 3 {
            bytes.extend(stream(8, 5, b"a file\nof lines\n"));
        }
        socket.write_all(&bytes).unwrap();
        assert_eq!(read_reply(&mut *socket, 5).text(), page(expected));
    }
}

#[test]
fn a_script_learns_that_nobody_waits() {
    let directory = Directory::new();
    let script = directory.file(
        "aborted.lua",
        "local fcgi = require 'fcgi'
         io.open('begun', 'w'):close()
         while not fcgi.aborted() do end
         io.open('aborted', 'w'):close()",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &[script.to_str().unwrap()]);
    let mut socket = connect(&address);
    socket.write_all(&request(1, 1, true, &[], b"")).unwrap();
    let end = Instant::now() + Duration::from_secs(20);
    while !directory.path().join("begun").exists() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(socket);
    while !directory.path().join("aborted").exists() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
}
