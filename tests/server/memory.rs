//! What the server costs, measured in a process of its own: other tests run in this one.

use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};

use fcgi_core::{Address, Reactor, Server, ServerConfig};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::app::{Folder, Notes, serve, until};
use crate::client::{Client, KEEP, STDIN, Wire};
use crate::polled_app::turn_until_stopped;

const SOCKET: &str = "FCGI_TEST_SOCKET";
const THREADS: &str = "FCGI_TEST_THREADS";
/// Instead of a number of threads: an event loop.
const POLLED: usize = 0;

/// Lifts the limit of open descriptors as far as it goes.
fn lift_limit() -> usize {
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    hard.map_or(usize::MAX, |n| n as usize)
}

#[test]
#[ignore = "the other tests of this file run it, in a process of its own"]
fn server_process() {
    let Ok(address) = std::env::var(SOCKET) else { return };
    lift_limit();
    let threads: usize = std::env::var(THREADS).unwrap().parse().unwrap();
    let config = ServerConfig { threads: threads.max(1), ..ServerConfig::default() };
    // Standard input ends when whoever started us does.
    let stop = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let server = Server::builder().listen(&address.parse().unwrap()).unwrap().drain_on(stop).config(config).start();
    let (server, notes) = (server.unwrap(), Notes::default());
    if threads == POLLED {
        return turn_until_stopped(Reactor::new(server.into()), &notes);
    }
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| serve(&server, &notes));
        }
    });
}

struct Process {
    child: Child,
    address: Address,
    _folder: Folder,
}

impl Process {
    fn new(threads: usize) -> Self {
        let folder = Folder::new();
        let address = folder.socket();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "memory::server_process", "--ignored"])
            .envs([(SOCKET, address.to_string()), (THREADS, threads.to_string())])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let process = Self { child, address, _folder: folder };
        assert!(until(|| Client::try_connect(&process.address).is_ok()), "the server does not start");
        process
    }

    /// A line of /proc/PID/status that counts KiB, in bytes: `VmRSS` is memory now, `VmHWM` the most there was.
    fn memory(&self, name: &str) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let mut status = None;
        for _ in 0..3_000 {
            status = self.child.try_wait().unwrap();
            if status.is_some() {
                break;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        if !std::thread::panicking() {
            assert!(status.is_some_and(|s| s.success()), "the server did not stop well: {status:?}");
        }
    }
}

/// 256 MiB, in records of the largest size.
const LONG: usize = 4096 * 65_535;
/// What the server may need for them: some buffers, and the allocator's slack.
const A_FEW_BUFFERS: usize = 8 << 20;

#[test]
fn long_bodies_pass_through() {
    let_long_bodies_pass(&Process::new(1));
}

#[test]
fn long_bodies_pass_through_an_event_loop() {
    let_long_bodies_pass(&Process::new(POLLED));
}

fn let_long_bodies_pass(process: &Process) {
    let mut client = Client::connect(&process.address);
    client.expect_alive();
    let before = process.memory("VmHWM");
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "count")]));
    let record = Wire::new().record(STDIN, 1, &vec![b'x'; 65_535]).bytes;
    for _ in 0..4096 {
        client.send_bytes(&record);
    }
    client.send(&Wire::new().end(STDIN, 1));
    assert_eq!(client.answer(1).body_text(), LONG.to_string());

    client.send(&Wire::new().request(1, KEEP, &[("TEST", "big"), ("SIZE", &LONG.to_string())], b""));
    assert_eq!(client.skip_answer(1), LONG + b"Content-Type: text/plain\r\n\r\n".len());

    // Both ways at once.
    client.send(&Wire::new().head(1, KEEP, &[("TEST", "echo")]));
    let mut writer = client.writer();
    let sending = std::thread::spawn(move || {
        (0..1024).try_for_each(|_| writer.write_all(&record))?;
        writer.write_all(&Wire::new().end(STDIN, 1).bytes)
    });
    assert_eq!(client.skip_answer(1), LONG / 4 + b"Content-Type: text/plain\r\n\r\n".len());
    sending.join().unwrap().unwrap();

    let grown = process.memory("VmHWM") - before;
    assert!(grown < A_FEW_BUFFERS, "{grown} bytes more");
}

#[test]
fn a_body_that_nobody_reads_is_not_kept() {
    for threads in [1, 2] {
        let process = Process::new(threads);
        let mut client = Client::connect(&process.address);
        client.expect_alive();
        let before = process.memory("VmHWM");
        client.send(&Wire::new().head(1, KEEP, &[("TEST", "partial-read"), ("READ", "1")]));
        let record = Wire::new().record(STDIN, 1, &vec![b'x'; 65_535]).bytes;
        for _ in 0..1024 {
            client.send_bytes(&record);
        }
        client.send(&Wire::new().end(STDIN, 1));
        assert_eq!(client.answer(1).body(), b"x");
        let grown = process.memory("VmHWM") - before;
        assert!(grown < A_FEW_BUFFERS, "{grown} bytes more");
    }
}

