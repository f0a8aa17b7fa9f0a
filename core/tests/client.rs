//! The client against the real server: both sides of the protocol in one process.
// What pedantry asks of a library (panics documented, casts argued) only hides what a test is about.
#![allow(clippy::pedantic)]

use std::io::{self, Read, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fcgi_core::client::{Client, ClientError, Direction, Ended, Event, Request};
use fcgi_core::protocol::{RecordType, encoder};
use fcgi_core::{Address, Params, Server};

const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));
const MIB: usize = 1 << 20;
const OK: Ended = Ended { app_status: 0, protocol_status: 0 };

/// A server in a thread, which stops when the test ends.
struct App {
    server: Arc<Server>,
    address: Address,
    thread: Option<JoinHandle<()>>,
    socket: Option<PathBuf>,
}

impl App {
    fn unix() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fcgi-client-{}-{number}.sock", std::process::id()));
        Self::start(&Address::Unix(path.clone()), Some(path))
    }

    fn tcp() -> Self {
        Self::start(&"127.0.0.1:0".parse().unwrap(), None)
    }

    fn start(address: &Address, socket: Option<PathBuf>) -> Self {
        let server = Arc::new(Server::builder().listen(address).unwrap().start().unwrap());
        let address = server.addresses().remove(0);
        let serving = server.clone();
        let thread = std::thread::spawn(move || {
            while let Some(mut request) = serving.accept().unwrap() {
                // A client that leaves early fails its request, not this thread.
                let _ = answer(&mut request);
            }
        });
        Self { server, address, thread: Some(thread), socket }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.address, PATIENCE).unwrap()
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.server.drain();
        let _ = self.thread.take().unwrap().join();
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn answer(request: &mut fcgi_core::Request) -> io::Result<()> {
    let mut status = 0;
    match request.params().get_str("DO").unwrap_or("hello") {
        "hello" => write!(request.stdout(), "hello")?,
        "echo" => echo(request)?,
        "data" => {
            let (mut body, mut data) = (String::new(), String::new());
            request.stdin().read_to_string(&mut body)?;
            request.data().read_to_string(&mut data)?;
            write!(request.stdout(), "{body}|{data}")?;
        }
        "long" => request.stdout().write_all(&vec![b'x'; 5 * MIB])?,
        "wait" => {
            write!(request.stdout(), "waiting")?;
            request.stdout().flush()?;
            while !request.is_aborted() {
                std::thread::sleep(Duration::from_millis(2));
            }
            status = 3;
        }
        "sleep" => std::thread::sleep(Duration::from_secs(2)),
        "stderr" => {
            write!(request.stderr(), "something ")?;
            write!(request.stdout(), "hello")?;
            write!(request.stderr(), "wrong")?;
            status = 7;
        }
        what => panic!("what is {what}?"),
    }
    request.finish(status)
}

/// Answers each block before it reads the next.
fn echo(request: &mut fcgi_core::Request) -> io::Result<()> {
    let mut block = [0; 4096];
    loop {
        let count = request.stdin().read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        request.stdout().write_all(&block[..count])?;
        request.stdout().flush()?;
    }
}

#[derive(Default)]
struct Answer {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
}

struct Ask<'a> {
    what: &'a str,
    id: u16,
    role: u16,
    keep_conn: bool,
    body: &'a [u8],
    data: Option<&'a [u8]>,
}

impl Default for Ask<'_> {
    fn default() -> Self {
        Self { what: "hello", id: 1, role: 1, keep_conn: false, body: b"", data: None }
    }
}

impl Ask<'_> {
    fn of(mut self, client: &mut Client) -> Result<(Ended, Answer), ClientError> {
        let params: Params = [("DO", self.what), ("REQUEST_METHOD", "POST")].into_iter().collect();
        let mut answer = Answer::default();
        let request = Request {
            id: self.id,
            role: self.role,
            keep_conn: self.keep_conn,
            params: &params,
            stdin: &mut self.body,
            data: self.data.as_mut().map(|d| d as &mut dyn Read),
        };
        let ended = client.request(request, &mut |event| match event {
            Event::Stdout(bytes) => answer.stdout.extend_from_slice(bytes),
            Event::Stderr(bytes) => answer.stderr.extend_from_slice(bytes),
        })?;
        Ok((ended, answer))
    }
}

fn body() -> Vec<u8> {
    (0..5 * MIB).map(|n| (n / 7) as u8).collect()
}

