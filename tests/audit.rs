//! `--audit` and `--check`: what scripts leave behind is said.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::call;
use crate::support::{Directory, FCGI_LUA, Running, plain_environment};

/// The log of a runner with `--audit`, behind two requests.
fn audit(runner: &str, directory: &Directory, script: &str) -> String {
    let address = directory.socket("s");
    let mut command = Command::new(runner);
    plain_environment(&mut command);
    command.args(["--audit", "--listen", &address, script]).stderr(Stdio::piped());
    let mut running = Running::start(&mut command);
    for _ in 0..2 {
        assert_eq!(call(&address, &[], b"").app_status, 0);
    }
    running.signal("TERM");
    running.wait(Duration::from_secs(20)).1
}

/// What `--check` says, and its exit status.
fn check(runner: &str, script: &str) -> (String, Option<i32>) {
    let mut command = Command::new(runner);
    plain_environment(&mut command);
    let output = command.args(["--check", script]).stdin(Stdio::null()).output().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
}

const CLEAN: &str = "count = 1 print('Content-Type: text/plain\\n')";

#[test]
fn tables_that_lua_scripts_change() {
    let directory = Directory::new();
    directory.file("helper.lua", "return {count = 0}");
    let script = directory.file(
        "leaves.lua",
        "package.path = './?.lua;' .. package.path
        local helper = require 'helper'
        helper.count = helper.count + 1
        helper.added = function() return helper end
        string.trim = function() end
        table.remove = nil
        print('Content-Type: text/plain\\n')",
    );
    let script = script.to_str().unwrap();
    let log = audit(FCGI_LUA, &directory, script);
    says(
        &log,
        &["string.trim is new, a function of ", "leaves.lua:5: was put back", "table.remove was removed: was put back"],
    );
    says(&log, &["helper.count was changed: stays", "leaves.lua:4: stays"]);
    let (text, status) = check(FCGI_LUA, script);
    says(&text, &["helper.count was changed: stays", "--isolation fork"]);
    assert_eq!(status, Some(1), "{text}");
    let clean = directory.file("clean.lua", CLEAN);
    let (text, status) = check(FCGI_LUA, clean.to_str().unwrap());
    assert_eq!(status, Some(0), "{text}");
    let fails = directory.file("fails.lua", "error('on purpose')");
    let (text, status) = check(FCGI_LUA, fails.to_str().unwrap());
    says(&text, &["cannot be checked", "on purpose"]);
    assert_eq!(status, Some(2), "{text}");
}

#[cfg(feature = "python")]
#[test]
fn modules_and_the_process_that_python_scripts_change() {
    let directory = Directory::new();
    directory.file("helper.py", "count = 0\nfiles = []");
    let script = directory.file(
        "leaves.py",
        "import json, os, signal, threading, time, helper
print('Content-Type: text/plain\\n')
json.dumps = lambda value: 'patched'
helper.count += 1
helper.files.append(open('/dev/zero'))
os.umask(0o27)
signal.signal(signal.SIGUSR2, signal.SIG_IGN)
",
    );
    let script = script.to_str().unwrap();
    let log = audit(crate::support::FCGI_PYTHON, &directory, script);
    says(&log, &["json.dumps was changed, a function of ", "leaves.py:3 (line 3): was put back"]);
    says(&log, &["the umask was changed: was put back", "handler of signal 12 was changed: was put back"]);
    says(
        &log,
        &["helper.count was changed (line 4): stays", "helper.files has 2 entries instead of 1", "(/dev/zero): stays"],
    );
    let (text, status) = check(crate::support::FCGI_PYTHON, script);
    says(&text, &["helper.count was changed (line 4): stays"]);
    assert_eq!(status, Some(1), "{text}");
    let clean = directory.file("clean.py", "import json\nprint('Content-Type: text/plain\\n')\ncount = json.dumps(1)");
    let (text, status) = check(crate::support::FCGI_PYTHON, clean.to_str().unwrap());
    assert_eq!(status, Some(0), "{text}");
}

#[cfg(feature = "rhai")]
#[test]
fn nothing_of_rhai_scripts_stays() {
    let directory = Directory::new();
    let script = directory.file("say.rhai", "print(\"Content-Type: text/plain\\n\");");
    let (text, status) = check(crate::support::FCGI_RHAI, script.to_str().unwrap());
    assert_eq!(status, Some(0), "{text}");
}
