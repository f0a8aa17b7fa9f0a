//! What one request may take, and what separates it from the next: `--request-timeout`, `--memory-limit`, `--isolation`.

use std::time::{Duration, Instant};

use crate::support::client::{Reply, call};
use crate::support::{Directory, lua_is_at_least, serve};

fn ask(address: &str, query: &str) -> Reply {
    call(address, &[("QUERY_STRING", query.as_bytes())], b"")
}

/// Runs the code in the query string, after a header that is not sent yet.
const RUNS_QUERY: &str = "print('Content-Type: text/plain\\n') kept = kept or require('kept') print(kept) \
                          assert((loadstring or load)(os.getenv('QUERY_STRING')))()";
const ANSWER: &str = "Content-Type: text/plain\n\n";

#[test]
fn a_request_that_takes_too_long_ends_and_nothing_else_does() {
    let directory = Directory::new();
    directory.file("kept.lua", "loads = (loads or 0) + 1 return 'kept'");
    let script = directory.file("run.lua", RUNS_QUERY).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--request-timeout", "0.2", &script]);
    for (code, place) in [
        ("while true do end", "in main chunk"),
        ("while true do pcall(function() while true do end end) end", "in function"),
        ("while true do pcall(error) end", "in"),
        ("local function f() return f() end f()", "in"),
        ("xpcall(function() while true do end end, function() while true do end end)", "in function"),
        (
            "local c = coroutine.create(function() while true do pcall(load'while true do end') end end) \
          while true do coroutine.resume(c) end",
            "in",
        ),
        ("for x in coroutine.wrap(function() while true do end end) do end", "in function"),
        ("('x'):rep(10):gsub('.', function() while true do end end)", "in function"),
        ("table.sort({3, 2, 1}, function() while true do end end)", "in function"),
    ] {
        let begun = Instant::now();
        let reply = ask(&address, code);
        assert!(begun.elapsed() < Duration::from_secs(9), "{code}: {:?}", begun.elapsed());
        assert_eq!(
            reply.text(),
            "Status: 504 Gateway Timeout\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n504 Gateway Timeout\n",
            "{code}"
        );
        let says = "the request takes longer than 200ms (--request-timeout)\nstack traceback:\n";
        assert!(reply.errors().contains(says) && reply.errors().contains(place), "{code}: {}", reply.errors());
        assert_eq!(reply.app_status, 1);
        // The interpreter lives on, with the module that it has loaded.
        assert_eq!(ask(&address, "print(loads)").text(), format!("{ANSWER}kept\n1\n"));
    }
    // What was sent cannot be taken back, so nothing is.
    let reply = ask(&address, "io.stdout:flush() print('on its way') while true do end");
    assert_eq!((reply.text(), reply.app_status), (format!("{ANSWER}kept\non its way\n"), 1));
    let begun = Instant::now();
    // So it is when a child is waited for; the child is ended.
    for (code, place) in [("os.execute('sleep 31')", "os.execute"), ("io.popen('sleep 31'):read('*a')", "'read'")] {
        let begun = Instant::now();
        let reply = ask(&address, code);
        assert!(begun.elapsed() < Duration::from_secs(9), "{code}: {:?}", begun.elapsed());
        // Before Lua 5.2, nothing had been sent.
        assert!(
            reply.text() == format!("{ANSWER}kept\n") || reply.text().starts_with("Status: 504 "),
            "{}",
            reply.text()
        );
        assert_eq!(reply.app_status, 1);
        assert!(cfg!(feature = "luajit") || reply.errors().contains(place), "{code}: {}", reply.errors());
    }
    assert_eq!(ask(&address, "").text(), format!("{ANSWER}kept\n"));
    assert!(begun.elapsed() < Duration::from_secs(20), "the next request waited: {:?}", begun.elapsed());
    // Time that nobody waits for is not counted.
    let reply =
        ask(&address, "require('fcgi').finish() local e = os.clock() + 0.6 while os.clock() < e do end kept = 2");
    assert_eq!((reply.text(), reply.app_status, reply.errors()), (format!("{ANSWER}kept\n"), 0, String::new()));
}

#[test]
fn each_request_of_a_loop_has_its_own_time() {
    let directory = Directory::new();
    let text = "local fcgi = require 'fcgi' while fcgi.accept() do print('A: 1\\n') \
                local e = os.clock() + (tonumber(os.getenv('QUERY_STRING')) or 1e9) while os.clock() < e do end end";
    let script = directory.file("loop.lua", text).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--request-timeout", "1", &script]);
    for _ in 0..4 {
        assert_eq!(ask(&address, "0.12").text(), "A: 1\n\n");
    }
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(ask(&address, "0.01").text(), "A: 1\n\n");
    assert!(ask(&address, "for ever").text().starts_with("Status: 504 "));
    assert_eq!(ask(&address, "0.01").text(), "A: 1\n\n");
}

