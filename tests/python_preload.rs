//! `--preload`: workers that are forked from a process which has loaded what they have in common.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Reply, call, connect};
use crate::support::{Directory, FCGI_LUA, FCGI_PYTHON, Running, plain_environment};

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    directory: Directory,
    address: String,
    running: Running,
}

impl Server {
    /// Serves with the directory as the working directory.
    fn start(directory: Directory, arguments: &[&str]) -> Self {
        let address = directory.socket("s");
        let mut command = Command::new(FCGI_PYTHON);
        plain_environment(&mut command);
        command.args(["--listen", &address, "--preload"]).args(arguments).current_dir(directory.path());
        let log = std::fs::File::create(directory.path().join("log")).unwrap();
        let running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log));
        drop(connect(&address));
        Self { directory, address, running }
    }

    fn ask(&self) -> Reply {
        call(&self.address, &[("REQUEST_METHOD", b"GET"), ("SCRIPT_NAME", b"/x")], b"")
    }

    fn words(&self) -> Vec<String> {
        let reply = self.ask();
        let text = reply.text();
        let body = text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n"));
        let body = body.unwrap_or_else(|| panic!("{text} {}", reply.errors())).1;
        body.split_whitespace().map(str::to_owned).collect()
    }

    /// The workers, once there are so many: all children but those that have loaded what they share.
    fn workers(&self, count: usize) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        until("workers", || {
            // Whoever loads is among the children before it has said so.
            let children = self.children();
            let loaded = self.read("loaded");
            found = children.into_iter().filter(|child| loaded.lines().all(|one| one != child)).collect();
            !loaded.is_empty() && found.len() == count
        });
        let answered = self.words().remove(0);
        assert!(found.contains(&answered), "{found:?} {answered}");
        found
    }

    /// The process that workers are forked from: it has said so itself, last of all.
    fn template(&self) -> String {
        self.read("loaded").lines().last().unwrap_or_default().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.path().join(name)).unwrap_or_default()
    }

    fn parent(&self) -> String {
        self.running.0.id().to_string()
    }

    /// The processes whose parent is the server.
    fn children(&self) -> Vec<String> {
        let pgrep = Command::new("pgrep").args(["-P", &self.parent()]).output().unwrap();
        String::from_utf8(pgrep.stdout).unwrap().split_whitespace().map(str::to_owned).collect()
    }

    fn stop(mut self) -> String {
        self.running.signal("TERM");
        let children = self.children();
        assert_eq!(self.running.wait(PATIENCE).0, Some(0), "{}", self.read("log"));
        for child in children {
            assert!(!std::path::Path::new("/proc").join(child).exists());
        }
        self.read("log")
    }
}

fn kill(pid: &str) {
    assert!(Command::new("kill").args(["-s", "KILL", pid]).status().unwrap().success());
}

