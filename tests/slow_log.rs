//! The slow log: an entry tells where a request is that runs for long, in each language; the request goes on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{call, connect, read_reply, request};
use crate::support::{Directory, FCGI_LUA, serve_with};

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn pairs(uri: &str) -> [(&str, &[u8]); 4] {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    [
        ("REQUEST_METHOD", b"GET"),
        ("REQUEST_URI", uri.as_bytes()),
        ("SCRIPT_NAME", b"/app"),
        ("QUERY_STRING", query.as_bytes()),
    ]
}

/// A program that waits in `inner`, called by `outer`, until a file is there if the query is `wait`.
struct Program<'a> {
    runner: &'a str,
    file: &'a str,
    text: &'a str,
    options: &'a [&'a str],
    /// Lines of the entry, in this order.
    says: &'a [&'a str],
}

fn check(program: &Program<'_>) {
    let directory = Directory::new();
    let go = &directory.path().join("go").display().to_string();
    let script = directory.file(program.file, program.text.replace("GO", go)).display().to_string();
    let (address, log) = (directory.socket("s"), directory.path().join("slow.log"));
    let path = log.display().to_string();
    let files = directory.path().display().to_string();
    let mut arguments = vec!["--slow-log", &path, "--slow-after", "1", "--status", "/status"];
    arguments.extend(program.options.iter().map(|option| if *option == "DIRECTORY" { &*files } else { *option }));
    arguments.push(&script);
    let _runner = serve_with(program.runner, &address, &arguments);
    let quick = |uri: &str| call(&address, &pairs(uri), b"").text();
    // The first one may have to load much.
    assert!(quick("/app?warm").contains("done"), "{}", program.file);
    let before = read(&log).matches("\n\n").count();
    for _ in 0..20 {
        assert!(quick("/app?quick").contains("done"), "{}", program.file);
    }
    let mut client = connect(&address);
    client.write_all(&request(1, 1, false, &pairs("/app?wait"), b"")).unwrap();
    wait_for(&format!("{}: no entry: {}", program.file, read(&log)), || {
        read(&log).contains("/app?wait") && read(&log).ends_with("\n\n")
    });
    // It has no other.
    std::thread::sleep(Duration::from_millis(500));
    let text = read(&log);
    let entries: Vec<&str> = text.split_terminator("\n\n").collect();
    assert_eq!(entries.len(), before + 1, "{text}");
    let entry = entries[before];
    assert!(entry.contains(&format!("script \"{script}\" request \"GET /app?wait\" has run for ")), "{entry}");
    let mut rest = entry;
    for line in program.says {
        let line = line.replace("FILE", &script).replace("GO", go);
        let at = rest.find(&line).unwrap_or_else(|| panic!("no {line} in {entry}"));
        rest = &rest[at + line.len()..];
    }
    directory.file("go", "");
    let reply = read_reply(&mut *client, 1).text();
    assert!(reply.contains("done"), "{reply}");
    let status = quick("/status?json");
    let status = status.split_once("\r\n\r\n").expect("a head").1;
    let status: serde_json::Value = serde_json::from_str(status).unwrap_or_else(|e| panic!("{e}: {status}"));
    assert_eq!(status["slow requests"], (before + 1) as u64, "{status}");
}

#[test]
fn lua() {
    // The script's own hook and its coroutine are unharmed, and what waits for the system is told when it has waited.
    let text = "local count = 0
debug.sethook(function() count = count + 1 end, '', 1000)
local function inner()
  repeat os.execute('sleep 0.02') local f = io.open('GO') until f
  local sum = 0 for i = 1, 10000 do sum = sum + i end
end
local function outer() inner() return 1 end
if os.getenv('QUERY_STRING') == 'wait' then
  outer()
  assert(debug.gethook() and count > 0)
end
print('Content-Type: text/plain\\n') print('done')";
    let says = &["FILE:4: in ", "FILE:7: in ", "FILE:9: in "];
    for options in [&["--isolation", "globals"][..], &["--isolation", "state"], &["--threads", "2"]] {
        check(&Program { runner: FCGI_LUA, file: "app.lua", text, options, says });
    }
}

#[cfg(feature = "rhai")]
#[test]
fn rhai() {
    // By steps of the script, and while a function of ours waits.
    for pause in ["", "sleep(0.02);"] {
        rhai_with(pause);
    }
}

#[cfg(feature = "rhai")]
fn rhai_with(pause: &str) {
    let text = "fn inner() { while !exists(\"go\") { PAUSE } }
fn outer() { inner(); }
if env(\"QUERY_STRING\") == \"wait\" { outer(); }
print(\"Content-Type: text/plain\\n\");
print(\"done\");";
    check(&Program {
        runner: crate::support::FCGI_RHAI,
        file: "app.rhai",
        text: &text.replace("PAUSE", pause),
        options: &["--fs-root", "DIRECTORY"],
        says: &[
            "  FILE:1:",
            "\n  in function 'inner', called at FILE:2:14\n",
            "  in function 'outer', called at FILE:3:36",
        ],
    });
}

#[test]
fn what_cannot_be_is_said() {
    let directory = Directory::new();
    let script = directory.file("app.lua", "print('Content-Type: text/plain\\n')").display().to_string();
    let address = directory.socket("s");
    for (arguments, said) in [
        (&["--slow-after", "5"][..], "--slow-log"),
        (&["--slow-log", "stderr", "--slow-after", "0"], "--slow-after"),
        (&["--slow-log", "/nowhere/at/all"], "/nowhere/at/all (--slow-log)"),
        (&["--slow-log", "stderr", "--isolation", "fork"], "--slow-log is not for --isolation fork"),
    ] {
        let done = Command::new(FCGI_LUA).args(["--listen", &address]).args(arguments).arg(&script).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && text.contains(said), "{text}");
    }
}

#[cfg(feature = "python")]
mod python {
    use super::{Program, check};
    use crate::support::FCGI_PYTHON;

    const SAYS: &[&str] = &[
        "  File \"FILE\", line 7, in outer\n    inner()\n",
        "  File \"FILE\", line 4, in inner\n    while not os.path.exists('GO'): time.sleep(0.02)",
    ];
    const BEGIN: &str = "import os, time

def inner():
    while not os.path.exists('GO'): time.sleep(0.02)

def outer():
    inner()
";

    fn python(rest: &str, options: &[&str]) {
        check(&Program { runner: FCGI_PYTHON, file: "app.py", text: &format!("{BEGIN}{rest}"), options, says: SAYS });
    }

    #[test]
    fn scripts() {
        let rest = "if os.environ['QUERY_STRING'] == 'wait':
    outer()
print('Content-Type: text/plain\\n')
print('done')";
        for options in [&[][..], &["--workers", "2"], &["--request-timeout", "600"]] {
            python(rest, options);
        }
    }

    #[test]
    fn asgi() {
        let text = "import asyncio, os

async def inner():
    while not os.path.exists('GO'): await asyncio.sleep(0.02)

async def outer():
    await inner()

async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    if scope['query_string'] == b'wait':
        await outer()
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'done'})";
        let says = &["line 13, in app\n    await outer()\n", "line 7, in outer\n", "line 4, in inner\n    while not "];
        let options = &["--interface", "asgi:asyncio"];
        check(&Program { runner: FCGI_PYTHON, file: "app.py", text, options, says });
    }

    #[test]
    fn wsgi() {
        let rest = "def app(environ, start_response):
    if environ['QUERY_STRING'] == 'wait':
        outer()
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [b'done']";
        for options in [&["--threads", "2"][..], &["--interface", "wsgi"]] {
            python(rest, options);
        }
    }
}