#[test]
fn an_event_loop_keeps_little_of_what_nobody_takes() {
    let process = Process::new(POLLED);
    let mut client = Client::connect(&process.address);
    client.expect_alive();
    let before = process.memory("VmHWM");
    // Answers that nobody reads, on one connection and on many.
    let ids: Vec<u16> = (1..=50).collect();
    let pairs = [("TEST", "big"), ("SIZE", "4000000")];
    client.send(&ids.iter().fold(Wire::new(), |wire, id| wire.request(*id, KEEP, &pairs, b"")));
    let mut others: Vec<Client> = (0..50).map(|_| Client::connect(&process.address)).collect();
    for other in &mut others {
        other.send(&Wire::new().request(1, KEEP, &pairs, b""));
    }
    // A body that its program does not read for now.
    let pairs = [("TEST", "meet"), ("OTHER", "last")];
    let mut sender = Client::connect(&process.address);
    sender.send(&Wire::new().head(1, KEEP, &pairs));
    let mut writer = sender.writer();
    let sending = std::thread::spawn(move || {
        let record = Wire::new().record(STDIN, 1, &[b'x'; 65_535]).bytes;
        (0..500).try_for_each(|_| writer.write_all(&record))?;
        writer.write_all(&Wire::new().end(STDIN, 1).bytes)
    });
    Client::connect(&process.address).expect_alive();
    let mut open = ids;
    while !open.is_empty() {
        let (id, answer) = client.any_answer(&open);
        assert_eq!(answer.body().len(), 4_000_000);
        open.retain(|o| *o != id);
    }
    for other in &mut others {
        assert_eq!(other.skip_answer(1), 4_000_000 + b"Content-Type: text/plain\r\n\r\n".len());
    }
    let mut last = Client::connect(&process.address);
    assert_eq!(last.ask(&[("NAME", "last")], b"").body(), b"hello");
    assert_eq!(sender.skip_answer(1), 500 * 65_535 + b"Content-Type: text/plain\r\n\r\n".len());
    sending.join().unwrap().unwrap();
    // One hundred requests with two buffers each, and not 400 MB.
    let grown = process.memory("VmHWM") - before;
    assert!(grown < 100 * (128 << 10) + A_FEW_BUFFERS, "{grown} bytes more");
}

#[test]
fn idle_connections_cost_little() {
    // Enough to be seen among pages of 4 KiB, and some descriptors left for the tests beside this one.
    let count = 10_000.min(lift_limit().saturating_sub(1_000));
    assert!(count >= 2_000, "too few descriptors are allowed here");
    let process = Process::new(1);
    let open = |count: usize| -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| Client::connect(&process.address)).collect();
        clients.iter_mut().for_each(Client::expect_alive);
        clients
    };
    let first = open(100);
    let (before, descriptors) = (process.memory("VmRSS"), process.descriptors());
    let clients = open(count);
    assert_eq!(process.descriptors(), descriptors + count);
    let full = process.memory("VmRSS");
    let each = full.saturating_sub(before) / count;
    assert!(each < 1024, "{each} bytes for each idle connection");
    drop(clients);
    assert!(until(|| process.descriptors() == descriptors), "descriptors stay open");
    // Those that come later cost nothing new.
    let again = open(count);
    let grown = process.memory("VmRSS").saturating_sub(full);
    assert!(grown < 1 << 20, "{grown} bytes more in the second round");
    drop((first, again));
}

#[test]
fn requests_leave_nothing_behind() {
    let process = Process::new(2);
    let mut kept = Client::connect(&process.address);
    let round = |kept: &mut Client, times: usize| {
        for _ in 0..times {
            assert_eq!(kept.ask(&[("TEST", "echo")], &[b'x'; 10_000]).body().len(), 10_000);
            // One that breaks off, one that is refused, one that is taken back, one that fails.
            Client::connect(&process.address)
                .send(&Wire::new().head(1, KEEP, &[("TEST", "echo")]).stream(STDIN, 1, b"x"));
            kept.send(&Wire::new().begin(1, 99, KEEP));
            kept.answer(1);
            kept.send(&Wire::new().head(1, KEEP, &[("TEST", "echo")]).end(crate::client::ABORT, 1));
            kept.answer(1);
            assert_eq!(kept.ask(&[("TEST", "exit"), ("STATUS", "3")], b"").app_status, 3);
        }
    };
    round(&mut kept, 200);
    let (before, descriptors) = (process.memory("VmRSS"), process.descriptors());
    round(&mut kept, 2_000);
    let grown = process.memory("VmRSS").saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} bytes more after 2000 rounds");
    assert!(until(|| process.descriptors() <= descriptors), "descriptors stay open");
}
