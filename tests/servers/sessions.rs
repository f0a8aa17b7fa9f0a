//! Sessions that a balancer sends to one worker each, by the sockets that workers have for themselves: what a script keeps for a
//! user is found at each request, until the worker dies, and then only its own users begin anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::site::wait;
use super::software::{HAPROXY, NGINX, Software};
use crate::nginx::free_port;
use crate::support::http;
use crate::support::{Directory, FCGI_LUA, FCGI_PYTHON, Running, plain_environment};

const USERS: usize = 12;

/// Answers with its process and how often it has seen the user; `wait` works on until a file is there.
const LUA: &str = r#"
local fcgi = require "fcgi"
local seen = {}
while fcgi.accept() do
  local user = (os.getenv("HTTP_COOKIE") or ""):match("session=(%w+)") or "nobody"
  seen[user] = (seen[user] or 0) + 1
  if os.getenv("QUERY_STRING") == "wait" then
    io.open("DIRECTORY/begun-" .. user, "w"):close()
    local go
    repeat os.execute("sleep 0.02") go = io.open("DIRECTORY/go") until go
    go:close()
  end
  local stat = io.open("/proc/self/stat")
  local process = stat:read("*n")
  stat:close()
  print("Content-Type: text/plain\n")
  print(process, seen[user])
end
"#;

const PYTHON: &str = r#"
import os, time

seen = {}

def application(environ, start_response):
    user = environ.get("HTTP_COOKIE", "").rpartition("session=")[2] or "nobody"
    seen[user] = seen.get(user, 0) + 1
    if environ.get("QUERY_STRING") == "wait":
        open("DIRECTORY/begun-" + user, "w").close()
        while not os.path.exists("DIRECTORY/go"):
            time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}\t{seen[user]}\n".encode()]
"#;

/// Who has answered, and how often it had seen the user.
type Seen = (u32, u32);

struct Site {
    port: u16,
    directory: Directory,
    _balancer: Running,
    program: Running,
}

impl Site {
    /// Four workers behind a balancer that is configured as `--print-config` says.
    fn start(software: &Software, server: &str, runner: &str, app: &str, options: &[&str]) -> Self {
        let directory = Directory::new();
        let path = directory.path().display().to_string();
        std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
        let script = directory.file("app", app.replace("DIRECTORY", &path));
        let mut words = vec!["--listen".to_owned(), directory.socket("app-{worker}.sock")];
        words.extend(["--workers", "4", "--socket-mode", "666"].map(str::to_owned));
        words.extend(options.iter().map(|word| (*word).to_owned()));
        words.push(script.display().to_string());
        let printed = Command::new(runner).args(["--print-config", server]).args(&words).output().unwrap();
        assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
        let port = free_port();
        let text = String::from_utf8(printed.stdout).unwrap().replace("8080", &port.to_string());
        directory.file("site.conf", text);
        let log = |name: &str| File::create(directory.path().join(name)).unwrap();
        let mut command = Command::new(runner);
        plain_environment(&mut command);
        let command = command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log("log"));
        let program = Running::start(command);
        for worker in 1..=4 {
            wait("a socket", || directory.path().join(format!("app-{worker}.sock")).exists()).unwrap();
        }
        let mut command = (software.command)(directory.path(), port);
        let balancer = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log("balancer.log")));
        wait(server, || TcpStream::connect(("127.0.0.1", port)).is_ok()).unwrap();
        Self { port, directory, _balancer: balancer, program }
    }

    fn answer(&self, user: usize, query: &str) -> Result<Seen, u16> {
        let cookie = format!("Cookie: theme=dark; session=user{user}\r\n");
        let answer = http::ask(self.port, &format!("GET /page{query}"), &cookie, b"").unwrap();
        if answer.status != 200 {
            return Err(answer.status);
        }
        let text = answer.text();
        let numbers = text.trim().split_once('\t').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        Ok(numbers.unwrap_or_else(|| panic!("no answer: {text}")))
    }

    fn ask(&self, user: usize) -> Seen {
        self.answer(user, "").unwrap_or_else(|status| panic!("user {user} is answered {status}: {}", self.log()))
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        self.directory.path().join(name).exists()
    }
}

fn kill(process: u32) {
    assert!(Command::new("kill").args(["-KILL", &process.to_string()]).status().unwrap().success());
    wait("the worker's end", || !Path::new(&format!("/proc/{process}")).exists()).unwrap();
}

/// What happens to a request that runs in a worker which dies.
enum Victim {
    /// Another worker is asked, as the request can be done twice.
    AskedElsewhere,
    Fails,
}

fn sessions(software: &Software, server: &str, victim: &Victim) {
    for (runner, app) in [(FCGI_LUA, LUA), (FCGI_PYTHON, PYTHON)] {
        let site = Site::start(software, server, runner, app, &[]);
        let mut homes = everybody_is_known(&site);
        strangers_are_spread(&site);
        a_worker_dies(&site, &mut homes);
        a_worker_dies_while_it_works(&site, &mut homes, victim);
        a_reload(&site, &homes);
    }
}

