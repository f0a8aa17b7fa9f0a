//! A server whose program, options and scripts are replaced while it serves.

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::support::client::{call, connect, read_reply, request};
use crate::support::logged::Logged;
use crate::support::{Directory, FCGI_LUA, Running};

const SCRIPT: &str =
    "print('Content-Type: text/plain\\n') local f = io.open('/proc/self/stat') print(f:read('*n')) f:close()";

/// How often: more in a long run.
fn rounds() -> u32 {
    std::env::var("FCGI_TEST_RELOADS").map_or(30, |n| n.parse().expect("FCGI_TEST_RELOADS is a number"))
}

fn start(program: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    Running::start(&mut command)
}

fn pid(address: &str) -> u32 {
    call(address, &[], b"").text().lines().last().unwrap().parse().unwrap()
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Reloads a server whose script answers with its process, while clients ask it on kept connections and new ones.
fn reload_under_load(program: &str, script: &str) {
    let directory = Directory::new();
    let script = directory.file("pid", script).display().to_string();
    let address = directory.socket("s");
    let mut runner = start(program, &["--listen", &address, "--workers", "2", &script]);
    let parent = runner.0.id();
    let (done, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut kept = connect(&address);
                while !done.load(SeqCst) {
                    assert_ne!(pid(&address), parent);
                    kept.write_all(&request(1, 1, true, &[], b"")).unwrap();
                    assert_eq!(read_reply(&mut *kept, 1).app_status, 0);
                    asked.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..rounds() {
            let before = pid(&address);
            runner.signal(if round % 2 == 0 { "HUP" } else { "USR2" });
            wait_for("another worker answers", || pid(&address) != before);
        }
        done.store(true, SeqCst);
    });
    let asked = asked.into_inner();
    println!("{program}: {} reloads, {} requests, none failed", rounds(), 2 * asked);
    assert!(asked > 0);
    runner.signal("TERM");
    let (status, log) = runner.wait(Duration::from_secs(20));
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn no_request_is_lost_by_reloads_under_load() {
    reload_under_load(FCGI_LUA, SCRIPT);
}

#[cfg(feature = "python")]
#[test]
fn no_request_is_lost_by_reloads_of_python_under_load() {
    let script = "import os\nprint('Content-Type: text/plain\\n')\nprint(os.getpid())";
    reload_under_load(crate::support::FCGI_PYTHON, script);
}

#[test]
fn what_does_not_start_replaces_nothing() {
    let directory = Directory::new();
    let script = directory.file("pid.lua", SCRIPT);
    let address = directory.socket("s");
    let log_file = directory.path().join("log");
    let (path, to) = (script.display().to_string(), log_file.display().to_string());
    let mut runner = start(FCGI_LUA, &["--listen", &address, "--workers", "1", "--log-to", &to, &path]);
    let before = pid(&address);
    std::fs::rename(&script, directory.path().join("elsewhere")).unwrap();
    runner.signal("HUP");
    let end = Instant::now() + Duration::from_secs(60);
    let log = || std::fs::read_to_string(&log_file).unwrap_or_default();
    while !log().contains("not reloaded") {
        assert!(Instant::now() < end, "{}", log());
        std::thread::sleep(Duration::from_millis(10));
    }
    std::fs::rename(directory.path().join("elsewhere"), &script).unwrap();
    assert_eq!(pid(&address), before);
    runner.signal("TERM");
    let (status, said) = runner.wait(Duration::from_secs(20));
    assert_eq!(status, Some(0), "{said}{}", log());
    assert!(format!("{said}{}", log()).contains("cannot open"), "{said}{}", log());
}

/// What has been found fit is what the server becomes: not what the file says by then.
#[test]
fn a_configuration_file_that_changes_during_a_reload_waits_for_the_next_one() {
    use rustix::fs::inotify;
    let directory = Directory::new();
    directory.file("app.lua", "print('Content-Type: text/plain\\n') print(arg[1])");
    let configuration = |word: &str| format!("workers = 1\nscript = 'app.lua'\narguments = ['{word}']\n");
    let file = directory.file("fcgi.toml", configuration("one"));
    let broken = directory.file("broken.toml", "no-such-key = 1");
    let server = Logged::start(FCGI_LUA, directory, &["--config", "fcgi.toml"]);
    let says = || call(&server.address, &[], b"").text().lines().last().unwrap_or_default().to_owned();
    assert_eq!(says(), "one");
    server.directory.file("fcgi.toml", configuration("two"));
    let seen = inotify::init(inotify::CreateFlags::CLOEXEC).unwrap();
    inotify::add_watch(&seen, &file, inotify::WatchFlags::CLOSE_NOWRITE).unwrap();
    server.running.signal("HUP");
    // It has been read.
    let mut event = [0; 256];
    assert!(rustix::io::read(&seen, &mut event).unwrap() > 0);
    std::fs::rename(&broken, &file).unwrap();
    server.until_log("the new workers serve");
    assert_eq!(says(), "two");
    server.running.signal("HUP");
    server.until_log("not reloaded");
    assert_eq!(says(), "two");
    server.stop();
}

/// What comes between the last look of the old program and the first of the new one is heard by the new one.
#[test]
fn a_server_is_stopped_while_it_becomes_the_new_program() {
    for _ in 0..20 {
        let directory = Directory::new();
        let script = directory.file("pid.lua", SCRIPT).display().to_string();
        let server = Logged::start(FCGI_LUA, directory, &["--workers", "1", &script]);
        pid(&server.address);
        server.running.signal("HUP");
        while !server.log().contains(" reloading") {
            std::thread::sleep(Duration::from_micros(20));
        }
        rustix::process::kill_process(
            rustix::process::Pid::from_child(&server.running.0),
            rustix::process::Signal::TERM,
        )
        .unwrap();
        let mut running = server.running;
        assert_eq!(running.wait(Duration::from_secs(60)).0, Some(0));
    }
}
