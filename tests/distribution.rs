//! Several hosts behind one balancer: network namespaces of this machine, with a wire of its own to each. What a host that is
//! taken down, or that vanishes without a closing packet, costs the clients of HAProxy and nginx, whose configurations are
//! those of the examples.
//!
//! Namespaces need root: without it these tests fail.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::support::{Directory, FCGI_LUA, Running, repository};

/// A network of one balancer (10.77.N.1 on each wire) and two hosts (10.77.N.2 at their ends).
struct Network {
    name: String,
}

const BALANCER: &str = "web";
const HOSTS: [&str; 2] = ["one", "two"];

impl Network {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let network = Self { name: format!("fcgi-{}-{number}", std::process::id()) };
        for host in [BALANCER].iter().chain(&HOSTS) {
            ip(&format!("netns add {}", network.host(host)));
            ip(&format!("-n {} link set lo up", network.host(host)));
        }
        let balancer = network.host(BALANCER);
        for (number, host) in (1..).zip(HOSTS) {
            let at = network.host(host);
            ip(&format!("link add to-{host} netns {balancer} type veth peer name wire netns {at}"));
            ip(&format!("-n {balancer} addr add 10.77.{number}.1/24 dev to-{host}"));
            ip(&format!("-n {at} addr add 10.77.{number}.2/24 dev wire"));
            ip(&format!("-n {balancer} link set to-{host} up"));
            ip(&format!("-n {at} link set wire up"));
        }
        network
    }

    fn host(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    /// A command that runs on a host.
    fn command(&self, host: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.host(host), program]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Cuts a host's wire, or mends it.
    fn wire(&self, host: &str, state: &str) {
        ip(&format!("-n {} link set wire {state}", self.host(host)));
    }

    /// A runner on a host, whose script says where it runs.
    fn runner(&self, directory: &Directory, host: &str, arguments: &[&str]) -> Running {
        let script = directory.file("app.lua", "print('Content-Type: text/plain\\n')\nprint(os.getenv('TEST_HOST'))");
        let mut command = self.command(host, FCGI_LUA);
        command.env("TEST_HOST", host).args(["--listen", "*:9000"]).args(arguments).arg(script);
        Running::start(&mut command)
    }

    /// Waits until the runners of all hosts listen.
    fn wait_for_runners(&self) {
        let end = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                self.enter(BALANCER);
                for number in 1..=HOSTS.len() {
                    while TcpStream::connect(format!("10.77.{number}.2:9000")).is_err() {
                        assert!(Instant::now() < end, "host {number} does not listen");
                        std::thread::sleep(Duration::from_millis(20));
                    }
                }
            });
        });
    }

    /// Moves the calling thread to a host: the sockets that it makes from now on are there.
    fn enter(&self, host: &str) {
        let namespace = File::open(Path::new("/run/netns").join(self.host(host))).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for host in [BALANCER].iter().chain(&HOSTS) {
            let _ = Command::new("ip").args(["netns", "del", &self.host(host)]).status();
        }
    }
}

fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).output().expect("ip of iproute2 (tests/run installs it)");
    assert!(done.status.success(), "ip {arguments}: {} (is this root?)", String::from_utf8_lossy(&done.stderr));
}

/// Clients that ask without a pause.
struct Load {
    stop: AtomicBool,
    answers: Mutex<Vec<Answer>>,
}

struct Answer {
    client: usize,
    /// The host that answered, or what went wrong.
    text: Result<String, String>,
    asked: Instant,
    took: Duration,
}

impl Load {
    const CLIENTS: usize = 8;

    fn new() -> Self {
        Self { stop: AtomicBool::new(false), answers: Mutex::default() }
    }

