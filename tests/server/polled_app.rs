//! A server in the hands of an event loop, in one thread, and programs that are chosen as those of `app` are. A program goes
//! on only when an event says that it can, or when the test has said what it waits for.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use fcgi_core::request::Input;
use fcgi_core::server::Builder;
use fcgi_core::{Address, Event, PolledRequest, Reactor, Server, ServerConfig};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::app::{Folder, Notes};
use crate::client::Client;

pub struct Polled {
    pub server: Arc<Server>,
    pub notes: Arc<Notes>,
    pub address: Address,
    thread: Option<JoinHandle<()>>,
    _folder: Folder,
}

impl Polled {
    pub fn new() -> Self {
        Self::with(|_| ())
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
        let server = Arc::new(builder.config(config).start().unwrap());
        let notes = Arc::new(Notes::default());
        let address = server.addresses()[0].clone();
        let thread = {
            let (server, notes) = (server.clone(), notes.clone());
            std::thread::spawn(move || turn_until_stopped(Reactor::new(server), &notes))
        };
        Self { server, notes, address, thread: Some(thread), _folder: folder }
    }

    pub fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// The loop has ended by itself.
    pub fn expect_stopped(&mut self) {
        let thread = self.thread.take().unwrap();
        assert!(crate::app::until(|| thread.is_finished()), "the loop still runs");
        thread.join().unwrap();
    }
}

impl Drop for Polled {
    fn drop(&mut self) {
        self.server.drain();
        if !std::thread::panicking() && self.thread.is_some() {
            self.expect_stopped();
        }
    }
}

/// The event loop.
pub fn turn_until_stopped(mut reactor: Reactor, notes: &Notes) {
    let mut running: HashMap<u64, Program> = HashMap::new();
    let mut events = Vec::new();
    while reactor.turn(&mut events).unwrap() {
        let mut can_go_on: Vec<(u64, bool)> = Vec::new();
        for event in events.drain(..) {
            match event {
                Event::Request(request) => {
                    let program = Program::new(request);
                    notes.say(format!("{} started", program.name));
                    can_go_on.push((program.request.key(), false));
                    assert!(running.insert(program.request.key(), program).is_none(), "a key twice");
                }
                Event::Readable(key) | Event::Writable(key) => can_go_on.push((key, false)),
                Event::Aborted(key) => can_go_on.push((key, true)),
            }
        }
        let gated = running.iter().filter(|(_, program)| program.may_pass(notes)).map(|(key, _)| (*key, false));
        can_go_on.extend(gated);
        for (key, aborted) in can_go_on {
            // It may have ended by what came before.
            if let Some(program) = running.get_mut(&key)
                && program.go_on(aborted, notes)
            {
                running.remove(&key);
            }
        }
        // Tests say things that no descriptor tells.
        let has_gate = running.values().any(|program| program.gate.is_some());
        let timeout = if has_gate { Some(Duration::from_millis(2)) } else { reactor.timeout() };
        let timeout = timeout.map(|timeout| Timespec::try_from(timeout).unwrap());
        let _ = poll(&mut [PollFd::new(&reactor, PollFlags::IN)], timeout.as_ref());
    }
    assert!(running.is_empty(), "the server has stopped before its requests");
}

const HEADER: &[u8] = b"Content-Type: text/plain\r\n\r\n";

struct Program {
    request: PolledRequest,
    name: String,
    test: String,
    /// What must have been said before it goes on.
    gate: Option<String>,
    /// Output that has not been taken.
    out: Vec<u8>,
    /// Bytes still to be made, or counted so far.
    count: usize,
    step: u32,
}

impl Program {
    fn new(request: PolledRequest) -> Self {
        let param = |name: &str| request.params().get_str(name).map(str::to_owned);
        let name = param("NAME").unwrap_or_else(|| "it".to_owned());
        let test = param("TEST").unwrap_or_else(|| "hello".to_owned());
        let has_gate = matches!(&test[..], "gate" | "flush");
        let gate = has_gate.then(|| format!("{name} may go on"));
        let gate = param("OTHER").map(|other| format!("{other} started")).or(gate);
        let count = param("SIZE").map_or(0, |size| size.parse().unwrap());
        Self { gate, out: HEADER.to_vec(), count, step: 0, name, test, request }
    }

