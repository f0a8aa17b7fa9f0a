//! The configuration file: what it says is done, and what is wrong with it is said with its place.

use std::process::{Command, Stdio};

use crate::support::client::call;
use crate::support::{Directory, FCGI_LUA, Running, client};

/// Checks a file; gives the exit status and what is said of it, without the directory.
fn check(directory: &Directory, text: &str) -> (Option<i32>, Vec<String>) {
    let file = directory.file("f.toml", text);
    let output = Command::new(FCGI_LUA).arg("--config").arg(&file).arg("--check-config").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap().replace(&format!("{}/", directory.path().display()), "");
    (output.status.code(), said.lines().map(str::to_owned).collect())
}

#[test]
fn mistakes_are_told_with_their_places() {
    let directory = Directory::new();
    directory.file("app.lua", "");
    for (text, mistakes) in [
        ("workers 4", &["f.toml:1:9: key with no value, expected `=`"][..]),
        ("workers = 4\nworkers = 5", &["f.toml:2:1: duplicate key"]),
        ("umask = 027", &["f.toml:1:9: unexpected leading zero, expected nothing"]),
        ("request_timeout = 3", &["f.toml:1:1: unknown key \"request_timeout\": did you mean \"request-timeout\"?"]),
        ("\n\n  treads = 3", &["f.toml:3:3: unknown key \"treads\": did you mean \"threads\"?"]),
        ("xyz = 3", &["f.toml:1:1: unknown key \"xyz\""]),
        ("config = \"other.toml\"", &["f.toml:1:1: config is for the command line only"]),
        ("app = \"a:b\"", &["f.toml:1:1: app is an option of fcgi-python only (language = \"python\")"]),
        ("language = \"pyton\"", &["f.toml:1:12: language: accepted are lua, python, rhai: did you mean \"python\"?"]),
        (
            "isolation = \"globels\"",
            &["f.toml:1:13: isolation: 'globels' is not among globals, state, fork, auto: did you mean \"globals\"?"],
        ),
        (
            "listen = [\"unix:x\", \"here\"]",
            &["f.toml:1:21: listen: 'here' is no address: write unix:PATH, HOST:PORT, [IPV6]:PORT, *:PORT or fd:N"],
        ),
        ("threads = 9999", &["f.toml:1:11: threads: '9999': 9999 is not in 1..=1024"]),
        ("threads = [1]", &["f.toml:1:11: threads: it takes one value, not an array"]),
        ("display-errors = \"yes\"", &["f.toml:1:18: display-errors: a switch is true or false, not a string"]),
        ("root = true", &["f.toml:1:8: root: a string or a number (DIR) is wanted, not true or false"]),
        ("arguments = \"a\"", &["f.toml:1:13: arguments: an array of strings is wanted, not a string"]),
        ("script = 1", &["f.toml:1:10: script: a string is wanted, not a number"]),
        (
            "socket-mode = 660",
            &["f.toml:1:15: socket-mode: write it as an octal number, 0o660, or as a string, \"660\""],
        ),
        ("umask = \"999\"", &["f.toml:1:9: umask: '999': write an octal number from 000 to 777"]),
        (
            "rlimit.files = 3",
            &[
                "f.toml:1:16: rlimit: 'files=3': 'files' is no limit: the limits are as, core, cpu, data, fsize, locks, \
               memlock, msgqueue, nice, nofile, nproc, rss, rtprio, rttime, sigpending, stack",
            ],
        ),
        (
            "read-timeout = \"soon\"",
            &[
                "f.toml:1:16: read-timeout: 'soon': invalid digit found in string (SECONDS: Seconds in which the rest of a \
               request must come, counted anew with each byte; 0: no limit)",
            ],
        ),
        (
            "user = \"nobody-of-that-name\"",
            &[
                "f.toml:1:8: user: there is no user 'nobody-of-that-name': `useradd --system nobody-of-that-name` makes one",
            ],
        ),
        // All of them, in order.
        (
            "b = 1\nthreads = 0\nqq = 2",
            &[
                "f.toml:1:1: unknown key \"b\"",
                "f.toml:2:11: threads: '0': 0 is not in 1..=1024",
                "f.toml:3:1: unknown key \"qq\"",
            ],
        ),
        // What each key alone does not show.
        ("workers = 2\nstatic = \".\"", &["f.toml:2:1: --static: it needs --http <HOST:PORT>"]),
        (
            "listen = \"unix:s\"\nscript = \"no.lua\"",
            &["f.toml:2:1: cannot open no.lua: No such file or directory (os error 2)"],
        ),
        ("root = \"no\"", &["f.toml:1:1: no is not a directory (--root)"]),
        (
            "script = \"app.lua\"\naffinity = \"cookie:s\"",
            &["f.toml:2:1: --affinity chooses among the interpreters of one process: give --threads, too"],
        ),
        ("pool = 1", &["f.toml:1:1: write a table for each pool, [pool.NAME]"]),
        ("pool.a = 1", &["f.toml:1:6: pool \"a\" is a number: write [pool.a] and its keys"]),
        ("[pool.'a b']", &["f.toml:1:7: a pool's name is made of letters, digits, '_', '-' and '.'"]),
        ("[pool.a]\ntreads = 1", &["f.toml:2:1: unknown key \"treads\": did you mean \"threads\"?"]),
        ("[pool.a]\npid-file = \"x\"", &["f.toml:2:1: pid-file holds for all pools: write it above the first table"]),
        (
            "listen = \"unix:s\"\n[pool.a]\nscript = \"app.lua\"",
            &["f.toml:1:1: each pool listens at addresses of its own: write it into the tables of the pools"],
        ),
    ] {
        let (status, said) = check(&directory, text);
        assert_eq!(said, mistakes, "{text}");
        assert_eq!(status, Some(2), "{text}");
    }
    assert_eq!(check(&directory, "script = \"app.lua\"\nlisten = \"unix:s\""), (Some(0), vec![]));
}

