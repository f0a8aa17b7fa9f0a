//! What surrounds a server: users, limits, environment, pid file, log, the service manager. Much of it needs root.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{call, connect};
use crate::support::{Directory, FCGI_LUA, Running, repository, serve};

const PATIENCE: Duration = Duration::from_secs(60);

/// Tells what its process is.
const STATUS: &str = "print('Content-Type: text/plain\\n')
    local wanted = { Uid = true, Gid = true, Groups = true, NoNewPrivs = true, Umask = true }
    for line in io.lines('/proc/self/status') do if wanted[line:match('^%w+')] then print((line:gsub('%s+', ' '))) end end";

fn need_root() {
    let is_root = std::fs::metadata("/proc/self").unwrap().uid() == 0;
    assert!(is_root, "this test needs root, as CI has it: run tests/run as root, or in a container");
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A directory that everybody may enter.
fn open_directory() -> Directory {
    let directory = Directory::new();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn ask(address: &str) -> String {
    let text = call(address, &[], b"").text();
    text.strip_prefix("Content-Type: text/plain\n\n").unwrap_or_else(|| panic!("{text}")).to_owned()
}

#[test]
fn scripts_run_as_another_user_with_its_groups_and_the_parent_stays() {
    need_root();
    let directory = open_directory();
    let script = directory.file("s.lua", STATUS).display().to_string();
    for workers in [&["--workers", "1"][..], &[]] {
        let address = directory.socket("s");
        let options = ["--user", "nobody", "--group", "daemon", "--umask", "027", "--no-new-privs", &script];
        let runner = serve(&address, &[workers, &options].concat());
        let id = |option: &str, user: &str| {
            let output = Command::new("id").args([option, user]).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        let (uid, gid) = (id("-u", "nobody"), "1");
        let said = ask(&address);
        assert!(said.contains(&format!("Uid: {uid} {uid} {uid} {uid}\n")), "{said}");
        assert!(said.contains(&format!("Gid: {gid} {gid} {gid} {gid}\n")), "{said}");
        assert!(said.contains("NoNewPrivs: 1\n") && said.contains("Umask: 0027\n"), "{said}");
        let groups = said.lines().find_map(|line| line.strip_prefix("Groups: ")).unwrap();
        assert!(groups.split_whitespace().all(|group| group == gid || id("-G", "nobody").contains(group)), "{said}");
        let parent = std::fs::metadata(format!("/proc/{}", runner.0.id())).unwrap().uid();
        assert_eq!(parent == 0, !workers.is_empty(), "only what runs scripts is another user's");
    }
}

#[test]
fn scripts_are_locked_into_a_directory() {
    need_root();
    let directory = open_directory();
    let script = directory.file(
        "jail/s.lua",
        "print('Content-Type: text/plain\\n') print(arg[0], io.open('/etc/passwd')) print(io.open('/data'):read('*a'))",
    );
    directory.file("jail/data", "inside");
    let jail = directory.path().join("jail").display().to_string();
    let address = directory.socket("s");
    // The path as it is seen from outside, and from inside.
    for script in [script.to_str().unwrap(), "/s.lua"] {
        let _runner = serve(&address, &["--workers", "1", "--user", "nobody", "--chroot", &jail, script]);
        assert_eq!(ask(&address), "/s.lua\tnil\t/etc/passwd: No such file or directory\t2\ninside\n", "{script}");
    }
}

#[test]
fn limits_hold_for_scripts() {
    let directory = Directory::new();
    let script = directory.file(
        "s.lua",
        "print('Content-Type: text/plain\\n')
         for line in io.lines('/proc/self/limits') do if line:find('open files') then print((line:gsub('%s+', ' '))) end end",
    );
    let address = directory.socket("s");
    let script = script.to_str().unwrap();
    let _runner = serve(&address, &["--workers", "1", "--rlimit", "nofile=321:654", "--rlimit", "core=0", script]);
    assert_eq!(ask(&address), "Max open files 321 654 files \n");
}

#[test]
fn the_environment_is_what_is_granted() {
    let directory = Directory::new();
    let script = directory.file(
        "s.lua",
        "print('Content-Type: text/plain\\n') print(os.getenv('GRANTED'), os.getenv('SECRET'), os.getenv('SET'))
         local f = io.popen('tr \"\\\\0\" \"\\\\n\" < /proc/self/environ | grep -c SECRET=') print(f:read('*a'))",
    );
    for workers in [&["--workers", "1"][..], &[]] {
        let address = directory.socket("s");
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &address]).args(workers);
        command.args(["--clear-env", "--env", "GRANTED", "--env", "SET=a=b", "--env", "PATH"]).arg(&script);
        command.env("GRANTED", "yes").env("SECRET", "no").stdin(Stdio::null()).stderr(Stdio::null());
        let _runner = Running::start(&mut command);
        drop(connect(&address));
        assert_eq!(ask(&address), "yes\tnil\ta=b\n0\n\n");
    }
}

#[test]
fn sockets_have_an_owner_and_permissions() {
    need_root();
    let directory = open_directory();
    let script = directory.file("s.lua", STATUS).display().to_string();
    let _runner = serve(&directory.socket("s"), &["--socket-owner", "nobody:daemon", "--socket-mode", "0620", &script]);
    let meta = std::fs::metadata(directory.path().join("s")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o777), (65534, 1, 0o620));
}