#[test]
fn hello() {
    for app in [App::unix(), App::tcp()] {
        let (ended, answer) = Ask::default().of(&mut app.connect()).unwrap();
        assert_eq!((ended, &answer.stdout[..], &answer.stderr[..]), (OK, &b"hello"[..], &b""[..]));
    }
}

#[test]
fn an_answer_that_comes_while_the_body_is_sent() {
    let body = body();
    for app in [App::unix(), App::tcp()] {
        let (ended, answer) = Ask { what: "echo", body: &body, ..Ask::default() }.of(&mut app.connect()).unwrap();
        assert_eq!(ended, OK);
        assert!(answer.stdout == body);
    }
}

#[test]
fn a_body_that_nobody_reads() {
    let body = body();
    for app in [App::unix(), App::tcp()] {
        for (what, length) in [("hello", 5), ("long", 5 * MIB)] {
            let (ended, answer) = Ask { what, body: &body, ..Ask::default() }.of(&mut app.connect()).unwrap();
            assert_eq!((ended, answer.stdout.len()), (OK, length));
        }
    }
}

#[test]
fn stderr_and_status() {
    let app = App::unix();
    let (ended, answer) = Ask { what: "stderr", ..Ask::default() }.of(&mut app.connect()).unwrap();
    assert_eq!(ended, Ended { app_status: 7, protocol_status: 0 });
    assert_eq!((&answer.stdout[..], &answer.stderr[..]), (&b"hello"[..], &b"something wrong"[..]));
}

#[test]
fn roles() {
    let app = App::unix();
    let (ended, answer) = Ask { role: 9, body: b"body", ..Ask::default() }.of(&mut app.connect()).unwrap();
    assert_eq!((ended.protocol_status, answer.stdout.len()), (3, 0));
    let (ended, answer) = Ask { role: 2, ..Ask::default() }.of(&mut app.connect()).unwrap();
    assert_eq!((ended, &answer.stdout[..]), (OK, &b"hello"[..]));
    for (data, expected) in [(Some(&b"file"[..]), &b"body|file"[..]), (None, b"body|")] {
        let ask = Ask { what: "data", role: 3, body: b"body", data, ..Ask::default() };
        let (ended, answer) = ask.of(&mut app.connect()).unwrap();
        assert_eq!((ended, &answer.stdout[..]), (OK, expected));
    }
}

#[test]
fn values() {
    for app in [App::unix(), App::tcp()] {
        let mut client = app.connect();
        let values = client.values(&["FCGI_MAX_CONNS", "FCGI_MPXS_CONNS", "NO_SUCH"]).unwrap();
        assert_eq!((values.len(), values.get_str("FCGI_MPXS_CONNS")), (2, Some("1")));
        assert_eq!(Ask::default().of(&mut client).unwrap().1.stdout, b"hello");
    }
    let name = "N".repeat(70_000);
    assert!(matches!(App::unix().connect().values(&[&name]), Err(ClientError::Io(_))));
}

#[test]
fn requests_that_are_taken_back() {
    let aborted = Ended { app_status: 3, protocol_status: 0 };
    for app in [App::unix(), App::tcp()] {
        let mut client = app.connect();
        let aborter = client.aborter().unwrap();
        let other = aborter.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            other.abort();
        });
        let wait = || Ask { what: "wait", keep_conn: true, ..Ask::default() };
        assert_eq!(wait().of(&mut client).unwrap().0, aborted);
        thread.join().unwrap();
        // From where the answer is received; nothing of the body is left to be read then.
        let mut body = Endless { sent: 0 };
        let params: Params = [("DO", "echo")].into_iter().collect();
        let data = None;
        let request = Request { id: 2, role: 1, keep_conn: true, params: &params, stdin: &mut body, data };
        let mut stdout = 0;
        let result = client.request(request, &mut |event| {
            if let Event::Stdout(bytes) = event {
                stdout += bytes.len();
                aborter.abort();
            }
        });
        assert!(result.is_ok() && stdout > 0, "{result:?}");
        assert!(body.sent < 64 * MIB, "{} bytes", body.sent);
        // What comes too late is not meant for the next request.
        aborter.abort();
        assert_eq!(Ask { keep_conn: true, ..Ask::default() }.of(&mut client).unwrap().1.stdout, b"hello");
        aborter.abort();
        assert_eq!(client.values(&["FCGI_MPXS_CONNS"]).unwrap().len(), 1);
    }
}

/// A body that does not end by itself.
struct Endless {
    sent: usize,
}

