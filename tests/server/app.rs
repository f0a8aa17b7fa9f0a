//! A server in threads of the test process, and a program whose behaviour each request chooses by its variable `TEST`.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fcgi_core::server::Builder;
use fcgi_core::{Address, Request, Role, Server, ServerConfig};

use crate::client::{Client, PATIENCE};

/// A folder that goes with its value.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::SeqCst);
        let path = std::env::temp_dir().join(format!("fcgi-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn socket(&self) -> Address {
        Address::Unix(self.0.join("app.sock"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the program and the test tell each other.
#[derive(Default)]
pub struct Notes {
    said: Mutex<HashSet<String>>,
    news: Condvar,
}

impl Notes {
    pub fn say(&self, text: impl Into<String>) {
        self.said.lock().unwrap().insert(text.into());
        self.news.notify_all();
    }

    /// Waits until somebody has said it; whether that was in time.
    pub fn hears(&self, text: &str, patience: Duration) -> bool {
        let said = self.said.lock().unwrap();
        let (said, _) = self.news.wait_timeout_while(said, patience, |said| !said.contains(text)).unwrap();
        said.contains(text)
    }

    pub fn wait(&self, text: &str) {
        assert!(self.hears(text, PATIENCE), "nobody said '{text}', only {:?}", self.said.lock().unwrap());
    }

    pub fn heard(&self, text: &str) -> bool {
        self.said.lock().unwrap().contains(text)
    }
}

pub struct App {
    pub server: Arc<Server>,
    pub notes: Arc<Notes>,
    pub address: Address,
    threads: Vec<JoinHandle<()>>,
    _folder: Folder,
}

impl App {
    /// One thread, a unix socket, the usual limits.
    pub fn new() -> Self {
        Self::with(|_| ())
    }

    pub fn threads(threads: usize) -> Self {
        Self::with(|config| config.threads = threads)
    }

    pub fn with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = Folder::new();
        let builder = Server::builder().listen(&folder.socket()).unwrap();
        Self::start(builder, folder, change)
    }

    pub fn tcp(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let builder = Server::builder().listen(&"127.0.0.1:0".parse().unwrap()).unwrap();
        Self::start(builder, Folder::new(), change)
    }

    pub fn start(builder: Builder, folder: Folder, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig::default();
        change(&mut config);
        let count = config.threads;
        let server = Arc::new(builder.config(config).start().unwrap());
        let notes = Arc::new(Notes::default());
        let address = server.addresses()[0].clone();
        let threads = (0..count)
            .map(|_| {
                let (server, notes) = (server.clone(), notes.clone());
                std::thread::spawn(move || serve(&server, &notes))
            })
            .collect();
        Self { server, notes, address, threads, _folder: folder }
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// All threads have been told that there is no more work.
    pub fn expect_stopped(&self) {
        assert!(self.stops(), "a thread still waits for requests");
    }

    fn stops(&self) -> bool {
        until(|| self.threads.iter().all(JoinHandle::is_finished))
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.drain();
        if !std::thread::panicking() {
            self.expect_stopped();
        }
    }
}

/// Waits until something is so; whether it came to be in time.
pub fn until(condition: impl Fn() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

pub fn serve(server: &Server, notes: &Notes) {
    while let Some(request) = server.accept().unwrap() {
        // As an interpreter's thread does: what one request breaks must not take the thread along.
        let _ = std::panic::catch_unwind(AssertUnwindSafe(move || {
            let mut request = request;
            match run(&mut request, notes) {
                Ok(status) => drop(request.finish(status)),
                Err(e) => {
                    notes.say(format!("{} failed: {:?}", name(&request), e.kind()));
                    let _ = request.finish(1);
                }
            }
        }));
    }
}

fn name(request: &Request) -> String {
    request.params().get_str("NAME").unwrap_or("it").to_owned()
}

fn number(request: &Request, name: &str) -> u64 {
    request.params().get_str(name).and_then(|v| v.parse().ok()).unwrap_or_else(|| panic!("{name} is no number"))
}

const HEADER: &[u8] = b"Content-Type: text/plain\r\n\r\n";

fn run(request: &mut Request, notes: &Notes) -> io::Result<u32> {
    let name = name(request);
    notes.say(format!("{name} started"));
    match request.params().get_str("TEST").unwrap_or("hello") {
        "hello" => {
            request.stdout().write_all(HEADER)?;
            request.stdout().write_all(b"hello")?;
        }
        "silent" => {}
        "thread" => {
            let thread = std::thread::current().id();
            write!(request.stdout(), "Content-Type: text/plain\r\n\r\n{thread:?}")?;
        }
        "env" => {
            let mut list = HEADER.to_vec();
            for (name, value) in request.params() {
                list.extend_from_slice(&listed(name, value));
            }
            request.stdout().write_all(&list)?;
        }
        "sleep" => {
            std::thread::sleep(Duration::from_millis(number(request, "MS")));
            request.stdout().write_all(HEADER)?;
        }
        "big" => {
            let mut left = number(request, "SIZE") as usize;
            let chunk = vec![b'x'; 64 << 10];
            request.stdout().write_all(HEADER)?;
            while left > 0 {
                let count = left.min(chunk.len());
                request.stdout().write_all(&chunk[..count])?;
                left -= count;
            }
        }
        "room" => {
            for _ in 0..3 {
                let room = request.room();
                request.stdout().write_all(&vec![b'x'; room])?;
                request.stdout().write_all(b"")?;
                assert_eq!(request.room(), 0);
                request.stdout().flush()?;
            }
        }
        "break-off" => {
            request.stdout().write_all(HEADER)?;
            request.break_off()?;
            assert!(request.is_finished());
        }
        "flush" => {
            request.stdout().write_all(HEADER)?;
            request.stdout().flush()?;
            wait_for(notes, &format!("{name} may go on"))?;
            request.stdout().write_all(b"after")?;
        }
        "stderr" => {
            request.stderr().write_all(b"a complaint")?;
            request.stdout().write_all(HEADER)?;
        }
        // Until the test says so; then the body is read.
        "gate" => {
            wait_for(notes, &format!("{name} may go on"))?;
            let mut body = Vec::new();
            request.stdin().read_to_end(&mut body)?;
            request.stdout().write_all(&[HEADER, &body].concat())?;
        }
        "meet" => {
            // Answers only when the other one runs at the same time.
            wait_for(notes, &format!("{} started", request.params().get_str("OTHER").unwrap_or_default()))?;
            request.stdout().write_all(&[HEADER, b"met"].concat())?;
        }
        // Until the request is no longer wanted.
        "abort-wait" => {
            let deadline = Instant::now() + PATIENCE;
            while !request.is_aborted() {
                if Instant::now() > deadline {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                std::thread::sleep(Duration::from_millis(2));
            }
            notes.say(format!("{name} aborted"));
            request.stdout().write_all(HEADER)?;
            return Ok(3);
        }
        "exit" => {
            request.stdout().write_all(HEADER)?;
            return Ok(number(request, "STATUS") as u32);
        }
        "panic" => panic!("on purpose"),
        "role" => {
            let role = request.role();
            let rest = if role == Role::Authorizer { "Variable-USER: me\r\n" } else { "" };
            write!(request.stdout(), "Status: 200\r\n{rest}\r\n{}", role.name())?;
        }
        _ => return read(request).map(|()| 0),
    }
    Ok(0)
}

/// Programs that read.
fn read(request: &mut Request) -> io::Result<()> {
    match request.params().get_str("TEST").unwrap_or_default() {
        "echo" => {
            request.stdout().write_all(HEADER)?;
            let mut chunk = vec![0; 64 << 10];
            loop {
                let count = request.stdin().read(&mut chunk)?;
                if count == 0 {
                    break;
                }
                request.stdout().write_all(&chunk[..count])?;
            }
        }
        "count" => {
            let count = io::copy(&mut request.stdin(), &mut io::sink())?;
            write!(request.stdout(), "Content-Type: text/plain\r\n\r\n{count}")?;
        }
        "filter" => {
            let (mut stdin, mut data) = (Vec::new(), Vec::new());
            request.stdin().read_to_end(&mut stdin)?;
            request.data().read_to_end(&mut data)?;
            request.stdout().write_all(&[HEADER, &stdin, b"|", &data].concat())?;
        }
        "data-only" => {
            let count = io::copy(&mut request.data(), &mut io::sink())?;
            write!(request.stdout(), "Content-Type: text/plain\r\n\r\n{count}")?;
        }
        "partial-read" => {
            let mut part = vec![0; number(request, "READ") as usize];
            request.stdin().read_exact(&mut part)?;
            request.stdout().write_all(HEADER)?;
            request.stdout().write_all(&part)?;
        }
        other => panic!("no such test: {other}"),
    }
    Ok(())
}

fn wait_for(notes: &Notes, text: &str) -> io::Result<()> {
    if notes.hears(text, PATIENCE) { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
}

/// How `TEST=env` shows a variable: lengths first, so that any bytes can stand in it.
pub fn listed(name: &[u8], value: &[u8]) -> Vec<u8> {
    [format!("{}+{}:", name.len(), value.len()).as_bytes(), name, value].concat()
}