#[test]
fn memory_ends_for_one_script_alone() {
    let directory = Directory::new();
    directory.file("kept.lua", "return 'kept'");
    directory.file("hoard.lua", "return {}");
    let script = directory.file("run.lua", RUNS_QUERY).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--memory-limit", "8M", &script]);
    for code in [
        "local t = {} while true do t[#t + 1] = {} end",
        "return ('x'):rep(1e9)",
        "local s = 'x' while true do s = s .. s end",
        "coroutine.wrap(function() local t = {} while true do t[#t + 1] = ('x'):rep(1000) end end)()",
        // A module's table keeps it all; it must not spoil the requests that follow.
        "local h = require 'hoard' while true do h[#h + 1] = {} end",
        "io.read = nil local t = {} for n = 1, 1e9 do t[n] = assert(io.open('/dev/null')) end",
    ] {
        let reply = ask(&address, code);
        assert_eq!((reply.text(), reply.app_status), (format!("{ANSWER}kept\n"), 1), "{code}: {}", reply.errors());
        let says = reply.errors();
        assert!(says.contains("not enough memory") || says.contains("Too many open files"), "{code}: {says}");
        for _ in 0..2 {
            assert_eq!(ask(&address, "print(#require('hoard'), io.read())").text(), format!("{ANSWER}kept\n0\tnil\n"));
        }
    }
    // A script can catch it, and garbage is not counted.
    let caught = "print(pcall(string.rep, 'x', 1e8)) for n = 1, 400 do local s = ('x'):rep(1e5) end print('done')";
    let text = ask(&address, caught).text();
    assert!(
        text.starts_with(&format!("{ANSWER}kept\nfalse\tnot enough memory")) && text.ends_with("\ndone\n"),
        "{text}"
    );
}

/// A fresh state: not even modules stay, and finalizers run as at the end of a process.
#[test]
fn isolation_by_state() {
    let directory = Directory::new();
    directory.file("kept.lua", "return 'kept'");
    let script = directory.file("run.lua", RUNS_QUERY).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--isolation", "state", &script, "argument"]);
    // Older versions have no finalizers for tables.
    let finalized = if lua_is_at_least(2) { "last\nfirst\n" } else { "" };
    for _ in 0..3 {
        let code = "print(package.loaded.seen, extra, arg[1], ...) package.loaded.seen = true extra = 1 string.extra = 1 \
                    debug.getregistry().mark = (debug.getregistry().mark or 0) + 1 print(debug.getregistry().mark) \
                    open = io.open('out', 'w') open:write('left open') \
                    setmetatable({}, {__gc = function() print('first') end}) \
                    keep = setmetatable({}, {__gc = function() print('last') end})";
        assert_eq!(ask(&address, code).text(), format!("{ANSWER}kept\nnil\tnil\targument\n1\n{finalized}"));
        assert_eq!(std::fs::read_to_string(directory.path().join("out")).unwrap(), "left open");
        std::fs::remove_file(directory.path().join("out")).unwrap();
    }
    // What belongs to the process does not stay either.
    for _ in 0..2 {
        let code = "print(os.setlocale()) os.setlocale('C.UTF-8') debug.getregistry() math.randomseed(5)";
        assert_eq!(ask(&address, code).text(), format!("{ANSWER}kept\nC\n"));
    }
    let reply = ask(&address, "error('where')");
    assert!(
        reply.errors().contains(":1: where\nstack traceback:") && reply.errors().contains("run.lua:1: in main chunk")
    );
    let quick = "setmetatable({}, {__gc = function() print('never') end}) os.exit(4)";
    assert_eq!((ask(&address, quick).text(), ask(&address, quick).app_status), (format!("{ANSWER}kept\n"), 4));
}

#[test]
fn loops_and_applications_are_called_once_for_each_state() {
    let directory = Directory::new();
    let root = directory.path().display().to_string();
    let accept = "local fcgi, n = require 'fcgi', 0 while fcgi.accept() do n = n + 1 print('A: 1\\n\\n' .. n) end";
    let accept = directory.file("loop.lua", accept).display().to_string();
    let app = "local n = 0 return function() n = n + 1 return 200, {A = 1}, n end";
    let app = directory.file("app.lua", app).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &["--isolation", "state", "--root", &root]);
    for _ in 0..3 {
        for (script, answer) in [(&accept, "A: 1\n\n1\n"), (&app, "Status: 200 OK\r\nA: 1\r\n\r\n1")] {
            assert_eq!(call(&address, &[("SCRIPT_FILENAME", script.as_bytes())], b"").text(), answer);
        }
    }
}
