//! Several pools of one file: started together, reloaded as the file changes, stopped together; apart in their troubles.

use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{call, connect};
use crate::support::{Directory, FCGI_LUA, Running};

const PATIENCE: Duration = Duration::from_secs(60);

/// Answers with its name, the parent of its process, and what of the environment it must not see.
const SCRIPT: &str = "print('Content-Type: text/plain\\n')
local f = io.open('/proc/self/stat') local parent = f:read('*l'):match('%) %S (%d+)') f:close()
local seen = os.getenv('FCGI_MASTER') or os.getenv('FCGI_POOL_SOCKETS') or os.getenv('NOTIFY_SOCKET') or 'nothing'
print((...) .. ' ' .. parent .. ' ' .. seen)";

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A file with pools, and the master that serves them.
struct Pools {
    directory: Directory,
    running: Running,
}

impl Pools {
    /// A pool of Lua's.
    fn section(name: &str) -> String {
        format!(
            "[pool.{name}]\nlisten = \"unix:{name}.sock\"\nscript = \"app.lua\"\narguments = [\"{name}\"]\nworkers = 1\n"
        )
    }

    fn start(text: &str, prepare: impl FnOnce(&Directory, &mut Command)) -> Self {
        let directory = Directory::new();
        directory.file("app.lua", SCRIPT);
        let file = directory.file("f.toml", text);
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let mut command = Command::new(FCGI_LUA);
        command.arg("--config").arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        prepare(&directory, &mut command);
        Self { running: Running::start(&mut command), directory }
    }

    fn write(&self, text: &str) {
        self.directory.file("f.toml", text);
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory.path().join("log")).unwrap()).into_owned()
    }

    fn address(&self, name: &str) -> String {
        self.directory.socket(&format!("{name}.sock"))
    }

    fn is_open(&self, name: &str) -> bool {
        self.directory.path().join(format!("{name}.sock")).exists()
    }

    /// The process that is the parent of a pool's workers.
    fn parent(&self, name: &str) -> u32 {
        let text = call(&self.address(name), &[], b"").text();
        let words: Vec<&str> = text.lines().last().unwrap_or_default().split(' ').collect();
        assert!(words.len() == 3 && words[0] == name && words[2] == "nothing", "{text}");
        words[1].parse().unwrap()
    }

    /// All processes below the master.
    fn processes(&self) -> Vec<u32> {
        let mut all = vec![self.running.0.id()];
        let mut at = 0;
        while at < all.len() {
            let pid = all[at];
            let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
            all.extend(list.split_whitespace().map(|pid| pid.parse::<u32>().unwrap()));
            at += 1;
        }
        all
    }

    /// Ends it, and looks that nobody is left.
    fn stop(mut self, signal: &str) -> String {
        let processes = self.processes();
        self.running.signal(signal);
        let (status, _) = self.running.wait(PATIENCE);
        assert_eq!(status, Some(0), "{}", self.log());
        // Workers whose parent was killed end by themselves.
        for pid in processes {
            wait_for(&format!("process {pid} ends"), || !is_running(pid));
        }
        self.log()
    }
}

/// Of a test that fails, the log is wanted.
impl Drop for Pools {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
    }
}