#[test]
fn the_pid_file_is_held_by_the_living_only() {
    let directory = Directory::new();
    let script = directory.file("s.lua", STATUS).display().to_string();
    let file = directory.path().join("app.pid");
    let shown = file.display().to_string();
    let start = |name: &str| {
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &directory.socket(name), "--workers", "1", "--pid-file", &shown, &script]);
        Running::start(command.stdin(Stdio::null()).stderr(Stdio::piped()))
    };
    // The number of a process that began later.
    std::fs::write(&file, format!("{}\n", std::process::id())).unwrap();
    assert!(Command::new("touch").args(["-d", "2001-01-01", &shown]).status().unwrap().success());
    let mut first = start("one");
    wait_for("the file", || std::fs::read_to_string(&file).is_ok_and(|text| text == format!("{}\n", first.0.id())));
    let (status, said) = start("two").wait(PATIENCE);
    assert_eq!(status, Some(2));
    assert!(said.contains(&format!("{shown} is held by process {} (fcgi-lua)", first.0.id())), "{said}");
    first.signal("TERM");
    assert_eq!(first.wait(PATIENCE).0, Some(0));
    assert!(!file.exists());
}

#[test]
fn the_log_is_opened_again_for_the_parent_and_for_workers_of_another_user() {
    need_root();
    let directory = open_directory();
    // What the C library's abort says, and the shell's children, is the workers' standard error.
    let script = directory.file("s.lua", "print('Content-Type: text/plain\\n') os.exit(0)").display().to_string();
    let log = directory.path().join("app.log");
    let address = directory.socket("s");
    let options = ["--workers", "1", "--user", "nobody", "--log-format", "json", "--log-to", log.to_str().unwrap()];
    let runner = serve(&address, &[&options[..], &[&script]].concat());
    let text = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
    wait_for("a line", || text(&log).contains("listening on"));
    let line = text(&log);
    assert!(line.starts_with("{\"timestamp\":\"") && line.contains("\"level\":\"INFO\""), "{line}");
    let old = directory.path().join("app.log.1");
    for signal in ["USR1", "HUP"] {
        std::fs::rename(&log, &old).unwrap();
        if signal == "HUP" {
            // The program that it becomes goes on to read what workers say.
            runner.signal("HUP");
            wait_for("the reload", || {
                text(&old).contains("the new workers serve") || text(&log).contains("the new workers serve")
            });
        }
        runner.signal("USR1");
        wait_for("a new file", || text(&log).contains("opened again"));
    }
}

