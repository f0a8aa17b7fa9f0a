//! How the runner finds out what it is to be, and what it says when it is used wrongly.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::client::{call, connect};
use crate::support::{Directory, FCGI_LUA, LUA, Running, comparable, lua_is_at_least, serve};

const PAPER: &str = r#"
count = (count or 0) + 1
print("Content-Type: text/html\n")
print("Hello world!<br>Request number " .. count .. ".")
"#;
const PAPER_SAYS: &str = "Content-Type: text/html\n\nHello world!<br>Request number 1.\n";

#[test]
fn plain_on_a_terminal() {
    let directory = Directory::new();
    let script = directory.file("hello.lua", PAPER);
    let output = Command::new(FCGI_LUA).arg(&script).env_clear().output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), PAPER_SAYS);
    assert!(output.status.success());
    let script = directory.file("arguments.lua", "print(arg[0], ...) io.stderr:write('e') os.exit(7)");
    let output = Command::new(FCGI_LUA).arg(&script).args(["one", "--two", "-3"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{}\tone\t--two\t-3\n", script.display()));
    assert_eq!((output.status.code(), &output.stderr[..]), (Some(7), &b"e"[..]));
}

#[test]
fn plain_errors_are_those_of_lua() {
    let directory = Directory::new();
    for text in ["error('wrong')", "local x = = 1", "error({})", "local t = nil; t.x = 1", "require 'none'"] {
        let script = directory.file("bad.lua", text);
        let run = |program: &str| {
            let output = Command::new(program).arg("bad.lua").current_dir(directory.path()).output().unwrap();
            let errors = String::from_utf8_lossy(&comparable(&output.stderr)).into_owned();
            (errors.split_once(": ").map(|(_, rest)| rest.to_owned()), output.status.code())
        };
        assert!(script.exists());
        assert_eq!(run(FCGI_LUA), run(LUA), "{text}");
    }
}

#[test]
fn cgi_by_hand() {
    let directory = Directory::new();
    let script = directory
        .file("echo.lua", "print('Content-Type: text/plain\\n') io.write(os.getenv('QUERY_STRING'), io.read('*a'))");
    let mut child = Command::new(FCGI_LUA)
        .arg(&script)
        .envs([
            ("GATEWAY_INTERFACE", "CGI/1.1"),
            ("REQUEST_METHOD", "POST"),
            ("QUERY_STRING", "q"),
            ("CONTENT_LENGTH", "4"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"body").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"Content-Type: text/plain\n\nqbody");
}

#[test]
fn listening_descriptor_0() {
    let directory = Directory::new();
    let script = directory.file("hello.lua", PAPER);
    let listener = UnixListener::bind(directory.path().join("s")).unwrap();
    // Descriptors 1 and 2 may be closed or go anywhere; they are no transport.
    let mut command = Command::new(FCGI_LUA);
    command.arg(&script).stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    let mut runner = Running::start(&mut command);
    for _ in 0..3 {
        assert_eq!(call(&directory.socket("s"), &[], b"").text(), PAPER_SAYS);
    }
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(10)).0, Some(0));
}

#[test]
fn sockets_from_systemd() {
    let directory = Directory::new();
    let script = directory.file(
        "env.lua",
        "print('Content-Type: text/plain\\n') print(os.getenv('LISTEN_FDS'), os.getenv('LISTEN_PID'))",
    );
    // The shell's process becomes the runner, so it knows the number that LISTEN_PID must have.
    let listener = UnixListener::bind(directory.path().join("s")).unwrap();
    let mut command = Command::new("sh");
    command
        .args(["-c", "exec 3<&0 0</dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$0\" \"$1\"", FCGI_LUA])
        .arg(&script)
        .stdin(OwnedFd::from(listener));
    let _runner = Running::start(&mut command);
    assert_eq!(call(&directory.socket("s"), &[], b"").text(), "Content-Type: text/plain\n\nnil\tnil\n");
}

#[test]
fn several_listeners_at_once() {
    let directory = Directory::new();
    let script = directory.file("hello.lua", PAPER);
    let mut command = Command::new(FCGI_LUA);
    let (one, two) = (directory.socket("one"), directory.socket("two"));
    command.args(["--listen", &one, "--listen", &two, "--listen", "127.0.0.1:0"]).arg(&script).stderr(Stdio::null());
    let _runner = Running::start(&mut command);
    for address in [&one, &two, &one] {
        assert_eq!(call(address, &[], b"").text(), PAPER_SAYS);
    }
}