#[test]
fn a_file_that_cannot_be_read() {
    let directory = Directory::new();
    let file = directory.file("f.toml", b"# \xff");
    for (path, text) in [
        (
            directory.path().join("none.toml"),
            "none.toml: cannot read it: No such file or directory (os error 2) (--config)",
        ),
        (file, "f.toml:1:3: this is not UTF-8"),
    ] {
        let output = Command::new(FCGI_LUA).arg("--config").arg(path).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.trim_end().ends_with(text), "{said}");
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn what_a_file_says_is_done_and_the_command_line_goes_before() {
    let directory = Directory::new();
    directory.file(
        "www/app.lua",
        "print('Content-Type: text/plain\\n') print(arg[0], ...) print(collectgarbage('count') > 0, os.getenv('A'))",
    );
    directory.file(
        "f.toml",
        "listen = ['unix:one.sock', 'unix:./two.sock']
         script = 'www/app.lua'
         arguments = ['a', 'b c']
         workers = 2
         env = { A = 'x = y' }",
    );
    let file = directory.path().join("f.toml");
    let start = |arguments: &[&str]| {
        let mut command = Command::new(FCGI_LUA);
        command.arg("--config").arg(&file).args(arguments);
        // From elsewhere: paths are relative to the file.
        Running::start(command.current_dir("/").stdin(Stdio::null()).stderr(Stdio::null()))
    };
    let script = directory.path().join("www/app.lua");
    let runner = start(&[]);
    for address in [directory.socket("one.sock"), directory.socket("two.sock")] {
        drop(client::connect(&address));
        let text = call(&address, &[], b"").text();
        assert_eq!(text, format!("Content-Type: text/plain\n\n{}\ta\tb c\ntrue\tx = y\n", script.display()));
    }
    drop(runner);
    let other = directory.file("other.lua", "print('Content-Type: text/plain\\n') print(...)").display().to_string();
    let address = directory.socket("three.sock");
    let _runner = start(&["--listen", &address, &other, "mine"]);
    drop(client::connect(&address));
    assert_eq!(call(&address, &[], b"").text(), "Content-Type: text/plain\n\nmine\n");
    assert!(!directory.path().join("one.sock").exists(), "an option that is given replaces what the file says");
}

/// An edit is for the next reload, also when a worker is replaced meanwhile; scripts do not see what their worker was told.
#[test]
fn a_file_that_is_edited_changes_nothing_until_it_is_asked_for() {
    let directory = Directory::new();
    directory.file(
        "app.lua",
        "print('Content-Type: text/plain\\n') local stat = io.open('/proc/self/stat') print(stat:read('*n')) stat:close()
         print(os.getenv('A'), os.getenv('FCGI_CONFIG_TEXT'))",
    );
    // With --env, workers are started twice.
    let good = "listen = 'unix:s'\nscript = 'app.lua'\nworkers = 1\nenv = { A = 'one' }";
    let (file, log) = (directory.file("f.toml", good), directory.path().join("log"));
    let mut command = Command::new(FCGI_LUA);
    command.arg("--config").arg(&file).arg("--log-to").arg(&log).stdin(Stdio::null());
    let runner = Running::start(&mut command);
    let address = directory.socket("s");
    drop(client::connect(&address));
    let ask = || {
        let text = call(&address, &[], b"").text();
        let mut lines = text.lines().skip(2).map(str::to_owned);
        (lines.next().unwrap(), lines.next().unwrap())
    };
    let (first, seen) = ask();
    assert_eq!(seen, "one\tnil");
    let wait_for_log = |text: &str| {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        let log = || std::fs::read_to_string(&log).unwrap_or_default();
        while !log().contains(text) {
            assert!(std::time::Instant::now() < end, "no {text}: {}", log());
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    };
    directory.file("f.toml", "workers = 'many'");
    assert!(Command::new("kill").args(["-KILL", &first]).status().unwrap().success());
    let (second, seen) = ask();
    assert!(second != first && seen == "one\tnil", "{first} {second} {seen}");
    runner.signal("HUP");
    wait_for_log("not reloaded");
    assert_eq!(ask().0, second);
    directory.file("f.toml", good.replace("'one'", "'two'"));
    runner.signal("HUP");
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while ask().1 != "two\tnil" {
        assert!(std::time::Instant::now() < end, "not reloaded");
    }
}

#[test]
fn background_is_not_ours() {
    let output = Command::new(FCGI_LUA).args(["--daemonize", "x.lua"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there is no --daemonize") && said.contains("systemd") && said.contains("setsid"), "{said}");
    assert_eq!(output.status.code(), Some(2));
}

#[cfg(feature = "python")]
#[test]
fn a_section_of_another_language_is_for_its_program() {
    let directory = Directory::new();
    directory.file("app.py", "print('Content-Type: text/plain\\n\\nthis is Python')");
    let address = directory.socket("s");
    let text = format!("[pool.wiki]\nlanguage = \"python\"\nlisten = \"{address}\"\nscript = \"app.py\"\n");
    let file = directory.file("f.toml", &text);
    let mut command = Command::new(FCGI_LUA);
    command.arg("--config").arg(&file).args(["--pool", "wiki"]).stdin(Stdio::null()).stderr(Stdio::null());
    let _running = Running::start(&mut command);
    drop(client::connect(&address));
    assert!(call(&address, &[], b"").text().contains("this is Python"));
    // Alone in its directory, it finds no other.
    let alone = directory.path().join("alone");
    std::fs::create_dir(&alone).unwrap();
    std::fs::copy(FCGI_LUA, alone.join("fcgi-lua")).unwrap();
    let mut command = Command::new(alone.join("fcgi-lua"));
    command.arg("--config").arg(&file).args(["--check-config"]).env("PATH", "");
    // Another test's child may hold the copy open for writing until it has begun.
    let done = loop {
        match command.output() {
            Err(e) if e.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            done => break done.unwrap(),
        }
    };
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(2), "{said}");
    assert!(
        said.contains("f.toml:2:1: language: fcgi-python is neither beside this program nor in the path"),
        "{said}"
    );
}