    fn start<'s, 'e>(&'e self, scope: &'s Scope<'s, 'e>, network: &'e Network) -> Vec<ScopedJoinHandle<'s, ()>> {
        let client = move |client| {
            network.enter(BALANCER);
            while !self.stop.load(Ordering::Relaxed) {
                let asked = Instant::now();
                let text = ask();
                self.answers.lock().unwrap().push(Answer { client, text, asked, took: asked.elapsed() });
            }
        };
        (0..Self::CLIENTS).map(|number| scope.spawn(move || client(number))).collect()
    }

    /// Waits until each client has an answer to what it asked from now on.
    fn settle(&self) {
        let since = Instant::now();
        let end = since + Duration::from_secs(60);
        let answered = |client| self.answers.lock().unwrap().iter().any(|a| a.client == client && a.asked > since);
        while !(0..Self::CLIENTS).all(answered) {
            assert!(Instant::now() < end, "some clients get no answers");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// No request failed; gives how many there were, and what the longest took.
    fn report(&self, what: &str) {
        let answers = self.answers.lock().unwrap();
        let failed: Vec<_> = answers.iter().filter_map(|a| a.text.as_ref().err()).collect();
        let first = failed.first();
        let slowest = answers.iter().map(|a| a.took).max().unwrap_or_default();
        println!("{what}: {} requests, {} failed, the slowest took {slowest:?}", answers.len(), failed.len());
        assert!(failed.is_empty(), "{what}: {} of {} failed, the first: {first:?}", failed.len(), answers.len());
    }

    /// Which hosts answered what was asked after this moment.
    fn hosts_since(&self, moment: Instant) -> Vec<String> {
        let answers = self.answers.lock().unwrap();
        let mut hosts: Vec<_> =
            answers.iter().filter(|a| a.asked > moment).filter_map(|a| a.text.clone().ok()).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts
    }
}

fn ask() -> Result<String, String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let answer = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect(address)?;
        socket.set_read_timeout(Some(Duration::from_secs(60)))?;
        socket.write_all(b"GET /app.lua HTTP/1.0\r\nHost: test\r\n\r\n")?;
        let mut text = String::new();
        socket.read_to_string(&mut text)?;
        Ok(text)
    };
    let text = answer().map_err(|e| e.to_string())?;
    match text.split_once("\r\n\r\n") {
        Some((head, body)) if head.split(' ').nth(1) == Some("200") => Ok(body.trim().to_owned()),
        _ => Err(text),
    }
}

#[derive(Clone, Copy)]
enum Balancer {
    Haproxy,
    Nginx,
}

impl Balancer {
    fn start(self, network: &Network, directory: &Directory) -> Running {
        let examples = repository().join("examples/servers");
        let mut command = match self {
            Self::Haproxy => {
                let mut command = network.command(BALANCER, "haproxy");
                command.arg("-db").arg("-f").arg(examples.join("haproxy-hosts.cfg"));
                command
            }
            Self::Nginx => {
                let path = directory.path().display();
                std::fs::copy(examples.join("nginx-fastcgi.conf"), directory.path().join("fastcgi.conf")).unwrap();
                let hosts = examples.join("nginx-hosts.conf");
                let configuration = format!(
                    "user root; daemon off; worker_processes 2; pid {path}/nginx.pid; error_log {path}/error.log;
                     events {{ worker_connections 512; }}
                     http {{
                       access_log off;
                       client_body_temp_path {path}/body; fastcgi_temp_path {path}/fastcgi;
                       proxy_temp_path {path}/proxy; uwsgi_temp_path {path}/uwsgi; scgi_temp_path {path}/scgi;
                       include {};
                     }}",
                    hosts.display()
                );
                let mut command = network.command(BALANCER, "nginx");
                command.arg("-c").arg(directory.file("nginx.conf", configuration));
                command.arg("-e").arg(directory.path().join("start.log"));
                command
            }
        };
        let running = Running::start(command.current_dir(directory.path()));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                network.enter(BALANCER);
                let end = Instant::now() + Duration::from_secs(60);
                while ask().is_err() {
                    assert!(Instant::now() < end, "the balancer does not answer (is it installed? tests/run does it)");
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
        });
        running
    }

    fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "HAProxy",
            Self::Nginx => "nginx",
        }
    }
}

