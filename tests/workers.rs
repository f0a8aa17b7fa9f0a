//! Processes, threads, and how they stop.

use std::collections::HashSet;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{call, connect, read_reply, request};
use crate::support::{Directory, FCGI_LUA, Running, serve};

const PID: &str =
    "print('Content-Type: text/plain\\n') local f = io.open('/proc/self/stat') print(f:read('*n')) f:close()";
/// Says that it has begun, by a file, and works on until another file is there.
const SLOW: &str = "io.open('begun', 'w'):close()
repeat os.execute('sleep 0.02') local f = io.open('go') until f
print('Content-Type: text/plain\\n') print('done')";

fn pid(address: &str) -> u32 {
    call(address, &[], b"").text().lines().last().unwrap().parse().unwrap()
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|s| !s.contains(") Z "))
}

#[test]
fn dead_workers_are_replaced_and_nobody_else_notices() {
    let directory = Directory::new();
    let script = directory.file("pid.lua", PID).display().to_string();
    let address = directory.socket("s");
    let mut runner = serve(&address, &["--workers", "2", &script]);
    let first = pid(&address);
    assert_ne!(first, runner.0.id(), "the parent runs no script");
    let mut seen = HashSet::new();
    for _ in 0..4 {
        let victim = pid(&address);
        seen.insert(victim);
        assert!(Command::new("kill").args(["-KILL", &victim.to_string()]).status().unwrap().success());
        wait_for("the worker is gone", || !is_running(victim));
        // The other one, or the new one, answers at once.
        assert_ne!(pid(&address), victim);
    }
    assert!(seen.len() >= 2);
    let last = pid(&address);
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(20)).0, Some(0));
    assert!(!is_running(last), "workers end with their parent");
}

/// As Ctrl-C on a terminal and systemd do it.
#[test]
fn a_signal_to_all_processes_at_once_restarts_none() {
    let directory = Directory::new();
    let script = directory.file("pid.lua", PID).display().to_string();
    for _ in 0..5 {
        let address = directory.socket("s");
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &address, "--workers", "2", &script]).process_group(0);
        let mut runner = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        pid(&address);
        let group = format!("-{}", runner.0.id());
        assert!(Command::new("kill").args(["-s", "TERM", "--", &group]).status().unwrap().success());
        let (status, log) = runner.wait(Duration::from_secs(20));
        assert_eq!(status, Some(0), "{log}");
        assert!(!log.contains("started again"), "{log}");
    }
}

#[test]
fn a_worker_that_is_told_to_stop_before_it_listens_has_not_failed() {
    let directory = Directory::new();
    let script = directory.file("pid.lua", PID).display().to_string();
    for _ in 0..5 {
        let address = directory.socket("s");
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &address, "--workers", "2", &script]);
        let mut runner = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()));
        let end = Instant::now() + Duration::from_secs(30);
        let child = loop {
            let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", runner.0.id())).unwrap();
            if let Some(first) = children.split_whitespace().next() {
                break rustix::process::Pid::from_raw(first.parse().unwrap()).unwrap();
            }
            assert!(Instant::now() < end, "no worker is started");
        };
        // The worker first: by the time that it ends, if it does, its parent would start it again.
        rustix::process::kill_process(child, rustix::process::Signal::TERM).unwrap();
        runner.signal("TERM");
        let (status, log) = runner.wait(Duration::from_secs(20));
        assert_eq!(status, Some(0), "{log}");
        assert!(!log.contains("SIGTERM"), "{log}");
    }
}

#[test]
fn workers_do_not_outlive_a_killed_parent() {
    let directory = Directory::new();
    let script = directory.file("pid.lua", PID).display().to_string();
    let address = directory.socket("s");
    let mut runner = serve(&address, &["--workers", "1", &script]);
    let worker = pid(&address);
    runner.signal("KILL");
    runner.wait(Duration::from_secs(20));
    wait_for("the worker ends", || !is_running(worker));
}