#[test]
fn a_service_manager_is_told() {
    let directory = Directory::new();
    let manager = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let script = directory
        .file(
            "s.lua",
            "print('Content-Type: text/plain\\n') print(os.getenv('NOTIFY_SOCKET'), os.getenv('WATCHDOG_USEC'))",
        )
        .display()
        .to_string();
    let address = directory.socket("s");
    for workers in [&["--workers", "1"][..], &[]] {
        let mut command = Command::new(FCGI_LUA);
        command.args(["--listen", &address]).args(workers).arg(&script);
        command.env("NOTIFY_SOCKET", directory.path().join("notify")).env("WATCHDOG_USEC", "100000");
        let mut runner = Running::start(command.stdin(Stdio::null()).stderr(Stdio::null()));
        let end = Instant::now() + PATIENCE;
        let told = |what: &str| loop {
            assert!(Instant::now() < end, "in vain: {what}");
            let mut buffer = [0; 512];
            let count = manager.recv(&mut buffer).unwrap_or_else(|e| panic!("{what}: {e}"));
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.contains(what) {
                return text;
            }
        };
        told("READY=1");
        if !workers.is_empty() {
            told("STATUS=serving with 1 workers");
        }
        assert_eq!(ask(&address), "nil\tnil\n", "a script cannot speak for the server");
        told("WATCHDOG=1");
        told("WATCHDOG=1");
        if !workers.is_empty() {
            runner.signal("HUP");
            assert!(told("RELOADING=1").contains("MONOTONIC_USEC="));
            told("READY=1");
            told("WATCHDOG=1");
            assert_eq!(ask(&address), "nil\tnil\n");
            // One that cannot be done ends, too.
            std::fs::rename(&script, directory.path().join("away")).unwrap();
            runner.signal("HUP");
            told("RELOADING=1");
            told("READY=1");
            std::fs::rename(directory.path().join("away"), &script).unwrap();
        }
        runner.signal("TERM");
        told("STOPPING=1");
        assert_eq!(runner.wait(PATIENCE).0, Some(0));
    }
}

#[test]
fn units_are_right_and_hardened() {
    let directory = Directory::new();
    for language in ["lua", "python", "rhai"] {
        // The program need not be installed for the unit to be looked at.
        let unit =
            std::fs::read_to_string(repository().join(format!("examples/servers/fcgi-{language}.service"))).unwrap();
        let unit = unit.replace(&format!("/usr/local/bin/fcgi-{language}"), "/bin/true");
        let service = directory.file(&format!("fcgi-{language}.service"), unit);
        let socket =
            std::fs::read_to_string(repository().join(format!("examples/servers/fcgi-{language}.socket"))).unwrap();
        let socket = directory.file(&format!("fcgi-{language}.socket"), socket);
        for arguments in [
            vec!["verify", "--man=no", "--recursive-errors=no", service.to_str().unwrap(), socket.to_str().unwrap()],
            vec!["security", "--offline=true", "--threshold=20", service.to_str().unwrap()],
        ] {
            let output = Command::new("systemd-analyze").args(&arguments).output().expect("tests/run installs systemd");
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said);
            assert!(output.status.success(), "{arguments:?}: {said}");
            assert!(!said.contains("Unknown key") && !said.contains("Unknown section"), "{said}");
        }
    }
}

#[test]
fn sockets_of_systemd_stay_open_over_a_reload() {
    let directory = Directory::new();
    let script = directory.file("s.lua", "print('Content-Type: text/plain\\n') print(os.getenv('LISTEN_FDS'))");
    let address = directory.socket("s");
    let mut command = Command::new("systemd-socket-activate");
    command
        .arg("--listen")
        .arg(address.strip_prefix("unix:").unwrap())
        .arg(FCGI_LUA)
        .args(["--workers", "2"])
        .arg(&script);
    let runner = Running::start(command.stdin(Stdio::null()).stderr(Stdio::null()));
    drop(connect(&address));
    for _ in 0..3 {
        assert_eq!(ask(&address), "nil\n");
        runner.signal("HUP");
    }
    assert_eq!(ask(&address), "nil\n");
}