/// All users at once, each of them again and again; gives what they saw last.
fn everybody_is_known(site: &Site) -> Vec<Seen> {
    const TURNS: u32 = 15;
    let homes: Vec<Seen> = std::thread::scope(|scope| {
        let asks = |user| {
            move || {
                let (home, _) = site.ask(user);
                (2..=TURNS).for_each(|turn| assert_eq!(site.ask(user), (home, turn), "user {user}"));
                (home, TURNS)
            }
        };
        let threads: Vec<_> = (0..USERS).map(|user| scope.spawn(asks(user))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(processes(&homes).len() > 1, "all users are sent to one worker: {homes:?}");
    homes
}

/// Who has no session is sent to any worker.
fn strangers_are_spread(site: &Site) {
    let asked = (0..20).map(|_| http::ask(site.port, "GET /page", "", b"").unwrap().text());
    let process = |text: String| text.split('\t').next().and_then(|word| word.trim().parse::<u32>().ok());
    let answered: BTreeSet<u32> = asked.map(|text| process(text.clone()).unwrap_or_else(|| panic!("{text}"))).collect();
    assert!(answered.len() > 1, "{answered:?}");
}

fn processes(homes: &[Seen]) -> BTreeSet<u32> {
    homes.iter().map(|(process, _)| *process).collect()
}

/// Nobody is refused. The users of the dead one have one successor, which has not seen them; others notice nothing.
fn all_go_on(site: &Site, homes: &mut [Seen], dead: u32) {
    let living = processes(homes);
    let mut successors = BTreeSet::new();
    for (user, home) in homes.iter_mut().enumerate() {
        let seen = site.ask(user);
        if home.0 == dead {
            assert!(!living.contains(&seen.0), "user {user} is sent to the worker of others");
            assert_eq!(seen.1, 1);
            successors.insert(seen.0);
            *home = seen;
        } else {
            assert_eq!(seen, (home.0, home.1 + 1), "user {user}");
        }
        home.1 = seen.1 + 1;
        assert_eq!(site.ask(user), *home, "user {user}");
    }
    assert_eq!(successors.len(), 1, "{successors:?}");
}

fn a_worker_dies(site: &Site, homes: &mut [Seen]) {
    let dead = homes[0].0;
    kill(dead);
    all_go_on(site, homes, dead);
}

fn a_worker_dies_while_it_works(site: &Site, homes: &mut [Seen], victim: &Victim) {
    let dead = homes[0].0;
    let neighbour = (0..USERS).find(|user| homes[*user].0 != dead).unwrap();
    std::thread::scope(|scope| {
        let [mine, other] = [0, neighbour].map(|user| scope.spawn(move || site.answer(user, "?wait")));
        for user in [0, neighbour] {
            wait("the request", || site.has(&format!("begun-user{user}"))).unwrap();
        }
        kill(dead);
        // Whom it may be sent to next is the balancer's choice, and may be the neighbour's.
        site.directory.file("go", "");
        match (mine.join().unwrap(), victim) {
            (Ok((process, _)), Victim::AskedElsewhere) => assert_ne!(process, dead),
            (Err(502), Victim::Fails) => {}
            (other, _) => panic!("{other:?}"),
        }
        homes[neighbour].1 += 1;
        assert_eq!(other.join().unwrap(), Ok(homes[neighbour]), "what runs in another worker");
    });
    all_go_on(site, homes, dead);
}

/// No request fails while all workers are replaced; then each session has a home again.
fn a_reload(site: &Site, homes: &[Seen]) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for user in 0..USERS {
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    site.ask(user);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        site.program.signal("HUP");
        let reloaded = wait("the new workers", || site.log().contains("reloaded: the new workers serve"));
        let old_end = wait("the end of the old ones", || {
            processes(homes).iter().all(|process| !Path::new(&format!("/proc/{process}")).exists())
        });
        stop.store(true, Ordering::Relaxed);
        reloaded.and(old_end).unwrap_or_else(|e| panic!("{e}: {}", site.log()));
    });
    // Who shared a worker shares its successor.
    let mut successors = BTreeMap::new();
    for (user, (before, _)) in homes.iter().enumerate() {
        let (process, count) = site.ask(user);
        assert_eq!(site.ask(user), (process, count + 1), "user {user}");
        assert_eq!(*successors.entry(before).or_insert(process), process, "user {user}");
    }
    assert!(successors.values().all(|process| !processes(homes).contains(process)));
}

#[test]
fn sessions_behind_nginx() {
    sessions(&NGINX, "nginx", &Victim::AskedElsewhere);
}

#[test]
fn sessions_behind_haproxy() {
    sessions(&HAPROXY, "haproxy", &Victim::Fails);
}

/// The balancer chooses the process, and that the interpreter.
#[test]
fn sessions_of_threads() {
    let options = ["--threads", "3", "--affinity", "cookie:session", "--affinity-wait", "60"];
    let site = Site::start(&NGINX, "nginx", FCGI_LUA, LUA, &options);
    let mut homes = everybody_is_known(&site);
    a_worker_dies(&site, &mut homes);
}