#[test]
fn strangers_are_closed_at_once() {
    use std::io::Read;
    let directory = Directory::new();
    let script = directory.file("hello.lua", PAPER);
    for (variable, option) in [("127.0.0.2,10.0.0.0/8", None), ("", Some("10.0.0.0/8"))] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &address]).env("FCGI_WEB_SERVER_ADDRS", variable).stderr(Stdio::null());
        if let Some(option) = option {
            command.args(["--allow", option]);
        }
        let _runner = Running::start(command.arg(&script));
        assert_eq!(connect(&address).read(&mut [0]).unwrap_or(0), 0);
    }
}

/// The whole of standard error, and the exit status.
fn wrong_use(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(FCGI_LUA).args(arguments).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.stdout, b"", "{arguments:?}");
    (String::from_utf8_lossy(&output.stderr).into_owned(), output.status.code())
}

#[test]
fn wrong_use_is_one_clear_line() {
    let directory = Directory::new();
    let script = directory.file("hello.lua", PAPER).display().to_string();
    let live = directory.socket("live");
    let _server = serve(&live, &[&script]);
    let file = directory.file("file", "x").display().to_string();
    for (arguments, says) in [
        (&["--no-such-option"][..], "--no-such-option"),
        (&["--listen", &directory.socket("new"), "-x", &script], "unrecognized option '-x'"),
        (&["--listen", "nonsense:port", &script], "is no address"),
        (&["--listen", &live, &script], "in use by a running server"),
        (&["--listen", &format!("unix:{file}"), &script], "not a socket"),
        (&["--listen", "unix:/no/such/directory/s", &script], "No such file"),
        (&["--listen", "192.0.2.1:9000", &script], "cannot listen on 192.0.2.1:9000"),
        (&["--listen", &directory.socket("new"), "/no/such/script.lua"], "cannot open /no/such/script.lua"),
        (&["--listen", &directory.socket("new"), directory.path().to_str().unwrap()], "is a directory"),
        (&["--listen", &directory.socket("new"), "--root", "/no/such/root"], "is not a directory"),
        (&["--listen", &directory.socket("new"), "--allow", "localhost", &script], "is no IP address"),
        (&["--listen", &directory.socket("new"), "--workers", "0", &script], "--workers"),
        (&["--listen", &directory.socket("new"), "--body-buffer", "much", &script], "number of bytes"),
    ] {
        let (errors, status) = wrong_use(arguments);
        let lines: Vec<&str> = errors.lines().filter(|l| !l.contains(" INFO ")).collect();
        assert_eq!((lines.len(), status), (1, Some(2)), "{arguments:?}: {errors}");
        assert!(lines[0].starts_with("fcgi-lua: ") && lines[0].contains(says), "{arguments:?}: {errors}");
    }
    // None of it disturbed the live one.
    assert_eq!(call(&live, &[], b"").text(), PAPER_SAYS);
}

#[test]
fn a_stale_socket_is_replaced_and_removed_at_the_end() {
    let directory = Directory::new();
    let script = directory.file("hello.lua", PAPER).display().to_string();
    drop(UnixListener::bind(directory.path().join("s")).unwrap());
    let mut runner = serve(&directory.socket("s"), &[&script]);
    assert_eq!(call(&directory.socket("s"), &[], b"").text(), PAPER_SAYS);
    runner.signal("INT");
    assert_eq!(runner.wait(Duration::from_secs(10)).0, Some(0));
    assert!(!directory.path().join("s").exists());
}

#[test]
fn help_and_version() {
    for (option, says) in [("--help", "--listen <ADDRESS>"), ("--version", "fcgi-lua 0.")] {
        let output = Command::new(FCGI_LUA).arg(option).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(says), "{option}");
    }
}

#[test]
fn options_of_the_interpreter_work_for_requests() {
    let directory = Directory::new();
    directory.file("helper.lua", "return {text = 'from the helper'}");
    let script = directory
        .file("app.lua", "print('Content-Type: text/plain\\n') print(helper.text, x) if warn then warn('seen') end");
    let address = directory.socket("s");
    let warns = lua_is_at_least(4);
    let options = ["-lhelper", "-e", "x = 42 helper = helper or require 'helper'", "-W", script.to_str().unwrap()];
    let options: Vec<&str> = options.into_iter().filter(|o| warns || *o != "-W").collect();
    let _runner = serve(&address, &options);
    for _ in 0..3 {
        let reply = call(&address, &[], b"");
        assert_eq!(reply.text(), "Content-Type: text/plain\n\nfrom the helper\t42\n");
        assert_eq!(reply.errors(), if warns { "Lua warning: seen\n" } else { "" });
    }
}