/// What happens to one of two hosts while clients ask, and when it is back.
fn with_load(balancer: Balancer, what: &str, incident: impl FnOnce(&Network, &Directory, &Load, &mut Running)) {
    let directory = Directory::new();
    let network = Network::new();
    let arguments = ["--workers", "2", "--allow", "10.77.0.0/16", "--ping", "/ping"];
    let mut one = network.runner(&directory, "one", &arguments);
    let _two = network.runner(&directory, "two", &arguments);
    // A balancer that finds no host at first does not look again for a while.
    network.wait_for_runners();
    let _balancer = balancer.start(&network, &directory);
    let load = Load::new();
    std::thread::scope(|scope| {
        let clients = load.start(scope, &network);
        // What fails in here must end the clients as well.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            both_answer(&load);
            incident(&network, &directory, &load, &mut one);
        }));
        load.end();
        clients.into_iter().for_each(|client| client.join().unwrap());
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    load.report(&format!("{}, {what}", balancer.name()));
}

fn both_answer(load: &Load) {
    let since = Instant::now();
    let end = since + Duration::from_secs(60);
    while load.hosts_since(since) != HOSTS {
        assert!(Instant::now() < end, "not both hosts answer");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A host whose wire is cut says nothing any more, to nobody.
fn vanishes(network: &Network, _: &Directory, load: &Load, _: &mut Running) {
    network.wire("one", "down");
    load.settle();
    let away = Instant::now();
    load.settle();
    network.wire("one", "up");
    both_answer(load);
    assert!(load.hosts_since(away).contains(&"two".to_owned()));
}

/// A host that is taken down for maintenance, and started again.
fn is_drained(network: &Network, directory: &Directory, load: &Load, one: &mut Running) {
    one.signal("TERM");
    assert_eq!(one.wait(Duration::from_secs(60)).0, Some(0));
    let away = Instant::now();
    load.settle();
    assert_eq!(load.hosts_since(away), ["two"]);
    *one = network.runner(directory, "one", &["--workers", "2"]);
    both_answer(load);
}

#[test]
fn haproxy_when_a_host_vanishes() {
    with_load(Balancer::Haproxy, "a host vanishes", vanishes);
}

#[test]
fn haproxy_when_a_host_is_drained() {
    with_load(Balancer::Haproxy, "a host is drained", is_drained);
}

#[test]
fn nginx_when_a_host_vanishes() {
    with_load(Balancer::Nginx, "a host vanishes", vanishes);
}

#[test]
fn nginx_when_a_host_is_drained() {
    with_load(Balancer::Nginx, "a host is drained", is_drained);
}

#[test]
fn strangers_are_refused() {
    let directory = Directory::new();
    let network = Network::new();
    let balancer = network.host(BALANCER);
    // The same machine under another address, which is not allowed.
    ip(&format!("-n {balancer} addr add 10.77.1.3/24 dev to-one"));
    let by_option = ["--allow", "10.77.1.1"];
    for (arguments, list) in [(&by_option[..], ""), (&[], "10.77.1.1,10.77.9.9")] {
        let script = directory.file("app.lua", "print('Content-Type: text/plain\\n\\nhere')");
        let mut command = network.command("one", FCGI_LUA);
        command.env("FCGI_WEB_SERVER_ADDRS", list).args(["--listen", "10.77.1.2:9000"]).args(arguments).arg(script);
        let _running = Running::start(&mut command);
        let end = Instant::now() + Duration::from_secs(60);
        let asked_from = |source: &str| {
            let client = env!("CARGO_BIN_EXE_fcgi");
            let mut command = network.command(BALANCER, client);
            // The route's source is the client's address.
            ip(&format!("-n {balancer} route replace 10.77.1.2 dev to-one src {source}"));
            let done = command.arg("10.77.1.2:9000").stdout(Stdio::piped()).output().unwrap();
            String::from_utf8_lossy(&done.stdout).contains("here")
        };
        while !asked_from("10.77.1.1") {
            assert!(Instant::now() < end, "a friend is not served");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(!asked_from("10.77.1.3"), "a stranger is served");
        assert!(asked_from("10.77.1.1"));
    }
}
