//! Sockets that each worker has for itself: who answers there, while all is well and while workers are replaced.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Socket, call, connect, read_reply, request};
use crate::support::{Directory, FCGI_LUA, Running, plain_environment};

/// Answers with its process; `wait` works on until a file is there.
const SCRIPT: &str = "if os.getenv('QUERY_STRING') == 'wait' then
  io.open('begun', 'w'):close()
  repeat os.execute('sleep 0.02') local f = io.open('go') until f
end
print('Content-Type: text/plain\\n') local f = io.open('/proc/self/stat') print(f:read('*n')) f:close()";

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    directory: Directory,
    running: Running,
}

impl Server {
    /// Serves with a socket for each worker.
    fn start(runner: &str, arguments: &[&str], script: &str) -> Self {
        let directory = Directory::new();
        let script = directory.file("app", script);
        let template = directory.socket("app-{worker}.sock");
        let mut command = Command::new(runner);
        command.args(["--listen", &template]).args(arguments).arg(script);
        Self::run(directory, &mut command)
    }

    fn run(directory: Directory, command: &mut Command) -> Self {
        plain_environment(command);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let command = command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let server = Self { running: Running::start(command), directory };
        wait_for("a worker listens", || server.file(1).exists());
        server
    }

    fn file(&self, worker: usize) -> PathBuf {
        self.directory.path().join(format!("app-{worker}.sock"))
    }

