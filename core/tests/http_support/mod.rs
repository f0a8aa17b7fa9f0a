//! An application whose answers depend on the path, the front before it, and a log that can be looked at.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fcgi_core::http::{Config, Front, Site, Timeouts};
use fcgi_core::{Address, Request, Server};

const PATIENCE: Duration = Duration::from_secs(30);

/// A directory that goes with the test.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("fcgi-front-{}-{}-{name}", std::process::id(), NUMBER.fetch_add(1, SeqCst));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn file(&self, name: &str, text: &str) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The application: a server with two threads.
pub struct App {
    server: Arc<Server>,
    state: Arc<State>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    running: AtomicUsize,
    written: AtomicUsize,
}

impl App {
    fn start(socket: PathBuf) -> Self {
        let config = fcgi_core::ServerConfig { threads: 2, ..Default::default() };
        let builder = Server::builder().listen(&Address::Unix(socket)).unwrap().config(config);
        let server = Arc::new(builder.start().unwrap());
        let state = Arc::new(State::default());
        let thread = |_| {
            let (server, state) = (server.clone(), state.clone());
            std::thread::spawn(move || {
                while let Some(mut request) = server.accept().unwrap() {
                    state.running.fetch_add(1, SeqCst);
                    let _ = answer(&mut request, &state);
                    drop(request);
                    state.running.fetch_sub(1, SeqCst);
                }
            })
        };
        let threads = (0..2).map(thread).collect();
        Self { server, state, threads }
    }

    /// Bytes that endless answers have written, and what was done behind an answer.
    pub fn written(&self) -> usize {
        self.state.written.load(SeqCst)
    }

    pub fn running(&self) -> usize {
        self.state.running.load(SeqCst)
    }

    pub fn wait_until_idle(&self) {
        self.wait_for(0);
    }

    pub fn wait_until_busy(&self) {
        self.wait_for(1);
    }

    fn wait_for(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.running() != count {
            assert!(Instant::now() < end, "{} requests are running, not {count}", self.running());
            std::thread::sleep(Duration::from_millis(5));
        }
        // The front learns a little later than the application.
        std::thread::sleep(Duration::from_millis(20));
    }

