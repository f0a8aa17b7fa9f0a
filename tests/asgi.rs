//! Applications by ASGI, served by one event loop: `scripts/asgi.py` has the programs.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Reply, Socket, call, connect, params, read_reply, record, request, stream};
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment, repository};

const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    address: String,
    running: Running,
    directory: Directory,
}

impl Server {
    fn new(arguments: &[&str]) -> Self {
        Self::start(Directory::new(), arguments)
    }

    /// Serves the script in the directory, which is the working directory.
    fn start(directory: Directory, arguments: &[&str]) -> Self {
        let server = Self::unready(directory, arguments);
        drop(connect(&server.address));
        server
    }

    fn unready(directory: Directory, arguments: &[&str]) -> Self {
        std::fs::copy(repository().join("tests/scripts/asgi.py"), directory.path().join("asgi.py")).unwrap();
        let address = directory.socket("s");
        let mut command = Command::new(FCGI_PYTHON);
        plain_environment(&mut command);
        let named = arguments.iter().any(|a| a.starts_with("--app") || a.starts_with("--interface") || *a == "asgi.py");
        let app: &[&str] = if named { &[] } else { &["--app", "asgi:app"] };
        command.args(["--listen", &address]).args(app).args(arguments).current_dir(directory.path());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self { address, running: Running::start(&mut command), directory }
    }

    fn ask(&self, path: &str) -> Reply {
        call(&self.address, &of(path), b"")
    }