fn until(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !happened() {
        assert!(Instant::now() < end, "still waiting for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says who loads it, and what `os.register_at_fork` has called in the worker.
const LOADING: &str = "import os, gc\nwith open('loaded', 'a') as log:\n    log.write('%d\\n' % os.getpid())\nforked = []\n\
    os.register_at_fork(after_in_child=lambda: forked.append(1))\n";
const WSGI: &str = "def app(environ, start_response):\n    start_response('200 OK', [])\n    \
    return [b'%d %d %d %d' % (os.getpid(), os.getppid(), len(forked), gc.get_freeze_count() > 0)]\n";
const ASGI: &str = "async def app(scope, receive, send):\n    assert scope['type'] == 'http'\n    \
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n    \
    text = b'%d %d %d %d' % (os.getpid(), os.getppid(), len(forked), gc.get_freeze_count() > 0)\n    \
    await send({'type': 'http.response.body', 'body': text})\n";

#[test]
fn applications_are_loaded_once_and_workers_are_the_parents() {
    for (source, arguments) in [
        (WSGI, &["--app", "site_app"][..]),
        (WSGI, &["--app", "site_app", "--threads", "2"]),
        (ASGI, &["--app", "site_app"]),
        (ASGI, &["--interface", "asgi", "site_app.py"]),
    ] {
        let directory = Directory::new();
        directory.file("site_app.py", format!("{LOADING}{source}"));
        let server = Server::start(directory, &[&["--workers", "3"], arguments].concat());
        let workers = server.workers(3);
        assert_eq!(server.words()[1..], [server.parent().as_str(), "1", "1"], "{arguments:?}");
        let loaded = server.read("loaded");
        assert_eq!(loaded.lines().count(), 1, "{arguments:?}: {loaded}");
        assert!(!workers.contains(loaded.trim()), "{workers:?}: {loaded}");
        let log = server.stop();
        assert!(!log.contains("ERROR"), "{log}");
    }
}

#[test]
fn workers_and_what_they_are_forked_from_are_replaced() {
    let directory = Directory::new();
    directory.file("site_app.py", format!("{LOADING}{WSGI}"));
    let server = Server::start(directory, &["--workers", "2", "--app", "site_app"]);
    let first = server.workers(2);
    let template = server.template();
    let killed = first.first().unwrap();
    kill(killed);
    until("its end", || !server.children().contains(killed));
    assert!(!server.workers(2).contains(killed));
    assert_eq!(server.read("loaded").lines().count(), 1);
    // Workers do not need it. When one is wanted, it is started again.
    kill(&template);
    until("its end", || server.read("log").contains(&format!("process {template}, which loads what workers share,")));
    let second = server.workers(2);
    for worker in &second {
        kill(worker);
    }
    until("a new one", || server.read("loaded").lines().count() == 2);
    until("their ends", || second.iter().all(|worker| !server.children().contains(worker)));
    let third = server.workers(2);
    assert!(third.is_disjoint(&second), "{third:?} {second:?}");
    server.stop();
}

#[test]
fn a_reload_loads_anew() {
    let directory = Directory::new();
    directory.file("site_app.py", format!("{LOADING}{WSGI}"));
    let server = Server::start(directory, &["--workers", "2", "--app", "site_app"]);
    let first = server.workers(2);
    // What is new cannot be loaded: those from before go on.
    server.directory.file("site_app.py", "1 /");
    server.running.signal("HUP");
    until("the failure", || server.read("log").contains("the workers from before the reload go on"));
    assert_eq!(server.workers(2), first);
    server.directory.file("site_app.py", format!("{LOADING}{WSGI}").replace("len(forked)", "len(forked) + 6"));
    server.running.signal("HUP");
    until("the new version", || server.words()[2] == "7");
    until("the old workers' end", || first.iter().all(|worker| !server.children().contains(worker)));
    assert!(server.workers(2).is_disjoint(&first));
    assert_eq!(server.read("loaded").lines().count(), 2);
    let log = server.stop();
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn what_scripts_import_is_there() {
    let directory = Directory::new();
    directory.file("own.py", "import os\nwho = os.environ.get('QUERY_STRING')\n");
    directory.file(
        "script.py",
        "import os, sys\nprint('Content-Type: text/plain\\n')\nhad = {'xmlrpc.client', 'own'} & set(sys.modules)\n\
        import own\ntry:\n    import xmlrpc.client\nexcept ImportError:\n    pass\nprint(os.getpid(), os.getppid(), *had)\n",
    );
    let server = Server::start(directory, &["--workers", "2", "script.py"]);
    for _ in 0..5 {
        assert_eq!(server.words()[1..], [server.parent().as_str(), "xmlrpc.client"]);
    }
    server.stop();
}

/// Orphans that scripts leave become children of the parent, which buries them.
#[test]
fn no_zombies_stay() {
    let directory = Directory::new();
    directory.file(
        "script.py",
        "import os, subprocess\nprint('Content-Type: text/plain\\n')\n\
        print(os.getpid(), subprocess.run(['sh', '-c', 'sleep .1 >/dev/null 2>&1 & echo $!'], capture_output=True, text=True).stdout)\n",
    );
    let server = Server::start(directory, &["--workers", "1", "script.py"]);
    for _ in 0..3 {
        let orphan = server.words().remove(1);
        until("the orphan's end", || !std::path::Path::new("/proc").join(&orphan).exists());
    }
    server.stop();
}

#[test]
fn what_cannot_be_preloaded() {
    for (program, arguments, reason) in [
        (FCGI_PYTHON, &["--preload", "x.py"][..], "--workers"),
        (FCGI_LUA, &["--workers", "2", "--preload", "x.lua"], "--preload is not for Lua"),
    ] {
        let directory = Directory::new();
        directory.file("x.py", "");
        directory.file("x.lua", "");
        let address = directory.socket("s");
        let output =
            Command::new(program).args(["--listen", &address]).args(arguments).current_dir(directory.path()).output();
        let output = output.unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && text.contains(reason), "{text}");
    }
}
