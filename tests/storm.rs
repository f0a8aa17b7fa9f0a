//! A storm: load through nginx for all languages at once, while workers are killed, scripts loop, leak and exit, and servers
//! are reloaded. Only what runs in a killed worker is lost; with nginx's retry of GET, nothing.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::nginx::Nginx;
use crate::support::client::connect;
use crate::support::{Directory, FCGI_LUA, Running, plain_environment};

const PATIENCE: Duration = Duration::from_secs(60);

struct Language {
    name: &'static str,
    program: &'static str,
    script: &'static str,
    /// What its bad requests do.
    evils: &'static [&'static str],
}

/// What scripts of all languages do, by the query: good ones work for some milliseconds and give it back.
const LANGUAGES: &[Language] = &[
    Language {
        name: "lua",
        program: FCGI_LUA,
        script: "local query = os.getenv('QUERY_STRING')
if query == 'loop' then while true do end end
if query == 'exit' then os.exit(3) end
if query == 'leak' then
  local kept = package.loaded.leak or {}
  package.loaded.leak = kept
  kept[#kept + 1] = string.rep(('x'):rep(1024), 20 * 1024 + #kept)
end
local sum = 0
for i = 1, 20000 do sum = sum + i end
print('Content-Type: text/plain\\n') io.write('answer to ', query)",
        evils: &["loop", "exit", "leak"],
    },
    #[cfg(feature = "python")]
    Language {
        name: "py",
        program: crate::support::FCGI_PYTHON,
        script: "import os, keeper
query = os.environ['QUERY_STRING']
if query == 'loop':
    while True: pass
if query == 'stubborn':
    while True:
        try:
            while True: pass
        except BaseException: pass
if query == 'exit':
    os._exit(3)
if query == 'leak':
    keeper.kept.append('x' * (20 << 20))
sum(range(20000))
print('Content-Type: text/plain\\n\\nanswer to ' + query, end='')",
        evils: &["loop", "stubborn", "exit", "leak"],
    },
    #[cfg(feature = "rhai")]
    Language {
        name: "rhai",
        program: crate::support::FCGI_RHAI,
        script: "let query = env(\"QUERY_STRING\");
if query == \"loop\" { loop {} }
if query == \"exit\" { exit(3); }
if query == \"error\" { throw \"on purpose\"; }
let sum = 0;
for i in 0..2000 { sum += i; }
print(\"Content-Type: text/plain\\n\");
write(\"answer to \" + query);",
        evils: &["loop", "exit", "error"],
    },
];

/// How long it lasts.
fn length() -> Duration {
    let seconds = std::env::var("FCGI_STORM_SECONDS").ok().map(|n| n.parse().expect("FCGI_STORM_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(15))
}

/// A number below another one, by chance.
fn chance(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

/// What has happened to one language.
#[derive(Debug, Default)]
struct Figures {
    /// Good requests that nginx may repeat, and those that it may not.
    repeated: AtomicU64,
    once: AtomicU64,
    /// Those of the latter that failed.
    lost: AtomicU64,
    evil: AtomicU64,
    reloads: AtomicU64,
    /// The longest that an answer took, in milliseconds.
    slowest: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

/// A server of one language in the storm.
struct Target {
    language: &'static Language,
    runner: Mutex<Running>,
    log: std::path::PathBuf,
    figures: Figures,
}

impl Target {
    fn start(directory: &Directory, language: &'static Language) -> Self {
        let name = language.name;
        let script = directory.file(&format!("{name}/app.{name}"), language.script);
        directory.file(&format!("{name}/keeper.py"), "kept = []\n");
        let address = directory.socket(&format!("{name}.sock"));
        let log = directory.path().join(format!("{name}.log"));
        let mut command = Command::new(language.program);
        plain_environment(&mut command);
        command.args(["--listen", &address, "--workers", "3", "--max-memory", "150M", "--max-requests", "300"]);
        command.args(["--request-timeout", "1", "--kill-after", "2"]).arg(script);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
        let runner = Mutex::new(Running::start(&mut command));
        drop(connect(&address));
        Self { language, runner, log, figures: Figures::default() }
    }

    fn parent(&self) -> u32 {
        self.runner.lock().unwrap().0.id()
    }

    fn workers(&self) -> Vec<u32> {
        let pid = self.parent();
        let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
    }

    /// A client whose requests must be answered if they may be repeated, and may be lost with a worker if not.
    fn good(&self, nginx: &Nginx, way: &str, may_be_lost: bool, client: usize, done: &AtomicBool) {
        let mut turn = 0;
        // Some clients stay with nginx, others come anew each time.
        let stays = client.is_multiple_of(2);
        let mut kept = None;
        while !done.load(SeqCst) {
            turn += 1;
            let query = format!("{way}-{client}-{turn}");
            let began = Instant::now();
            let head = format!("GET /{}/{way}?{query}", self.language.name);

            let (status, body) = if stays { ask_kept(&mut kept, nginx, &head) } else { ask_anew(nginx, &head) };
            self.figures.slowest.fetch_max(began.elapsed().as_millis() as u64, SeqCst);
            let is_right = status == 200 && body == format!("answer to {query}");
            let count = if may_be_lost { &self.figures.once } else { &self.figures.repeated };
            count.fetch_add(1, SeqCst);
            if !is_right && may_be_lost && status == 502 {
                self.figures.lost.fetch_add(1, SeqCst);
            } else if !is_right {
                self.figures.wrong.lock().unwrap().push(format!("{query}: {status} {body}"));
            }
            // Other tests want to live, too.
            std::thread::sleep(Duration::from_millis(chance(5)));
        }
    }

    /// A client whose requests harm whoever runs them.
    fn evil(&self, nginx: &Nginx, done: &AtomicBool) {
        while !done.load(SeqCst) {
            for evil in self.language.evils {
                let (status, body) = ask_anew(nginx, &format!("GET /{}/once?{evil}", self.language.name));
                self.figures.evil.fetch_add(1, SeqCst);
                // 504: interrupted; 502: its process was ended.
                let right: &[u16] = match *evil {
                    "loop" | "stubborn" => &[504, 502],
                    "leak" => &[200, 502, 504],
                    _ => &[500, 502],
                };
                if !right.contains(&status) {
                    self.figures.wrong.lock().unwrap().push(format!("{evil}: {status} {body}"));
                }
                std::thread::sleep(Duration::from_millis(100 + chance(200)));
            }
        }
    }

    /// Kills workers at random.
    fn kill(&self, done: &AtomicBool) {
        while !done.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(100 + chance(900)));
            let workers = self.workers();
            let Some(victim) = workers.get(chance(workers.len().max(1) as u64) as usize) else { continue };
            let signal = ["KILL", "SEGV"][chance(2) as usize];
            // A fault that did not happen is forgiven once: the runtime of Rust waits for it to come again.
            for _ in 0..if signal == "SEGV" { 2 } else { 1 } {
                let mut kill = Command::new("kill");
                // It may have ended by itself in the meantime.
                let _ = kill.args(["-s", signal, &victim.to_string()]).stderr(Stdio::null()).status();
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }

    fn reload(&self, done: &AtomicBool) {
        while !done.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(2000 + chance(2000)));
            self.runner.lock().unwrap().signal("HUP");
            self.figures.reloads.fetch_add(1, SeqCst);
        }
    }

    /// Ends it, and tells its figures; gives what judges them.
    fn end(self) -> impl FnOnce() {
        let Self { language, runner, log, figures } = self;
        let mut runner = runner.into_inner().unwrap();
        runner.signal("TERM");
        let (status, _) = runner.wait(PATIENCE);
        let log = String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned();
        let killed = |signal: &str| log.matches(&format!("was killed by {signal}")).count() as u64;
        let kills = killed("SIGKILL") + killed("SIGSEGV");
        println!("{}: {} KILL, {} SEGV, {figures:?}", language.name, killed("SIGKILL"), killed("SIGSEGV"));
        move || {
            let tail =
                || log.lines().rev().take(40).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n");
            assert_eq!(status, Some(0), "{}: {}", language.name, tail());
            assert!(!log.contains("a mistake in the program"), "{}: {}", language.name, tail());
            let wrong = figures.wrong.into_inner().unwrap();
            assert!(wrong.is_empty(), "{}: {wrong:#?}\n{}", language.name, tail());
            let [repeated, once, lost, reloads, evil] =
                [figures.repeated, figures.once, figures.lost, figures.reloads, figures.evil]
                    .map(AtomicU64::into_inner);
            assert!(repeated > 100 && once > 20 && kills > 3 && reloads > 1 && evil > 2, "this was no storm");
            // A worker runs one request at a time.
            assert!(lost <= kills, "{}: {lost} requests were lost by {kills} kills\n{}", language.name, tail());
        }
    }
}

/// Status and body of an answer on a connection of its own.
fn ask_anew(nginx: &Nginx, head: &str) -> (u16, String) {
    let (status, _, body) = nginx.ask(head, b"");
    (status, String::from_utf8_lossy(&body).into_owned())
}

/// The same, on a connection that is kept.
fn ask_kept(kept: &mut Option<BufReader<TcpStream>>, nginx: &Nginx, head: &str) -> (u16, String) {
    let mut socket = kept.take().unwrap_or_else(|| {
        let socket = TcpStream::connect(("127.0.0.1", nginx.port())).unwrap();
        socket.set_read_timeout(Some(PATIENCE * 2)).unwrap();
        BufReader::new(socket)
    });
    socket.get_mut().write_all(format!("{head} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
    let (mut status, mut closes) = (0, false);
    let mut line = || {
        let mut line = String::new();
        assert!(socket.read_line(&mut line).unwrap() > 0, "nginx closes within an answer");
        line.trim_end().to_owned()
    };
    let mut length = None;
    loop {
        let header = line().to_ascii_lowercase();
        match header.split_once(": ") {
            Some(("content-length", value)) => length = Some(value.parse().unwrap()),
            Some(("connection", value)) => closes = value == "close",
            Some(_) => {}
            None if header.is_empty() => break,
            None => status = header.split(' ').nth(1).unwrap().parse().unwrap(),
        }
    }
    let mut body = Vec::new();
    if let Some(length) = length {
        body.resize(length, 0);
        socket.read_exact(&mut body).unwrap();
    } else {
        // In chunks.
        loop {
            let mut size = String::new();
            socket.read_line(&mut size).unwrap();
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let before = body.len();
            body.resize(before + size, 0);
            socket.read_exact(&mut body[before..]).unwrap();
            socket.read_exact(&mut [0; 2]).unwrap();
            if size == 0 {
                break;
            }
        }
    }
    *kept = (!closes).then_some(socket);
    (status, String::from_utf8_lossy(&body).into_owned())
}

#[test]
fn only_what_runs_in_a_killed_worker_is_lost_and_nothing_where_nginx_repeats_it() {
    let directory = Directory::new();
    let targets: Vec<Target> = LANGUAGES.iter().map(|language| Target::start(&directory, language)).collect();
    let (mut upstreams, mut locations) = (String::new(), String::new());
    for Language { name, .. } in LANGUAGES {
        // nginx asks each entry once: each is one more attempt.
        let server = format!("server unix:{}/{name}.sock max_fails=0;", directory.path().display());
        let servers = server.repeat(8);
        upstreams += &format!("upstream {name} {{ {servers} }} upstream {name}_kept {{ {servers} keepalive 8; }}");
        let repeat = "fastcgi_next_upstream error timeout invalid_header;";
        let common = "include fastcgi.conf; fastcgi_read_timeout 100s;";
        locations += &format!(
            "location /{name}/new {{ {common} {repeat} fastcgi_pass {name}; }}
             location /{name}/kept {{ {common} {repeat} fastcgi_keep_conn on; fastcgi_pass {name}_kept; }}
             location /{name}/once {{ {common} fastcgi_next_upstream off; fastcgi_pass {name}; }}"
        );
    }
    let nginx = Nginx::with(&directory, &upstreams, &locations);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (done, nginx) = (&done, &nginx);
        for target in &targets {
            for client in 0..4 {
                let way = ["kept", "new"][client / 2];
                scope.spawn(move || target.good(nginx, way, false, client, done));
            }
            scope.spawn(move || target.good(nginx, "once", true, 4, done));
            scope.spawn(move || target.evil(nginx, done));
            scope.spawn(move || target.kill(done));
            scope.spawn(move || target.reload(done));
        }
        std::thread::sleep(length());
        done.store(true, SeqCst);
    });
    for target in &targets {
        let end = Instant::now() + PATIENCE;
        while target.workers().len() != 3 {
            assert!(Instant::now() < end, "{}: the workers are {:?}", target.language.name, target.workers());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    let judges: Vec<_> = targets.into_iter().map(Target::end).collect();
    judges.into_iter().for_each(|judge| judge());
}