    pub fn stop(&mut self) {
        self.server.drain();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn answer(request: &mut Request, state: &State) -> io::Result<()> {
    let path = request.params().get_str("PATH_INFO").unwrap_or("-").to_owned();
    let kind = "Content-Type: text/plain\r\n";
    let mut say = |text: &str| request.stdout().write_all(text.as_bytes());
    match path.as_str() {
        "/hello" => say(&format!("{kind}\r\nhello\n"))?,
        "/length" => say(&format!("{kind}Content-Length: 5\n\n12345"))?,
        "/long" => say(&format!("{kind}Content-Length: 5\n\n1234567890"))?,
        "/twice" => say("Content-Length: 5\nContent-Length: 5\n\n12345")?,
        "/lengths" => say("Content-Length: 5\nContent-Length: 6\n\n12345")?,
        "/lengthless" => say("Content-Length: five\n\n12345")?,
        "/none" => say("Status: 204 No Content\n\n")?,
        "/none-length" => say("Status: 204\nContent-Length: 4\n\nbody")?,
        "/unchanged" => say("Status: 304\nContent-Length: 4\n\n")?,
        "/missing" => say("Status: 404 Not Here\n\n")?,
        "/away" => say("Location: http://other.test/x\n\n")?,
        "/moved" => say("Status: 301 Gone Away\nLocation: /hello\n\n")?,
        "/inside" => say("Location: /hello?from=inside\n\n")?,
        "/loop" => say("Location: /loop\n\n")?,
        "/hop" => say("Keep-Alive: 5\nConnection: x-mine\nX-Mine: 1\nUpgrade: x\nTransfer-Encoding: y\nX-Kept: 1\n\n")?,
        "/broken" => say("this is no header\n\n")?,
        "/early" => say("Status: 100 Continue\n\n")?,
        "/endless-head" => say(&"X-Header: value\n".repeat(10_000))?,
        "/silent" => write!(request.stderr(), "a line of 9000 bytes: {}", "x".repeat(9000))?,
        "/parts" => {
            say(&format!("{kind}\none"))?;
            request.stdout().flush()?;
            std::thread::sleep(Duration::from_millis(50));
            write!(request.stdout(), "two")?;
        }
        "/slow" => {
            std::thread::sleep(Duration::from_millis(500));
            say(&format!("{kind}\nslow\n"))?;
        }
        "/after" => {
            say(&format!("{kind}\n"))?;
            request.stdout().flush()?;
            std::thread::sleep(Duration::from_millis(300));
            if !request.is_aborted() {
                state.written.fetch_add(1, SeqCst);
            }
        }
        "/echo" => echo(request)?,
        "/large" | "/endless" => {
            say(&format!("{kind}\n"))?;
            let mut left = if path == "/large" { 320 } else { usize::MAX };
            while left > 0 {
                request.stdout().write_all(&[b'x'; 65_536])?;
                state.written.fetch_add(65_536, SeqCst);
                left -= 1;
            }
        }
        "/until-aborted" => {
            while !request.is_aborted() {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        path if path.starts_with("/vars") => {
            let mut text = format!("{kind}\r\n\n").into_bytes();
            for (name, value) in request.params() {
                text.extend_from_slice(&[name, b"=", value, b"\n"].concat());
            }
            request.stdout().write_all(&text)?;
        }
        _ => {
            let params = request.params();
            let file = params.get_str("SCRIPT_FILENAME").unwrap_or("-");
            let name = params.get_str("SCRIPT_NAME").unwrap_or("-");
            let status = if name.is_empty() { "Status: 404 Not Found\n" } else { "" };
            let text = format!("{status}{kind}\n{file} {name} {path}\n");
            request.stdout().write_all(text.as_bytes())?;
        }
    }
    // Without an answer, the end alone.
    request.finish(0)
}

fn echo(request: &mut Request) -> io::Result<()> {
    let length = request.params().get_str("CONTENT_LENGTH").unwrap_or("none").to_owned();
    write!(request.stdout(), "Content-Type: text/plain\nX-Length: {length}\n\n")?;
    let mut block = vec![0; 65_536];
    loop {
        let count = request.stdin().read(&mut block)?;
        if count == 0 {
            return Ok(());
        }
        request.stdout().write_all(&block[..count])?;
    }
}

/// The front and the application behind it.
pub struct Pair {
    pub app: App,
    front: Option<Front>,
    port: u16,
    _directory: Directory,
}

impl Pair {
    pub fn start(site: Site, static_dir: Option<PathBuf>) -> Self {
        Self::start_with(site, static_dir, Timeouts::default())
    }

    pub fn start_with(site: Site, static_dir: Option<PathBuf>, timeouts: Timeouts) -> Self {
        Log::install();
        let directory = Directory::new("pair");
        let backend = directory.path("app.sock");
        let app = App::start(backend.clone());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Front::start_with(
            listener,
            Config { backend, site, static_dir, roles: fcgi_core::http::Roles::default() },
            timeouts,
        )
        .unwrap();
        let port = front.address().port();
        Self { app, front: Some(front), port, _directory: directory }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    pub fn get(&self, path: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1"), b"")
    }

    pub fn ask(&self, request: &str, body: &[u8]) -> Answer {
        let mut socket = self.connect();
        let head = format!("{request}\r\nHost: example.test:81\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let mut sender = socket.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || drop(sender.write_all(body)));
            let mut bytes = Vec::new();
            // What was sent and not read makes the end of the connection a reset.
            let result = socket.read_to_end(&mut bytes);
            assert!(result.is_ok() || !bytes.is_empty(), "{request}: {result:?}");
            read_answer(bytes)
        })
    }

    pub fn stop_front(&mut self) {
        self.front.take().unwrap().stop();
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        if let Some(front) = self.front.take() {
            front.stop();
        }
        self.app.stop();
    }
}

/// What a client got. Names of headers are in small letters.
pub struct Answer {
    pub status: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.split_once(": ").filter(|(n, _)| *n == name).map(|(_, v)| v))
    }

    pub fn count(&self, name: &str) -> usize {
        self.head.lines().filter(|line| line.split_once(':').is_some_and(|(n, _)| n == name)).count()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

pub fn read_answer(mut bytes: Vec<u8>) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP head");
    let mut body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).unwrap();
    let (first, head) = head.split_once("\r\n").unwrap();
    let status = first.split_once(' ').unwrap().1.to_owned();
    if head.contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer { status, head: head.to_owned(), body }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    // The answer to HEAD has no chunks, and one that breaks off has no last one.
    while let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        let Some(chunk) = bytes.get(end + 2..end + 2 + length) else { break };
        body.extend_from_slice(chunk);
        bytes = bytes.get(end + 2 + length + 2..).unwrap_or_default();
    }
    body
}

static LINES: Mutex<Vec<String>> = Mutex::new(Vec::new());

/// Whether the log has a line with this text, or gets one soon: some are written when an answer has been sent.
pub fn logged(text: &str) -> bool {
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if LINES.lock().unwrap().iter().any(|line| line.contains(text)) {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Collects messages of all tests.
struct Log;

impl Log {
    fn install() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| tracing::subscriber::set_global_default(Self).unwrap());
    }
}

impl tracing::Subscriber for Log {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }

    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        LINES.lock().unwrap().push(line.0);
    }

    fn enter(&self, _: &tracing::span::Id) {}

    fn exit(&self, _: &tracing::span::Id) {}
}

struct Line(String);

impl tracing::field::Visit for Line {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0 += &format!("{field}: {value:?} ");
    }
}