    fn text(&self, path: &str) -> String {
        body(&self.ask(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// What a file says that the application writes at some time.
    fn told(&self, name: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            match std::fs::read_to_string(self.path(name)) {
                Ok(text) => return text,
                Err(e) => assert!(Instant::now() < end, "{name}: {e}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Stops it; gives what it had to say.
    fn stop(&mut self) -> String {
        self.running.signal("TERM");
        let (status, log) = self.running.wait(PATIENCE);
        assert_eq!(status, Some(0), "{log}");
        log
    }
}

fn of(path: &str) -> Vec<(&str, &[u8])> {
    vec![("REQUEST_METHOD", b"GET"), ("SCRIPT_NAME", b""), ("PATH_INFO", path.as_bytes())]
}

/// What follows the header of an answer that is complete and has no errors.
fn body(reply: &Reply) -> String {
    assert_eq!((reply.app_status, &reply.errors()[..]), (0, ""), "{}", reply.text());
    let text = reply.text();
    text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no header: {text}")).1.to_owned()
}

/// Reads to the end of the connection.
fn rest(socket: &mut dyn Socket) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes);
    bytes
}

#[test]
fn the_scope_says_what_is_asked() {
    let server = Server::new(&[]);
    let pairs: [(&str, &[u8]); 16] = [
        ("REQUEST_METHOD", b"PUT"),
        ("SCRIPT_NAME", b"/mount"),
        ("PATH_INFO", "/a/scope \u{e9}".as_bytes()),
        ("REQUEST_URI", b"/mount/a/scope%20%C3%A9?q=%20"),
        ("QUERY_STRING", b"q=%20"),
        ("SERVER_PROTOCOL", b"HTTP/2.0"),
        ("HTTPS", b"on"),
        ("REMOTE_ADDR", b"192.0.2.1"),
        ("REMOTE_PORT", b"1234"),
        ("SERVER_NAME", b"example.org"),
        ("SERVER_PORT", b"443"),
        ("CONTENT_TYPE", b"text/x"),
        ("CONTENT_LENGTH", b"0"),
        ("HTTP_X_NAME", b"\xff"),
        ("HTTP_COOKIE", b"a=b"),
        ("HTTP_PROXY", b"evil"),
    ];
    let expected = "asgi: {'version': '3.0', 'spec_version': '2.4'}
client: ('192.0.2.1', 1234)
headers: [(b'content-length', b'0'), (b'content-type', b'text/x'), (b'cookie', b'a=b'), (b'x-name', b'\\xff')]
http_version: '2'
method: 'PUT'
path: '/mount/a/scope \u{e9}'
query_string: b'q=%20'
raw_path: b'/mount/a/scope%20%C3%A9'
root_path: '/mount'
scheme: 'https'
server: ('example.org', 443)
state: {'opened': ['once']}
type: 'http'";
    assert_eq!(body(&call(&server.address, &pairs, b"")), expected);
    // What servers send that know of scripts only.
    let whole = body(&call(&server.address, &[("SCRIPT_NAME", b"/a/scope")], b""));
    assert!(whole.contains("path: '/a/scope'") && whole.contains("root_path: ''"), "{whole}");
    assert!(whole.contains("client: None"), "{whole}");
}

#[test]
fn each_request_has_a_scope_of_its_own() {
    let server = Server::new(&[]);
    for _ in 0..3 {
        assert_eq!(server.text("/changes"), "(None, None, False)");
    }
}

#[test]
fn each_request_has_a_state_of_its_own() {
    let server = Server::new(&[]);
    for _ in 0..2 {
        assert_eq!(server.text("/state"), "(None, ['once'])");
    }
}

#[test]
fn an_application_is_found() {
    for arguments in [
        &["--app", "asgi"][..],
        &["--app", "asgi:app", "--interface", "asgi:asyncio"],
        &["--interface", "asgi", "asgi.py"],
        &["--interface", "asgi", "--workers", "2", "asgi.py"],
        &["--workers", "2", "asgi.py"],
    ] {
        let mut server = Server::new(arguments);
        assert_eq!(server.text("/hello"), "hello", "{arguments:?}");
        server.stop();
    }
    for (arguments, error) in [
        (&["--app", "asgi:nothing"][..], "has no 'nothing'"),
        (&["--app", "missing"], "No module named 'missing'"),
        (&["--app", "asgi:app", "--threads", "2"], "--threads is not for ASGI"),
        (&["--interface", "asgi"], "--interface asgi needs an application"),
        (&["--app", "asgi", "--interface", "other"], "invalid value 'other' for '--interface"),
    ] {
        let mut server = Server::unready(Directory::new(), arguments);
        let (status, log) = server.running.wait(PATIENCE);
        assert!(status == Some(2) && log.contains(error), "{status:?} {log}");
    }
}

#[test]
fn a_script_turns_out_to_be_an_application() {
    let directory = Directory::new();
    directory.file("fail", "");
    let mut server = Server::start(directory, &["asgi.py"]);
    // Until its startup succeeds, each request tries.
    for _ in 0..2 {
        assert!(server.ask("/hello").text().starts_with("Status: 500 "));
    }
    std::fs::remove_file(server.path("fail")).unwrap();
    // The body of the request that it is found by has been read when it is.
    let sent = vec![b'x'; 300_000];
    let text = body(&call(&server.address, &of("/echo"), &sent));
    assert_eq!((text.len(), text.ends_with("x|")), (300_001, true));
    assert_eq!(server.text("/state"), "(None, ['once'])");
    let sockets: Vec<_> = ["0", "1", "2"]
        .map(|number| {
            let mut pairs = of("/meet");
            pairs.extend([("QUERY_STRING", number.as_bytes()), ("HTTP_X_ALL", b"3")]);
            let mut socket = connect(&server.address);
            socket.write_all(&request(1, 1, false, &pairs, b"")).unwrap();
            socket
        })
        .into();
    for (number, mut socket) in sockets.into_iter().enumerate() {
        assert_eq!(body(&read_reply(&mut *socket, 1)), number.to_string());
    }
    assert!(server.stop().contains("startup failed: no database"));
    assert!(server.path("shut-down").exists());
}

#[test]
fn bodies_come_and_go_in_pieces() {
    let server = Server::new(&[]);
    let mut socket = connect(&server.address);
    let piece = vec![b'x'; 65_528];
    let mut head = record(1, 1, &[0, 1, 0, 0, 0, 0, 0, 0]);
    head.extend(stream(4, 1, &params(&of("/echo"))));
    let mut sender = socket.copy();
    let sending = std::thread::spawn(move || {
        sender.write_all(&head).unwrap();
        for _ in 0..100 {
            sender.write_all(&record(5, 1, &piece)).unwrap();
        }
        sender.write_all(&record(5, 1, b"")).unwrap();
    });
    let text = body(&read_reply(&mut *socket, 1));
    assert_eq!((text.len(), text.ends_with("x|")), (100 * 65_528 + 1, true));
    sending.join().unwrap();
    assert_eq!(server.told("after"), "http.disconnect");
    assert_eq!(server.text("/large").len(), 5_000_000);
}

#[test]
fn an_answer_begins_before_the_body_has_come() {
    let server = Server::new(&[]);
    let mut socket = connect(&server.address);
    let mut head = record(1, 1, &[0, 1, 0, 0, 0, 0, 0, 0]);
    head.extend(stream(4, 1, &params(&of("/echo"))));
    socket.write_all(&head).unwrap();
    let mut seen = Vec::new();
    for piece in ["one", "two", "three"] {
        socket.write_all(&record(5, 1, piece.as_bytes())).unwrap();
        while !seen.ends_with(piece.as_bytes()) {
            let mut bytes = [0; 1000];
            let count = socket.read(&mut bytes).unwrap();
            assert!(count > 0, "it has ended: {}", String::from_utf8_lossy(&seen));
            seen.extend(bytes[..count].iter().filter(|byte| **byte >= b' '));
        }
    }
    // Its client leaves before it has said all.
    drop(socket);
    assert!(server.text("/hello") == "hello");
}

#[test]
fn the_body_is_as_long_as_the_header_says() {
    let server = Server::new(&[]);
    let ask = |length: &str, method: &str| {
        let mut pairs = of("/length");
        pairs[0].1 = method.as_bytes();
        pairs.push(("QUERY_STRING", length.as_bytes()));
        let mut socket = connect(&server.address);
        socket.write_all(&request(1, 1, false, &pairs, b"")).unwrap();
        String::from_utf8_lossy(&rest(&mut *socket)).into_owned()
    };
    assert!(ask("6+abc+def", "GET").contains("\r\n\r\nabc"));
    assert!(ask("6", "HEAD").contains("Content-Length: 6\r\n\r\n"));
    for (length, error) in [("6+abc", "shorter than its"), ("2+abc", "longer than its"), ("x", "must be a number")] {
        let text = ask(length, "GET");
        assert!(text.contains(error), "{length}: {text}");
        assert_eq!(text.contains("Status: 500"), length != "6+abc", "{length}: {text}");
    }
}

#[test]
fn requests_run_at_once() {
    let mut server = Server::new(&[]);
    // On connections of their own, and on one together.
    let numbers: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    let ask = |number: &str, id: u16, keep: bool| {
        let mut pairs = of("/meet");
        pairs.push(("QUERY_STRING", number.as_bytes()));
        pairs.push(("HTTP_X_ALL", b"60"));
        request(id, 1, keep, &pairs, b"")
    };
    let mut alone: Vec<Box<dyn Socket>> = Vec::new();
    for number in &numbers[..40] {
        let mut socket = connect(&server.address);
        socket.write_all(&ask(number, 1, false)).unwrap();
        alone.push(socket);
    }
    let mut together = connect(&server.address);
    for (at, number) in numbers[40..].iter().enumerate() {
        together.write_all(&ask(number, at as u16 + 1, at < 19)).unwrap();
    }
    for (number, socket) in numbers.iter().zip(&mut alone) {
        assert_eq!(&body(&read_reply(&mut **socket, 1)), number);
    }
    let answers = String::from_utf8_lossy(&rest(&mut *together)).into_owned();
    assert!(numbers[40..].iter().all(|number| answers.contains(&format!("\r\n\r\n{number}"))), "{answers}");
    assert!(!server.stop().contains("Traceback"));
}

#[test]
fn an_application_waits_for_a_client_that_reads_slowly() {
    let server = Server::new(&[]);
    let mut socket = connect(&server.address);
    socket.write_all(&request(1, 1, false, &of("/big"), b"")).unwrap();
    // It has been seen that it goes no further than what lies in buffers, and that others are served meanwhile.
    let sent = || server.text("/sent").parse::<usize>().unwrap();
    let mut last = sent();
    loop {
        std::thread::sleep(Duration::from_millis(50));
        let now = sent();
        assert!(now < 2_000_000, "{now} bytes that nobody has read");
        if now > 0 && now == last {
            break;
        }
        last = now;
    }
    assert_eq!(body(&read_reply(&mut *socket, 1)).len(), 50_000_000);
}

#[test]
fn a_client_that_leaves_is_noticed() {
    let mut server = Server::new(&[]);
    for (keep, abort) in [(false, false), (true, false), (true, true)] {
        let mut socket = connect(&server.address);
        socket.write_all(&request(1, 1, keep, &of("/leave"), b"")).unwrap();
        server.told("came");
        if abort {
            socket.write_all(&record(2, 1, b"")).unwrap();
            assert_eq!(read_reply(&mut *socket, 1).protocol_status, 0);
        }
        drop(socket);
        assert_eq!((&server.told("left")[..], &server.told("told")[..]), ("http.disconnect", "Disconnected"));
        for name in ["came", "left", "told"] {
            std::fs::remove_file(server.path(name)).unwrap();
        }
    }
    assert_eq!(server.text("/both"), "both");
    assert_eq!(server.told("listened"), "http.disconnect");
    assert!(!server.stop().contains("Traceback"));
}

#[test]
fn mistakes_are_answered_and_explained() {
    for show in [false, true] {
        let server = Server::new(if show { &["--display-errors"] } else { &[] });
        for (path, error) in [
            ("/raise", "ValueError: on purpose"),
            ("/raise_begun", "ValueError: on purpose"),
            ("/body_first", "Expected ASGI message 'http.response.start'"),
            ("/nothing", "returned without starting its answer"),
            ("/bad_header", "not a header's value"),
            ("/unknown", "KeyError: 'at_unknown'"),
        ] {
            let reply = server.ask(path);
            assert!(reply.text().starts_with("Status: 500 Internal Server Error\r\n"), "{path}: {}", reply.text());
            assert_eq!(reply.text().contains(error), show, "{path}: {}", reply.text());
            assert!(reply.errors().contains(error), "{path}: {}", reply.errors());
            assert_eq!(reply.app_status, 1);
        }
        let errors = server.ask("/raise").errors();
        assert!(errors.contains("in at_raise\n") && !errors.contains("_asgi.py"), "{errors}");
    }
}

#[test]
fn what_is_only_half_said_is_not_taken_for_whole() {
    let mut server = Server::new(&[]);
    for keep in [false, true] {
        let mut socket = connect(&server.address);
        socket.write_all(&request(1, 1, keep, &of("/raise_late"), b"")).unwrap();
        let bytes = rest(&mut *socket);
        let text = String::from_utf8_lossy(&bytes);
        assert!(text.contains("half") && text.contains("ValueError: on purpose"), "{text}");
        assert!(!bytes.windows(8).any(|w| w == [1, 3, 0, 1, 0, 8, 0, 0]), "END_REQUEST: {text}");
    }
    // A complete answer stands; the mistake behind it is in the log.
    assert_eq!(server.text("/twice"), "once");
    assert!(server.stop().contains("the answer is complete"));
}

#[test]
fn head_has_no_body() {
    let server = Server::new(&[]);
    let mut pairs = of("/hello");
    pairs[0] = ("REQUEST_METHOD", b"HEAD");
    assert_eq!(call(&server.address, &pairs, b"").text(), "Status: 200 OK\r\ncontent-type: text/plain\r\n\r\n");
}

#[test]
fn startup_and_shutdown() {
    let mut server = Server::new(&[]);
    assert_eq!(server.text("/hello"), "hello");
    assert!(!server.path("shut-down").exists());
    server.stop();
    assert!(server.path("shut-down").exists());

    let directory = Directory::new();
    directory.file("fail", "");
    let mut server = Server::unready(directory, &[]);
    let (status, log) = server.running.wait(PATIENCE);
    assert!(status == Some(2) && log.contains("the application's startup failed: no database"), "{status:?} {log}");

    // One that knows nothing of all this.
    let directory = Directory::new();
    directory.file(
        "simple.py",
        "async def app(scope, receive, send):
    assert scope['type'] == 'http' and scope['state'] == {}
    await send({'type': 'http.response.start', 'status': 299})
    await send({'type': 'http.response.body', 'body': b'simple'})
",
    );
    let mut server = Server::start(directory, &["--app", "simple"]);
    assert_eq!(server.ask("/").text(), "Status: 299 \r\n\r\nsimple");
    assert!(!server.stop().contains("Traceback"));
}

#[test]
fn a_startup_that_fails_or_does_not_end() {
    let answers = "def answer(scope, receive, send):
    return really(scope, receive, send)
async def really(scope, receive, send):
    await send({'type': 'http.response.start', 'status': 200})
    await send({'type': 'http.response.body', 'body': b'served'})
";
    // What raises is served as one that knows nothing of all this, but not without a word. A plain function may be one, too.
    let directory = Directory::new();
    let source = format!(
        "{answers}def app(scope, receive, send):\n    return (start if scope['type'] == 'lifespan' else answer)(scope, receive, send)\n\
         async def start(scope, receive, send):\n    await receive()\n    raise ValueError('no database')\n"
    );
    directory.file("raises.py", source);
    let mut server = Server::start(directory, &["--app", "raises"]);
    assert_eq!(server.text("/"), "served");
    let log = server.stop();
    assert!(log.contains("startup ended in an exception") && log.contains("ValueError: no database"), "{log}");

    let directory = Directory::new();
    let begun = "import asyncio\nasync def app(scope, receive, send):\n    await receive()\n    open('begun', 'w').close()\n    \
                 await asyncio.sleep(1000)\n";
    directory.file("hangs.py", begun);
    let mut server = Server::unready(directory, &["--app", "hangs"]);
    server.told("begun");
    server.stop();
}

#[test]
fn what_has_begun_is_finished_when_it_stops() {
    for arguments in [&[][..], &["--workers", "1"]] {
        let mut server = Server::new(arguments);
        let mut socket = connect(&server.address);
        socket.write_all(&request(1, 1, true, &of("/slow"), b"")).unwrap();
        server.told("begun");
        server.running.signal("TERM");
        while UnixStream::connect(&server.address[5..]).is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::fs::write(server.path("go"), "").unwrap();
        assert_eq!(body(&read_reply(&mut *socket, 1)), "slow");
        assert_eq!(server.running.wait(PATIENCE).0, Some(0));
        assert!(server.path("shut-down").exists());
    }
}

#[test]
fn what_takes_too_long_is_cancelled() {
    let mut server = Server::new(&["--shutdown-timeout", "1"]);
    let mut socket = connect(&server.address);
    socket.write_all(&request(1, 1, true, &of("/stuck"), b"")).unwrap();
    server.told("begun");
    server.running.signal("TERM");
    let reply = read_reply(&mut *socket, 1);
    assert!(reply.text().starts_with("Status: 503 "), "{}", reply.text());
    assert_eq!(server.running.wait(PATIENCE).0, Some(0));
    assert!(server.path("shut-down").exists());

    let server = Server::new(&["--request-timeout", "0.2"]);
    let reply = server.ask("/stuck");
    assert!(reply.text().starts_with("Status: 504 "), "{}", reply.text());
    assert!(reply.errors().contains("the request took too long"), "{}", reply.errors());
    assert_eq!(server.text("/hello"), "hello");
}

/// A process that answers lives, however its requests began; one whose event loop is blocked is ended.
#[test]
fn a_blocked_loop_is_ended_and_an_idle_one_is_not() {
    for way in ["--app=asgi:app", "asgi.py"] {
        let mut server = Server::new(&["--workers", "1", "--kill-after", "2", way]);
        let first = server.text("/pid");
        let end = Instant::now() + Duration::from_millis(2500);
        while Instant::now() < end {
            assert_eq!(server.text("/pid"), first, "{way}");
            std::thread::sleep(Duration::from_millis(100));
        }
        let mut socket = connect(&server.address);
        socket.write_all(&request(1, 1, true, &of("/block"), b"")).unwrap();
        server.told("blocked");
        assert!(rest(&mut *socket).is_empty(), "{way}");
        assert_ne!(server.text("/pid"), first, "{way}");
        let log = server.stop();
        assert_eq!(log.matches("(--kill-after): ").count(), 1, "{log}");
    }
}