impl Read for Endless {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        buf.fill(b'x');
        self.sent += buf.len();
        Ok(buf.len())
    }
}

#[test]
fn requests_after_each_other_on_one_connection() {
    let body = body();
    for app in [App::unix(), App::tcp()] {
        let mut client = app.connect();
        for (id, body) in [(1, &body[..]), (2, b""), (2, &body[..]), (2, b"short")] {
            let ask = Ask { id, body, keep_conn: true, ..Ask::default() };
            let (ended, answer) = ask.of(&mut client).unwrap();
            assert_eq!((ended, &answer.stdout[..]), (OK, &b"hello"[..]));
        }
        let ask = Ask { what: "echo", body: b"last", ..Ask::default() };
        assert_eq!(ask.of(&mut client).unwrap().1.stdout, b"last");
        assert!(matches!(Ask::default().of(&mut client), Err(ClientError::Closed)));
    }
}

#[test]
fn the_observer_sees_whole_records() {
    let app = App::unix();
    let mut client = app.connect();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let note = seen.clone();
    client.observe(Box::new(move |direction, header, content| {
        assert_eq!(content.len(), usize::from(header.content_len));
        note.lock().unwrap().push((direction == Direction::Sent, header.kind, header.content_len));
    }));
    Ask { what: "echo", body: b"body", ..Ask::default() }.of(&mut client).unwrap();
    let seen = seen.lock().unwrap();
    let of = |sent: bool| seen.iter().filter(|s| s.0 == sent).map(|s| (s.1, s.2)).collect::<Vec<_>>();
    let params_len = 2 + "DOecho".len() as u16 + 2 + "REQUEST_METHODPOST".len() as u16;
    assert_eq!(of(true), [(1, 8), (4, params_len), (4, 0), (5, 4), (5, 0)]);
    assert_eq!(of(false).first(), Some(&(6, 4)));
    assert_eq!(of(false).last(), Some(&(3, 8)));
}

/// An application that says `bytes` to whoever connects, whatever it is asked.
fn says(bytes: Vec<u8>) -> Address {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string().parse().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = io::copy(&mut stream, &mut io::sink());
    });
    address
}

#[test]
fn what_is_no_answer() {
    let ask = |bytes: &[u8]| {
        let mut client = Client::connect(&says(bytes.to_vec()), PATIENCE).unwrap();
        let error = Ask::default().of(&mut client).map(|(ended, _)| ended).unwrap_err();
        assert!(matches!(Ask::default().of(&mut client), Err(ClientError::Closed)));
        error
    };
    assert!(matches!(ask(b""), ClientError::Closed));
    assert!(matches!(ask(b"HTTP/1.1 400 Bad Request\r\n\r\n"), ClientError::BadVersion(_)));
    let mut bytes = Vec::new();
    encoder::stream(RecordType::Stdout, 1, b"and then", &mut bytes);
    assert!(matches!(ask(&bytes), ClientError::Closed));
    assert!(matches!(ask(&bytes[..bytes.len() - 1]), ClientError::Closed));
    encoder::stream(RecordType::Stdout, 2, b"another's", &mut bytes);
    assert!(matches!(ask(&bytes), ClientError::UnexpectedRecord { kind: 6, id: 2 }));
    assert!(matches!(ask(&[1, 3, 0, 1, 0, 1, 0, 0, 0]), ClientError::UnexpectedRecord { kind: 3, id: 1 }));
    bytes.clear();
    encoder::unknown_type(9, &mut bytes);
    let mut client = Client::connect(&says(bytes), PATIENCE).unwrap();
    assert!(matches!(client.values(&["X"]), Err(ClientError::UnexpectedRecord { kind: 11, id: 0 })));
}

#[test]
fn timeouts_and_addresses() {
    let app = App::unix();
    let mut client = Client::connect(&app.address, Some(Duration::from_millis(50))).unwrap();
    let start = Instant::now();
    let result = Ask { what: "sleep", ..Ask::default() }.of(&mut client);
    assert!(matches!(result, Err(ClientError::TimedOut)));
    assert!(start.elapsed() < Duration::from_secs(1));
    let error = |address: Address| Client::connect(&address, PATIENCE).unwrap_err().kind();
    assert_eq!(error(Address::Fd(0)), io::ErrorKind::InvalidInput);
    assert_eq!(error(Address::Unix("/nonexistent/app.sock".into())), io::ErrorKind::NotFound);
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert_eq!(error(unused.to_string().parse().unwrap()), io::ErrorKind::ConnectionRefused);
}