fn is_running(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

fn is_child(parent: u32, child: u32) -> bool {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().any(|pid| pid == child.to_string())
}

#[test]
fn all_pools_of_a_file_are_started_and_stopped_together() {
    for signal in ["TERM", "INT", "QUIT", "WINCH"] {
        let text =
            format!("pid-file = \"m.pid\"\nstatus = \"/status\"\n{}{}", Pools::section("a"), Pools::section("b"));
        let pools = Pools::start(&text, |_, _| ());
        let (a, b) = (pools.parent("a"), pools.parent("b"));
        let master = pools.running.0.id();
        assert!(a != b && is_child(master, a) && is_child(master, b));
        let pid_file = pools.directory.path().join("m.pid");
        wait_for("the pid file", || pid_file.exists());
        assert_eq!(std::fs::read_to_string(&pid_file).unwrap().trim(), master.to_string());
        let page = call(&pools.address("b"), &[("SCRIPT_NAME", b"/status"), ("REQUEST_URI", b"/status")], b"").text();
        assert!(page.contains("pool:                 b\n"), "{page}");
        // WINCH is left out on a terminal.
        let has_terminal = std::fs::File::open("/dev/tty").is_ok();
        let log = pools.stop(if has_terminal && signal == "WINCH" { "QUIT" } else { signal });
        assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
        assert!(!pid_file.exists());
    }
}

#[cfg(feature = "python")]
#[test]
fn pools_of_two_languages() {
    let python = "[pool.wiki]\nlanguage = \"python\"\nlisten = \"unix:wiki.sock\"\nscript = \"app.py\"\n";
    let pools = Pools::start(&format!("{}{python}", Pools::section("shop")), |directory, _| {
        directory
            .file("app.py", "import os\nprint('Content-Type: text/plain\\n')\nprint('wiki', os.getppid(), 'nothing')");
    });
    let (shop, wiki) = (pools.parent("shop"), pools.parent("wiki"));
    let program = |pid: u32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap().display().to_string();
    assert!(program(shop).ends_with("/fcgi-lua") && program(wiki).ends_with("/fcgi-python"));
    // Another language by a reload, in the same process.
    pools.write(&format!("{}{}", Pools::section("shop"), Pools::section("wiki")));
    pools.running.signal("HUP");
    wait_for("the other language", || program(wiki).ends_with("/fcgi-lua") && pools.log().contains("reloaded"));
    assert_eq!(pools.parent("wiki"), wiki);
    let log = pools.stop("TERM");
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_reload_makes_the_pools_those_of_the_file() {
    let mut pools = Pools::start(&format!("{}{}", Pools::section("a"), Pools::section("b")), |_, _| ());
    let (a, b) = (pools.parent("a"), pools.parent("b"));
    wait_for("both serve", || pools.log().matches("\" serves").count() == 2);

    // One goes, one comes, and one is changed.
    pools.write(&format!("{}{}", Pools::section("b").replace("workers = 1", "workers = 2"), Pools::section("c")));
    pools.running.signal("HUP");
    assert_ne!(pools.parent("c"), a);
    wait_for("the pool that is no longer there ends", || !pools.is_open("a") && !is_child(pools.running.0.id(), a));
    assert_eq!(pools.parent("b"), b, "it is told to reload, and keeps its process");
    // Until then it may still be about to read the file.
    wait_for("it has reloaded", || pools.log().contains("reloaded: the new workers serve"));
    wait_for("two workers", || {
        let list = std::fs::read_to_string(format!("/proc/{b}/task/{b}/children")).unwrap();
        list.split_whitespace().count() == 2
    });

    // What is wrong changes nothing.
    pools.write(&format!("{}{}treads = 1\n", Pools::section("a"), Pools::section("b")));
    pools.running.signal("USR2");
    wait_for("the mistake is told", || pools.log().contains("not reloaded: all pools go on as before"));
    assert!(pools.log().contains("f.toml:11:1: unknown key \"treads\": did you mean \"threads\"?"), "{}", pools.log());
    assert_eq!(pools.parent("b"), b);
    pools.parent("c");
    assert!(!pools.is_open("a"));

    // One that cannot start is told of and tried again, and the others serve.
    pools.directory.file("d.sock", "no socket");
    pools.write(&format!("{}{}", Pools::section("b"), Pools::section("d")));
    pools.running.signal("HUP");
    wait_for("it fails", || pools.log().contains("pool \"d\": process"));
    assert_eq!(pools.parent("b"), b);
    std::fs::remove_file(pools.directory.path().join("d.sock")).unwrap();
    wait_for("it serves", || pools.is_open("d"));
    pools.parent("d");
    assert!(matches!(pools.running.0.try_wait(), Ok(None)));
    pools.stop("QUIT");
}

#[test]
fn a_parent_that_dies_is_started_again_and_no_other_pool_notices() {
    let pools = Pools::start(&format!("{}{}", Pools::section("a"), Pools::section("b")), |_, _| ());
    let (a, b) = (pools.parent("a"), pools.parent("b"));
    // Until then none may fail.
    wait_for("both serve", || pools.log().matches("\" serves").count() == 2);
    let kill = |pid: u32| assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
    kill(a);
    wait_for("it is started again", || pools.log().matches("pool \"a\" serves").count() == 2);
    assert_ne!(pools.parent("a"), a);
    assert_eq!(pools.parent("b"), b);
    assert!(pools.log().contains(&format!("pool \"a\": process {a} was killed by SIGKILL: it is started again in ")));
    // Nor do parents live without their master.
    let processes = pools.processes();
    kill(pools.running.0.id());
    wait_for("all end", || !processes.iter().any(|pid| is_running(*pid)));
}

#[test]
fn pools_that_cannot_start_are_named() {
    let text = format!("{}{}", Pools::section("a"), Pools::section("b"));
    let mut pools = Pools::start(&text, |directory, _| {
        directory.file("b.sock", "no socket");
    });
    assert_eq!(pools.running.wait(PATIENCE).0, Some(2));
    let log = pools.log();
    assert!(log.contains("b.sock exists and is not a socket") && log.contains("pool \"b\" does not start"), "{log}");
    assert!(!pools.is_open("a"));

    let section = Pools::section;
    for (text, told) in [
        (format!("{}{}xyz = 1\n", section("a"), section("b")), "f.toml:11:1: unknown key \"xyz\""),
        (format!("{}{}", section("a"), section("b").replace("app.lua", "no.lua")), "f.toml:8:1: cannot open /"),
        (
            format!("{}{}", section("a"), section("b").replace("b.sock", "a.sock")),
            "f.toml:7:1: --listen: the pool \"a\" listens on unix:",
        ),
        (
            format!("{}[pool.b]\nscript = \"app.lua\"\n", section("a")),
            "f.toml:7:1: the pool \"b\" listens nowhere: write listen, or let systemd pass a socket (FileDescriptorName=b)",
        ),
        (
            format!("status-listen = \"unix:s\"\n{}", section("a")),
            "f.toml:1:1: each pool listens at addresses of its own: write it into the tables of the pools",
        ),
    ] {
        let mut pools = Pools::start(&text, |_, _| ());
        assert_eq!(pools.running.wait(PATIENCE).0, Some(2), "{text}");
        assert!(pools.log().contains(told), "{text}: {}", pools.log());
        assert!(!pools.is_open("a"), "nothing is started");
    }
}

#[test]
fn a_service_manager_is_told_when_all_are_ready() {
    let mut manager = None;
    let text = format!("{}{}", Pools::section("a"), Pools::section("b"));
    let mut pools = Pools::start(&text, |directory, command| {
        let path = directory.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        manager = Some(socket);
        command.env("NOTIFY_SOCKET", path).env("WATCHDOG_USEC", "200000");
    });
    let manager = manager.unwrap();
    let told = |what: &str| {
        let end = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < end, "in vain: {what}");
            let mut buffer = [0; 512];
            let count = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{what}: {e}"));
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.contains(what) {
                return text;
            }
            assert!(!text.contains("READY=1"), "too early, before {what}");
        }
    };
    told("READY=1");
    assert!(pools.is_open("a") && pools.is_open("b"));
    told("STATUS=serving 2 pools: a (");
    told("WATCHDOG=1");
    pools.parent("a");
    pools.running.signal("HUP");
    told("RELOADING=1");
    told("READY=1");
    pools.parent("b");
    pools.running.signal("QUIT");
    told("STOPPING=1");
    assert_eq!(pools.running.wait(PATIENCE).0, Some(0));
}