#[test]
fn every_signal_that_stops_lets_requests_finish() {
    for signal in ["TERM", "INT", "QUIT", "USR1", "WINCH"] {
        for arguments in [&[][..], &["--workers", "2"], &["--threads", "3"]] {
            // A process that is managed by a web server, or is the manager.
            if signal == if arguments.contains(&"--workers") { "USR1" } else { "WINCH" } {
                continue;
            }
            let directory = Directory::new();
            let script = directory.file("slow.lua", SLOW).display().to_string();
            let address = directory.socket("s");
            let mut runner = serve(&address, &[arguments, &[&script]].concat());
            let mut idle = connect(&address);
            let running = std::thread::spawn({
                let address = address.clone();
                move || call(&address, &[], b"").text()
            });
            wait_for("the request begins", || directory.path().join("begun").exists());
            runner.signal(signal);
            std::thread::sleep(Duration::from_millis(100));
            directory.file("go", "");
            assert_eq!(running.join().unwrap(), "Content-Type: text/plain\n\ndone\n", "{signal} {arguments:?}");
            assert_eq!(runner.wait(Duration::from_secs(30)).0, Some(0), "{signal} {arguments:?}");
            use std::io::Read;
            assert_eq!(idle.read(&mut [0]).unwrap_or(0), 0, "an idle connection is closed");
        }
    }
}

#[test]
fn a_crash_loop_is_slow_and_says_so() {
    let directory = Directory::new();
    let script = directory.file("kill.lua", "os.execute('kill -KILL $PPID')").display().to_string();
    let address = directory.socket("s");
    let mut command = Command::new(FCGI_LUA);
    command.args(["--listen", &address, "--workers", "1", &script]).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut runner = Running::start(&mut command);
    for _ in 0..2 {
        let mut socket = connect(&address);
        socket.write_all(&request(1, 1, false, &[], b"")).unwrap();
        use std::io::Read;
        // The answer of a killed process: none.
        assert_eq!(socket.read(&mut [0; 100]).unwrap_or(0), 0);
    }
    runner.signal("TERM");
    let (status, log) = runner.wait(Duration::from_secs(30));
    assert_eq!(status, Some(0));
    assert!(log.contains("was killed by SIGKILL: it is started again in"), "{log}");
}

#[test]
fn threads_work_at_the_same_time() {
    let directory = Directory::new();
    // Each request waits for all others.
    let script = directory.file(
        "meet.lua",
        "io.open('here-' .. os.getenv('QUERY_STRING'), 'w'):close()
         for i = 1, 3 do repeat local f = io.open('here-' .. i) if not f then os.execute('sleep 0.01') end until f end
         print('Content-Type: text/plain\\n') print('met')",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &["--threads", "3", script.to_str().unwrap()]);
    // On one connection: multiplexed requests run in parallel.
    let mut socket = connect(&address);
    for id in 1..=3u16 {
        let query = id.to_string();
        socket.write_all(&request(id, 1, true, &[("QUERY_STRING", query.as_bytes())], b"")).unwrap();
    }
    let mut text = Vec::new();
    let mut ends = 0;
    while ends < 3 {
        use std::io::Read;
        let mut header = [0; 8];
        socket.read_exact(&mut header).unwrap();
        let mut content = vec![0; usize::from(u16::from_be_bytes([header[4], header[5]])) + usize::from(header[6])];
        socket.read_exact(&mut content).unwrap();
        match header[1] {
            3 => ends += 1,
            6 => text.extend(content),
            _ => {}
        }
    }
    assert_eq!(String::from_utf8_lossy(&text).matches("met").count(), 3);
}

#[test]
fn a_client_that_has_gone_does_not_keep_a_script_running() {
    let directory = Directory::new();
    let script = directory
        .file("endless.lua", "print('Content-Type: text/plain\\n') while true do io.write(string.rep('x', 8192)) end");
    let other = directory.file("pid.lua", PID).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[]);
    let mut socket = connect(&address);
    let name = script.display().to_string();
    socket.write_all(&request(1, 1, false, &[("SCRIPT_FILENAME", name.as_bytes())], b"")).unwrap();
    use std::io::Read;
    socket.read_exact(&mut [0; 100_000]).unwrap();
    drop(socket);
    let reply = call(&address, &[("SCRIPT_FILENAME", other.as_bytes())], b"");
    assert!(reply.text().starts_with("Content-Type: text/plain\n\n"));
}

#[test]
fn kept_connections_are_reused() {
    let directory = Directory::new();
    let script = directory.file("pid.lua", PID).display().to_string();
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script]);
    let mut socket = connect(&address);
    for _ in 0..5 {
        socket.write_all(&request(7, 1, true, &[], b"")).unwrap();
        assert_eq!(read_reply(&mut *socket, 7).app_status, 0);
    }
}