    fn may_pass(&self, notes: &Notes) -> bool {
        self.gate.as_ref().is_some_and(|gate| notes.heard(gate))
    }

    /// Goes on as far as it can; whether it has ended.
    fn go_on(&mut self, aborted: bool, notes: &Notes) -> bool {
        if aborted {
            notes.say(format!("{} aborted", self.name));
        }
        if self.may_pass(notes) {
            self.gate = None;
            self.step += 1;
        }
        match self.run(aborted, notes) {
            Ok(status) => {
                let _ = self.request.finish(status);
                true
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => false,
            Err(e) => {
                notes.say(format!("{} failed: {:?}", self.name, e.kind()));
                if self.test != "dropped" {
                    let _ = self.request.finish(1);
                }
                true
            }
        }
    }

    fn run(&mut self, aborted: bool, notes: &Notes) -> io::Result<u32> {
        match &self.test[..] {
            "hello" => {
                self.end_with(b"hello")?;
            }
            "stderr" => {
                assert_eq!(self.request.try_write_error(b"a complaint")?, 11);
                self.write()?;
            }
            "exit" => {
                self.write()?;
                return Ok(7);
            }
            "big" => {
                let piece = [b'x'; 10_000];
                self.write()?;
                while self.count > 0 {
                    let now = self.count.min(piece.len());
                    self.count -= self.request.try_write(&piece[..now])?;
                }
            }
            "count" => {
                self.count_input(Input::Stdin)?;
                self.end_with(self.count.to_string().as_bytes())?;
            }
            "data-only" => {
                self.count_input(Input::Data)?;
                self.end_with(self.count.to_string().as_bytes())?;
            }
            "echo" => self.echo()?,
            // Until the test says so; then the body is read.
            "gate" | "meet" => {
                self.pass()?;
                self.echo()?;
            }
            "flush" => {
                self.write()?;
                self.request.try_flush()?;
                self.pass()?;
                self.end_with(b"after")?;
            }
            // Until the request is no longer wanted, which it asks for once.
            "abort-wait" => {
                if !aborted && (self.step > 0 || !self.request.is_aborted()) {
                    self.step = 1;
                    return Err(ErrorKind::WouldBlock.into());
                }
                notes.say(format!("{} aborted", self.name));
                self.write()?;
                return Ok(3);
            }
            // Until it is no longer wanted, which it never asks for.
            "told" => {
                if !aborted {
                    return Err(ErrorKind::WouldBlock.into());
                }
            }
            "break-off" => {
                self.write()?;
                self.request.try_flush()?;
                let _ = self.request.break_off();
            }
            "dropped" => {
                if self.count > 0 {
                    self.write()?;
                }
                return Err(ErrorKind::Other.into());
            }
            "ending" => self.write()?,
            other => panic!("no such test: {other}"),
        }
        Ok(0)
    }

    fn pass(&self) -> io::Result<()> {
        if self.gate.is_none() { Ok(()) } else { Err(ErrorKind::WouldBlock.into()) }
    }

    /// All there is left to do is to write this.
    fn end_with(&mut self, text: &[u8]) -> io::Result<()> {
        self.out.extend_from_slice(text);
        "ending".clone_into(&mut self.test);
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        while !self.out.is_empty() {
            let count = self.request.try_write(&self.out)?;
            self.out.drain(..count);
        }
        Ok(())
    }

    fn count_input(&mut self, input: Input) -> io::Result<()> {
        let mut buffer = [0; 30_000];
        loop {
            match self.request.try_read(input, &mut buffer)? {
                0 => return Ok(()),
                count => self.count += count,
            }
        }
    }

    fn echo(&mut self) -> io::Result<()> {
        self.write()?;
        loop {
            let bytes = self.request.try_fill_buf(Input::Stdin)?;
            if bytes.is_empty() {
                return Ok(());
            }
            let bytes = bytes.to_vec();
            let count = self.request.try_write(&bytes)?;
            self.request.consume(Input::Stdin, count);
        }
    }
}