#[test]
fn sockets_of_systemd_go_to_the_pools_of_their_names() {
    let section = |name: &str| Pools::section(name).replace("listen", "#");
    let text = format!("{}{}", section("a"), section("b"));
    let pools = Pools::start(&text, |directory, command| {
        let file = directory.path().join("f.toml");
        let stderr = std::fs::File::options().append(true).open(directory.path().join("log")).unwrap();
        *command = Command::new("systemd-socket-activate");
        for name in ["b", "a"] {
            command.arg("--listen").arg(directory.path().join(format!("{name}.sock")));
        }
        command.args(["--fdname", "b:a", FCGI_LUA, "--config"]).arg(file).stdin(Stdio::null()).stderr(stderr);
    });
    drop(connect(&pools.address("a")));
    let (a, b) = (pools.parent("a"), pools.parent("b"));
    assert_ne!(a, b);
    for _ in 0..2 {
        pools.running.signal("HUP");
        assert_eq!((pools.parent("a"), pools.parent("b")), (a, b));
    }
    wait_for("both serve", || pools.log().contains("pool \"a\" serves") && pools.log().contains("pool \"b\" serves"));
    // The socket outlives its pool's parent, and so do those who wait there.
    assert!(Command::new("kill").args(["-KILL", &a.to_string()]).status().unwrap().success());
    wait_for("another parent", || {
        let log = pools.log();
        log.rsplit_once("was killed by SIGKILL").is_some_and(|(_, behind)| behind.contains("pool \"a\" serves"))
    });
    assert_ne!(pools.parent("a"), a);
    assert_eq!(pools.parent("b"), b);
    pools.stop("TERM");
}

#[test]
fn a_master_is_small() {
    let pools = Pools::start(&format!("{}{}", Pools::section("a"), Pools::section("b")), |_, _| ());
    pools.parent("a");
    pools.parent("b");
    for round in 1..4 {
        pools.running.signal("HUP");
        wait_for("it has reloaded", || pools.log().matches("the new workers serve").count() >= 2 * round);
    }
    let map = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pools.running.0.id())).unwrap();
    let private = map.lines().filter(|line| line.starts_with("Private_"));
    let kib: u64 = private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert!(kib < 2048, "{map}");
    pools.stop("TERM");
}