    fn address(&self, worker: usize) -> String {
        format!("unix:{}", self.file(worker).display())
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn stop(mut self) {
        self.running.signal("TERM");
        assert_eq!(self.running.wait(PATIENCE).0, Some(0), "{}", self.log());
        let left: Vec<_> = std::fs::read_dir(self.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(left.iter().all(|name| !name.to_string_lossy().ends_with(".sock")), "{left:?}");
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn process_of(text: &str) -> u32 {
    text.lines().last().and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("no answer: {text}"))
}

fn ask(address: &str) -> u32 {
    process_of(&call(address, &[], b"").text())
}

fn ask_on(socket: &mut dyn Socket) -> u32 {
    socket.write_all(&request(1, 1, true, &[], b"")).unwrap();
    process_of(&read_reply(socket, 1).text())
}

fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    wait_for("the worker is gone", || {
        !std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    });
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn each_worker_answers_at_its_own_socket_and_all_at_the_shared_one() {
    let directory = Directory::new();
    let shared = directory.socket("s");
    let arguments = ["--listen", &shared, "--workers", "3", "--socket-mode", "620"];
    let server = Server::start(FCGI_LUA, &arguments, SCRIPT);
    let own: Vec<u32> = (1..=3).map(|worker| ask(&server.address(worker))).collect();
    assert_eq!(own.iter().collect::<BTreeSet<_>>().len(), 3, "{own:?}");
    for _ in 0..10 {
        for worker in 1..=3 {
            assert_eq!(ask(&server.address(worker)), own[worker - 1]);
        }
        assert!(own.contains(&ask(&shared)));
    }
    for worker in 1..=3 {
        assert_eq!(mode(&server.file(worker)), 0o620);
    }
    assert_eq!(mode(&directory.path().join("s")), 0o620);
    server.stop();
    assert!(!directory.path().join("s").exists());
}

#[test]
fn connections_stay_with_their_socket_while_workers_are_replaced() {
    let server = Server::start(FCGI_LUA, &["--workers", "2", "--max-requests", "5"], SCRIPT);
    let mut kept: Vec<_> = [1, 1, 2, 2].into_iter().map(|worker| (worker, connect(&server.address(worker)))).collect();
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    let end = Instant::now() + PATIENCE;
    // More than two at each: they have been handed over more than once.
    while seen.iter().any(|processes| processes.len() < 4) {
        assert!(Instant::now() < end, "{seen:?}");
        for (worker, socket) in &mut kept {
            seen[*worker - 1].insert(ask_on(&mut **socket));
            seen[*worker - 1].insert(ask(&server.address(*worker)));
        }
    }
    assert!(seen[0].is_disjoint(&seen[1]), "{seen:?}");
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    server.stop();
}

#[test]
fn who_connects_while_a_worker_is_replaced_is_not_refused() {
    let server = Server::start(FCGI_LUA, &["--workers", "2"], SCRIPT);
    let mut neighbour = connect(&server.address(2));
    let other = ask_on(&mut *neighbour);
    for _ in 0..3 {
        let victim = ask(&server.address(1));
        kill(victim);
        let successor = ask(&server.address(1));
        assert!(![victim, other].contains(&successor));
        assert_eq!(ask_on(&mut *neighbour), other, "the neighbour goes on");
        assert_eq!(ask(&server.address(2)), other);
    }
    server.stop();
}

#[test]
fn what_waits_for_a_busy_worker_is_answered_by_it_and_ping_by_the_parent() {
    let server = Server::start(FCGI_LUA, &["--workers", "2", "--status", "/status", "--ping", "/ping"], SCRIPT);
    let busy = ask(&server.address(1));
    let mut kept = connect(&server.address(1));
    assert_eq!(ask_on(&mut *kept), busy);
    let mut running = connect(&server.address(1));
    running.write_all(&request(1, 1, false, &[("QUERY_STRING", b"wait")], b"")).unwrap();
    wait_for("the request begins", || server.directory.path().join("begun").exists());
    // One that comes on a connection which the worker holds, and one that the parent meets.
    kept.write_all(&request(1, 1, true, &[], b"")).unwrap();
    let mut new = connect(&server.address(1));
    new.write_all(&request(1, 1, false, &[], b"")).unwrap();
    let ping = call(&server.address(1), &[("REQUEST_URI", b"/ping")], b"");
    assert!(ping.text().ends_with("\r\n\r\npong"), "{}", ping.text());
    // Whose socket is whose, the parent tells as well.
    let status = call(&server.address(1), &[("REQUEST_URI", b"/status"), ("QUERY_STRING", b"full&json")], b"");
    let status: serde_json::Value = serde_json::from_str(status.text().split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let sockets: BTreeSet<&str> =
        status["processes"].as_array().unwrap().iter().map(|line| line["socket"].as_str().unwrap()).collect();
    assert_eq!(sockets, BTreeSet::from([&*server.address(1), &*server.address(2)]), "{status}");
    let of_busy = status["processes"].as_array().unwrap().iter().find(|line| line["pid"] == busy).unwrap();
    assert_eq!((&of_busy["state"], &of_busy["socket"]), (&"running".into(), &server.address(1).into()));
    // The other one idles, and is not asked.
    assert_ne!(ask(&server.address(2)), busy);
    server.directory.file("go", "");
    for socket in [&mut running, &mut kept, &mut new] {
        assert_eq!(process_of(&read_reply(&mut **socket, 1).text()), busy);
    }
    server.stop();
}

#[test]
fn a_reload_may_change_the_number_of_workers() {
    let directory = Directory::new();
    let script = directory.file("app.lua", SCRIPT);
    let configure = |path: &Path, workers: u32| {
        let text =
            format!("listen = 'unix:app-{{worker}}.sock'\nworkers = {workers}\nscript = '{}'\n", script.display());
        std::fs::write(path.join("fcgi.toml"), text).unwrap();
    };
    let own = Directory::new();
    configure(own.path(), 2);
    let mut command = Command::new(FCGI_LUA);
    command.args(["--config", "fcgi.toml"]);
    let server = Server::run(own, &mut command);
    let mut kept = connect(&server.address(1));
    let mut processes = BTreeSet::from([ask_on(&mut *kept), ask(&server.address(2))]);
    for (turn, workers) in [(1, 3), (2, 3), (3, 1), (4, 2)] {
        configure(server.directory.path(), workers);
        server.running.signal("HUP");
        wait_for("the new workers serve", || server.log().matches("reloaded: the new workers serve").count() == turn);
        for worker in 1..=4 {
            let is_there = worker <= workers as usize;
            wait_for("sockets come and go", || server.file(worker).exists() == is_there);
        }
        // Until it has heard that it is to go, an old one may still take what comes.
        wait_for("the old workers end", || processes.iter().all(|pid| !Path::new(&format!("/proc/{pid}")).exists()));
        let own: BTreeSet<_> = (1..=workers as usize).map(|worker| ask(&server.address(worker))).collect();
        assert_eq!(own.len(), workers as usize);
        assert!(processes.is_disjoint(&own), "{processes:?} {own:?}");
        assert_eq!(ask_on(&mut *kept), ask(&server.address(1)), "the connection is handed over");
        processes.extend(own);
    }
    assert!(!server.log().contains("ERROR"), "{}", server.log());
    server.stop();
}

#[cfg(feature = "python")]
#[test]
fn workers_that_are_forked_have_their_own_sockets_too() {
    let script = "import os
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain')])
    return [f'{os.getpid()}\\n'.encode()]
";
    let server = Server::start(crate::support::FCGI_PYTHON, &["--workers", "3", "--preload"], script);
    let before: Vec<u32> = (1..=3).map(|worker| ask(&server.address(worker))).collect();
    assert_eq!(before.iter().collect::<BTreeSet<_>>().len(), 3, "{before:?}");
    let mut kept = connect(&server.address(3));
    kill(before[1]);
    let successor = ask(&server.address(2));
    assert!(!before.contains(&successor));
    for (worker, expected) in [(1, before[0]), (2, successor), (3, before[2])] {
        for _ in 0..5 {
            assert_eq!(ask(&server.address(worker)), expected);
        }
    }
    assert_eq!(ask_on(&mut *kept), before[2]);
    // Nobody holds the socket of another.
    server.running.signal("HUP");
    wait_for("the new workers serve", || server.log().contains("reloaded: the new workers serve"));
    wait_for("the connection is handed over", || ask_on(&mut *kept) == ask(&server.address(3)));
    server.stop();
}

#[test]
fn what_cannot_be_is_said_with_what_to_do() {
    let directory = Directory::new();
    let script = directory.file("app.lua", SCRIPT);
    let own = directory.socket("app-{worker}.sock");
    for (arguments, said) in [
        (&["--listen", &own][..], "{worker} in --listen gives each worker a socket of its own: say how many"),
        (
            &["--listen", &own, "--workers", "1..3"],
            "for --workers 1..3 leaves sockets that nobody serves: give --workers 3",
        ),
        (&["--listen", &own, "--workers", "0..3"], "give --workers 3, or listen on one address for all"),
        (&["--listen", "127.0.0.1:90{worker}", "--workers", "2"], "write unix:/run/app-{worker}.sock"),
        (&["--listen", "{worker}:9000", "--workers", "2"], "write unix:/run/app-{worker}.sock"),
        (&["--listen", "fd:{worker}", "--workers", "2"], "write unix:/run/app-{worker}.sock"),
        (
            &["--listen", &own, "--workers", "2", "--status", "/s", "--status-listen", &own],
            "--status-listen is one socket",
        ),
    ] {
        let done = Command::new(FCGI_LUA).args(arguments).arg(&script).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.contains(said) && text.lines().count() == 1, "{text}");
        let files = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(files, 1, "{arguments:?} leaves a socket");
    }
    let file = directory.file("fcgi.toml", format!("script = 'app.lua'\n\nlisten = '{own}'\nworkers = '1..2'\n"));
    let done = Command::new(FCGI_LUA).arg("--config").arg(&file).arg("--check-config").output().unwrap();
    let text = String::from_utf8_lossy(&done.stderr);
    assert!(text.contains("fcgi.toml:3:") && text.contains("give --workers 2"), "{text}");
}
