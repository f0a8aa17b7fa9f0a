//! How many processes serve, when they are replaced, and what becomes of their connections.

use std::collections::HashSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Socket, call, connect, read_reply, request};
use crate::support::{Directory, FCGI_LUA, Running};

/// Answers with its process; what it does before, the query says.
const SCRIPT: &str = "local query = os.getenv('QUERY_STRING')
if query == 'wait' then
  local f = io.open('begun', 'a') f:write('x') f:close()
  repeat os.execute('sleep 0.02') local f = io.open('go') until f
elseif query == 'loop' then
  local f = io.open('begun', 'a') f:write('x') f:close()
  while true do end
elseif query == 'huge' then
  package.loaded.huge = string.rep(string.rep(string.rep('x', 1024), 1024), 120)
elseif query == 'leak' then
  package.loaded.leak = package.loaded.leak or {}
  table.insert(package.loaded.leak, string.rep('x', 20 * 1024 * 1024 + #package.loaded.leak))
end
print('Content-Type: text/plain\\n') local f = io.open('/proc/self/stat') print(f:read('*n')) f:close()";

struct Pool {
    directory: Directory,
    address: String,
    running: Running,
}

impl Pool {
    fn start(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let script = directory.file("pid.lua", SCRIPT.replace("20 << 20", "20000000")).display().to_string();
        let address = directory.socket("s");
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &address]).args(arguments).arg(script);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let pool = Self { running: Running::start(command), directory, address };
        wait_for("somebody listens", || pool.directory.path().join("s").exists());
        pool
    }

    fn workers(&self) -> Vec<u32> {
        let pid = self.running.0.id();
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    fn ask(&self, query: &str) -> u32 {
        answer_of(&call(&self.address, &[("QUERY_STRING", query.as_bytes())], b"").text())
    }

    fn has_begun(&self, count: u64) -> bool {
        self.directory.path().join("begun").metadata().is_ok_and(|meta| meta.len() >= count)
    }

    /// Ends it; gives its log.
    fn stop(mut self) -> String {
        self.running.signal("TERM");
        let (status, log) = self.running.wait(Duration::from_secs(30));
        assert_eq!(status, Some(0), "{log}");
        log
    }
}

fn answer_of(text: &str) -> u32 {
    text.lines().last().unwrap_or_else(|| panic!("no answer: {text}")).parse().unwrap()
}

fn send(socket: &mut dyn Socket, query: &str) {
    let pairs = [("QUERY_STRING", query.as_bytes()), ("REQUEST_METHOD", b"GET"), ("REQUEST_URI", b"/some/page")];
    socket.write_all(&request(1, 1, true, &pairs, b"")).unwrap();
}

fn ask_on(socket: &mut dyn Socket, query: &str) -> u32 {
    send(socket, query);
    answer_of(&read_reply(socket, 1).text())
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_pool_grows_while_all_are_busy_and_shrinks_when_it_idles() {
    let pool = Pool::start(&["--workers", "1..4", "--idle-timeout", "0.3"]);
    pool.ask("");
    wait_for("one works", || pool.workers().len() == 1);
    let mut busy: Vec<_> = (0..6).map(|_| connect(&pool.address)).collect();
    busy.iter_mut().for_each(|socket| send(&mut **socket, "wait"));
    wait_for("as many work as may", || pool.has_begun(4));
    assert_eq!(pool.workers().len(), 4);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!pool.has_begun(5), "more work than may");
    pool.directory.file("go", "");
    let answered: HashSet<u32> =
        busy.iter_mut().map(|socket| answer_of(&read_reply(&mut **socket, 1).text())).collect();
    assert_eq!(answered.len(), 4);
    wait_for("those that idle end", || pool.workers().len() == 1);
    // Their connections have not gone with them.
    for socket in &mut busy {
        ask_on(&mut **socket, "");
    }
    let log = pool.stop();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn growth_and_shrinkage_are_seen_in_the_status_as_load_comes_and_goes() {
    let directory = Directory::new();
    let status = directory.socket("status");
    let pool =
        Pool::start(&["--workers", "1..4", "--idle-timeout", "0.3", "--status", "/status", "--status-listen", &status]);
    let ask = || {
        let pairs: [(&str, &[u8]); 2] = [("REQUEST_URI", b"/status?json"), ("QUERY_STRING", b"json")];
        let text = call(&status, &pairs, b"").text();
        let json = text.split_once("\r\n\r\n").expect("a head").1.to_owned();
        serde_json::from_str::<serde_json::Value>(&json).unwrap_or_else(|e| panic!("{e}: {json}"))
    };
    let seen = |names: [&str; 3]| names.map(|name| ask()[name].as_u64().unwrap());
    assert_eq!(ask()["process manager"], "dynamic");
    let now = ["active processes", "total processes", "listen queue"];
    for round in 1..=3 {
        wait_for("one idles", || seen(now) == [0, 1, 0]);
        let [one] = pool.workers()[..] else { panic!("one") };
        let open = || std::fs::read_dir(format!("/proc/{one}/fd")).unwrap().count();
        let before = open();
        let mut busy: Vec<_> = (0..12).map(|_| connect(&pool.address)).collect();
        if round > 1 {
            // It can do nothing but give them to others as soon as it is busy.
            wait_for("the one that idles has them all", || open() == before + 12);
        }
        busy.iter_mut().for_each(|socket| send(&mut **socket, "wait"));
        // Workers may have seen some of those that wait.
        wait_for("all that may work, and others wait", || matches!(seen(now), [4, 4, 1..=8]));
        assert_eq!(pool.workers().len(), 4);
        pool.directory.file("go", "");
        for socket in &mut busy {
            read_reply(&mut **socket, 1);
        }
        wait_for("those that have nothing to do end", || seen(now) == [0, 1, 0]);
        wait_for("their processes are gone", || pool.workers().len() == 1);
        std::fs::remove_file(pool.directory.path().join("go")).unwrap();
        let [most, queue, reached] = seen(["max active processes", "max listen queue", "max children reached"]);
        assert!(most == 4 && queue >= 1 && reached >= round, "{most} {queue} {reached}");
        assert_eq!(ask()["accepted conn"], 12 * round);
    }
    pool.stop();
}

#[test]
fn why_workers_were_replaced_is_in_the_status() {
    let directory = Directory::new();
    let status = directory.socket("status");
    let pool = Pool::start(&[
        "--workers",
        "1",
        "--max-requests",
        "3",
        "--max-memory",
        "100M",
        "--kill-after",
        "5",
        "--status",
        "/status",
        "--status-listen",
        &status,
    ]);
    let ask = || {
        let pairs: [(&str, &[u8]); 2] = [("REQUEST_URI", b"/status?json"), ("QUERY_STRING", b"json")];
        let text = call(&status, &pairs, b"").text();
        serde_json::from_str::<serde_json::Value>(text.split_once("\r\n\r\n").expect("a head").1).unwrap()
    };
    let names = ["failed workers", "kill after reached", "max requests reached", "max memory reached"];
    let seen = || names.map(|name| ask()[name].as_u64().unwrap());
    assert_eq!(seen(), [0; 4]);
    let first = pool.ask("");
    assert!(Command::new("kill").args(["-KILL", &first.to_string()]).status().unwrap().success());
    wait_for("a crash", || seen() == [1, 0, 0, 0]);
    for _ in 0..3 {
        pool.ask("");
    }
    wait_for("many requests", || seen() == [1, 0, 1, 0]);
    let mut looping = connect(&pool.address);
    send(&mut *looping, "loop");
    wait_for("a request without an end", || seen() == [2, 1, 1, 0]);
    pool.ask("huge");
    wait_for("much memory", || seen() == [2, 1, 1, 1]);
    let pairs: [(&str, &[u8]); 2] = [("REQUEST_URI", b"/status?openmetrics"), ("QUERY_STRING", b"openmetrics")];
    let metrics = call(&status, &pairs, b"").text();
    for reason in ["crashed", "kill-after", "max-requests", "max-memory"] {
        let line = format!("fcgi_workers_replaced_total{{pool=\"lua\",reason=\"{reason}\"}} 1\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
    pool.stop();
}

#[test]
fn on_demand_nothing_runs_while_nothing_is_asked_for() {
    let pool = Pool::start(&["--workers", "0..2", "--idle-timeout", "0.2"]);
    assert!(pool.workers().is_empty());
    let mut kept = connect(&pool.address);
    let mut gone = connect(&pool.address);
    let first = ask_on(&mut *kept, "");
    ask_on(&mut *gone, "");
    for _ in 0..3 {
        wait_for("the last worker ends", || pool.workers().is_empty());
        drop(std::mem::replace(&mut gone, connect(&pool.address)));
        // On the connection that was kept, and on a new one.
        assert_ne!(ask_on(&mut *kept, ""), first);
        pool.ask("");
    }
    let log = pool.stop();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn workers_are_replaced_after_so_many_requests_and_no_request_is_lost() {
    let pool = Pool::start(&["--workers", "2", "--max-requests", "20"]);
    let mut kept: Vec<_> = (0..4).map(|_| connect(&pool.address)).collect();
    let mut seen = HashSet::new();
    let mut round = 0;
    // As many requests as it takes: on a busy machine a worker starts slowly, and those before it serve on.
    wait_for("several workers have been replaced", || {
        for _ in 0..10 {
            round += 1;
            seen.insert(ask_on(&mut *kept[round % 4], ""));
            seen.insert(pool.ask(""));
        }
        seen.len() >= 6
    });
    wait_for("those that were replaced end", || pool.workers().len() == 2);
    let log = pool.stop();
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn a_worker_that_takes_too_much_memory_is_replaced() {
    let pool = Pool::start(&["--workers", "1", "--max-memory", "100M"]);
    let mut kept = connect(&pool.address);
    let first = ask_on(&mut *kept, "leak");
    for _ in 0..6 {
        ask_on(&mut *kept, "leak");
    }
    wait_for("another worker answers", || ask_on(&mut *kept, "") != first);
    let log = pool.stop();
    assert!(log.contains("it is replaced (--max-memory)") && !log.contains("ERROR"), "{log}");
}

#[test]
fn a_request_that_does_not_end_is_killed_and_nobody_else_notices() {
    let pool = Pool::start(&["--workers", "1", "--kill-after", "1.5"]);
    let mut idle = connect(&pool.address);
    let first = ask_on(&mut *idle, "");
    let (mut waiting, mut looping) = (connect(&pool.address), connect(&pool.address));
    ask_on(&mut *waiting, "");
    send(&mut *looping, "loop");
    wait_for("it loops", || pool.has_begun(1));
    send(&mut *waiting, "");
    use std::io::Read;
    assert_eq!(looping.read(&mut [0]).unwrap_or(0), 0, "a killed request has no answer");
    let second = answer_of(&read_reply(&mut *waiting, 1).text());
    assert_ne!(second, first);
    assert_eq!(ask_on(&mut *idle, ""), second);
    let log = pool.stop();
    assert!(log.contains("(--kill-after): ") && log.contains("GET /some/page"), "{log}");
}

#[test]
fn a_thread_that_does_not_end_is_noticed_while_others_serve() {
    let pool = Pool::start(&["--workers", "1", "--threads", "2", "--kill-after", "2"]);
    let first = pool.ask("");
    let mut looping = connect(&pool.address);
    send(&mut *looping, "loop");
    wait_for("it loops", || pool.has_begun(1));
    wait_for("the process is replaced", || pool.ask("") != first);
    assert_eq!(std::io::Read::read(&mut looping, &mut [0]).unwrap_or(0), 0, "a killed request has no answer");
    let log = pool.stop();
    assert_eq!(log.matches("(--kill-after): ").count(), 1, "{log}");
}

#[test]
fn a_kept_connection_of_a_busy_worker_is_served_by_another_one() {
    for arguments in [&["--workers", "2"][..], &["--workers", "2", "--threads", "2"]] {
        let pool = Pool::start(arguments);
        let mut kept: Vec<_> = (0..8).map(|_| connect(&pool.address)).collect();
        for socket in &mut kept {
            ask_on(&mut **socket, "");
        }
        let busy = if arguments.len() > 2 { 3 } else { 1 };
        for (at, socket) in kept.iter_mut().enumerate().take(busy) {
            send(&mut **socket, "wait");
            wait_for("it works", || pool.has_begun(at as u64 + 1));
        }
        for socket in &mut kept[busy..] {
            ask_on(&mut **socket, "");
        }
        pool.directory.file("go", "");
        for socket in &mut kept[..busy] {
            read_reply(&mut **socket, 1);
        }
        pool.stop();
    }
}

#[test]
fn a_quick_stop_ends_what_does_not_end_and_a_second_interrupt_at_once() {
    for signals in [&["TERM"][..], &["INT", "INT"], &["QUIT", "INT", "INT"]] {
        let mut pool = Pool::start(&["--workers", "1"]);
        let mut looping = connect(&pool.address);
        send(&mut *looping, "loop");
        wait_for("it loops", || pool.has_begun(1));
        for signal in signals {
            pool.running.signal(signal);
            std::thread::sleep(Duration::from_millis(100));
        }
        let (status, log) = pool.running.wait(Duration::from_secs(25));
        assert_eq!(status, Some(if signals.len() > 1 { 130 } else { 0 }), "{signals:?} {log}");
    }
}

#[test]
fn the_status_of_a_pool_can_be_read_while_all_its_workers_are_busy() {
    for size in ["1", "0..1"] {
        let pool = Pool::start(&["--workers", size, "--status", "/status"]);
        let mut busy = connect(&pool.address);
        send(&mut *busy, "wait");
        wait_for("it works", || pool.has_begun(1));
        let mut next = connect(&pool.address);
        send(&mut *next, "");
        for _ in 0..3 {
            let pairs: &[(&str, &[u8])] = &[("SCRIPT_NAME", b"/status"), ("QUERY_STRING", b"full")];
            let page = call(&pool.address, pairs, b"").text();
            assert!(page.contains("/some/page"), "{page}");
        }
        assert!(!pool.directory.path().join("go").exists());
        pool.directory.file("go", "");
        answer_of(&read_reply(&mut *busy, 1).text());
        answer_of(&read_reply(&mut *next, 1).text());
        pool.stop();
    }
}

#[test]
fn a_parent_is_small() {
    let pool = Pool::start(&["--workers", "2"]);
    pool.ask("");
    pool.running.signal("HUP");
    let first = pool.workers();
    wait_for("new workers serve", || pool.workers().iter().all(|pid| !first.contains(pid)));
    let map = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pool.running.0.id())).unwrap();
    let private = map.lines().filter(|line| line.starts_with("Private_"));
    let kib: u64 = private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert!(kib < 2048, "{map}");
    pool.stop();
}
