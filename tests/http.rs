//! The built-in HTTP front, with clients that are no more than sockets.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Directory, FCGI_LUA, Running};

struct Front {
    port: u16,
    running: Running,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, v) = line.split_once(": ")?;
            n.eq_ignore_ascii_case(name).then_some(v)
        })
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Front {
    fn start(arguments: &[&str]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut command = Command::new(FCGI_LUA);
        command.args(["--http", &format!("127.0.0.1:{port}")]).args(arguments).stdin(Stdio::null());
        let running = Running::start(command.stdout(Stdio::null()).stderr(Stdio::piped()));
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "the front does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { port, running }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        socket
    }

    fn ask(&self, request: &str, body: &[u8]) -> Answer {
        let mut socket = self.connect();
        let head = format!("{request}\r\nHost: example.test:81\r\nConnection: close\r\n\r\n");
        socket.write_all(head.as_bytes()).unwrap();
        let mut sender = socket.try_clone().unwrap();
        let body = body.to_vec();
        let sending = std::thread::spawn(move || drop(sender.write_all(&body)));
        let mut bytes = Vec::new();
        socket.read_to_end(&mut bytes).unwrap();
        sending.join().unwrap();
        read_answer(bytes)
    }

    /// Ends the front; gives its log.
    fn stop(mut self) -> String {
        self.running.signal("TERM");
        let (status, log) = self.running.wait(Duration::from_secs(30));
        assert_eq!(status, Some(0), "{log}");
        log
    }
}

fn read_answer(mut bytes: Vec<u8>) -> Answer {
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").expect("an HTTP head");
    let mut body = bytes.split_off(end + 4);
    let head = String::from_utf8(bytes).unwrap();
    if head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        body = unchunked(&body);
    }
    Answer { status: head.split(' ').nth(1).unwrap().parse().unwrap(), head, body }
}

fn unchunked(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|w| w == b"\r\n").expect("a chunk's length");
        let length = usize::from_str_radix(std::str::from_utf8(&bytes[..end]).unwrap(), 16).unwrap();
        body.extend(&bytes[end + 2..end + 2 + length]);
        bytes = &bytes[end + 2 + length + 2..];
        if length == 0 {
            return body;
        }
    }
}

const APP: &str = r#"
local path, query = os.getenv("PATH_INFO") or "", os.getenv("QUERY_STRING")
if path == "/vars" then
  print("Content-Type: text/plain\n")
  for _, name in ipairs {"GATEWAY_INTERFACE", "SERVER_PROTOCOL", "SERVER_NAME", "REQUEST_METHOD", "REQUEST_URI",
    "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR", "CONTENT_LENGTH", "CONTENT_TYPE", "HTTP_HOST",
    "HTTP_X_A", "HTTP_PROXY", "HTTP_X_UNDER", "HTTPS", "REMOTE_USER"} do print(name .. "=" .. (os.getenv(name) or "(none)")) end
elseif path == "/echo" then
  io.write("Content-Type: application/octet-stream\nX-Length: ", os.getenv("CONTENT_LENGTH") or "none", "\n\n")
  while true do local block = io.read(65536) if not block then break end io.write(block) end
elseif path == "/big" then
  io.write("Content-Type: application/octet-stream\n\n")
  local block = string.rep("0123456789abcdef", 4096)
  for i = 1, 1600 do io.write(block) end
elseif path == "/slow" then os.execute("sleep 6") print("Content-Type: text/plain\n")
elseif path == "/length" then io.write("Content-Type: text/plain\nContent-Length: 5\n\n12345")
elseif path == "/none" then print("Status: 204 No Content\n")
elseif path == "/missing" then print("Status: 404 Not Here\nContent-Type: text/plain\n\nnot here")
elseif path == "/away" then print("Location: http://other.test/x\n")
elseif path == "/moved" then print("Status: 301 Moved\nLocation: /vars\n")
elseif path == "/inside" then print("Location: /vars?from=inside\n")
elseif path == "/loop" then print("Location: /loop\n")
elseif path == "/broken" then print("this is no header")
elseif path == "/error" then io.stderr:write("said on stderr\n") error("on purpose")
elseif path == "/stream" then
  io.write("Content-Type: text/plain\n\n")
  for i = 1, 3 do io.write("part ", i, "\n") io.flush() os.execute("sleep 0.1") end
elseif path == "/unread" then print("Content-Type: text/plain\n\nnot read")
elseif path == "/gone" then
  io.write("Content-Type: text/plain\n\n")
  while true do io.write(string.rep("x", 65536)) end
end
"#;

fn app(directory: &Directory) -> String {
    directory.file("app.lua", APP).display().to_string()
}

#[test]
fn variables_and_kinds_of_answers() {
    let directory = Directory::new();
    let front = Front::start(&[&app(&directory)]);
    let answer = front.ask(
        "POST /vars?a=1&b=%20 HTTP/1.1\r\nX-A: 1\r\nX-A: 2\r\nProxy: evil\r\nX_Under: no\r\nContent-Type: text/x\r\nContent-Length: 4",
        b"body",
    );
    let expected = "GATEWAY_INTERFACE=CGI/1.1\nSERVER_PROTOCOL=HTTP/1.1\nSERVER_NAME=example.test\nREQUEST_METHOD=POST\n\
        REQUEST_URI=/vars?a=1&b=%20\nSCRIPT_NAME=\nPATH_INFO=/vars\nQUERY_STRING=a=1&b=%20\nREMOTE_ADDR=127.0.0.1\n\
        CONTENT_LENGTH=4\nCONTENT_TYPE=text/x\nHTTP_HOST=example.test:81\nHTTP_X_A=1, 2\nHTTP_PROXY=(none)\n\
        HTTP_X_UNDER=(none)\nHTTPS=(none)\nREMOTE_USER=(none)\n";
    assert_eq!((answer.status, answer.text()), (200, expected.to_owned()));
    for (path, status, header, body) in [
        ("/length", 200, ("content-length", Some("5")), "12345"),
        ("/none", 204, ("content-length", None), ""),
        ("/missing", 404, ("content-type", Some("text/plain")), "not here\n"),
        ("/away", 302, ("location", Some("http://other.test/x")), ""),
        ("/moved", 301, ("location", Some("/vars")), ""),
        ("/loop", 502, ("content-type", Some("text/plain")), "502 Bad Gateway\n"),
        ("/broken", 502, ("content-type", Some("text/plain")), "502 Bad Gateway\n"),
        ("/error", 500, ("content-type", Some("text/plain; charset=utf-8")), "500 Internal Server Error\n"),
        ("/unread", 200, ("content-type", Some("text/plain")), "not read\n"),
    ] {
        let answer = front.ask(&format!("GET {path} HTTP/1.1"), b"");
        assert_eq!((answer.status, answer.header(header.0)), (status, header.1), "{path}: {}", answer.head);
        assert_eq!(answer.text().trim_start_matches('\n'), body, "{path}");
    }
    let inside = front.ask("POST /inside HTTP/1.1\r\nContent-Length: 3", b"abc").text();
    assert!(inside.contains("REQUEST_METHOD=GET\n") && inside.contains("QUERY_STRING=from=inside\n"), "{inside}");
    let head = front.ask("HEAD /vars HTTP/1.1", b"");
    assert_eq!((head.status, head.body.len()), (200, 0));
    let old = front.ask("GET /vars HTTP/1.0", b"");
    assert!(old.header("transfer-encoding").is_none() && old.text().contains("SERVER_PROTOCOL=HTTP/1.0"));

    let log = front.stop();
    assert!(log.contains("\"GET /missing\" 404 9 "), "{log}");
    assert!(log.contains("script: said on stderr") && log.contains("on purpose"), "{log}");
}

#[test]
fn bodies_stream_both_ways() {
    let directory = Directory::new();
    let front = Front::start(&["--workers", "2", &app(&directory)]);
    let upload: Vec<u8> = (0..20_000_000u32).map(|n| (n % 251) as u8).collect();
    let answer = front.ask(&format!("POST /echo HTTP/1.1\r\nContent-Length: {}", upload.len()), &upload);
    assert_eq!((answer.status, answer.header("x-length")), (200, Some("20000000")));
    assert!(answer.body == upload);
    let answer = front.ask("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n");
    assert_eq!((answer.text(), answer.header("x-length")), ("hello!".to_owned(), Some("6")));
    let answer = front.ask("GET /big HTTP/1.1", b"");
    assert_eq!(answer.body.len(), 1600 * 65536);
    let answer = front.ask("POST /unread HTTP/1.1\r\nContent-Length: 1000000", &[0; 1_000_000]);
    assert_eq!((answer.status, answer.text()), (200, "not read\n".to_owned()));

    // What a script flushes arrives before the script has ended.
    let mut socket = front.connect();
    socket.write_all(b"GET /stream HTTP/1.0\r\n\r\n").unwrap();
    let mut seen = Vec::new();
    let mut pieces = 0;
    let mut block = [0; 4096];
    loop {
        let count = socket.read(&mut block).unwrap();
        if count == 0 {
            break;
        }
        pieces += 1;
        seen.extend(&block[..count]);
    }
    assert!(pieces >= 3 && seen.ends_with(b"part 1\npart 2\npart 3\n"), "{pieces}");

    // A client that leaves frees the interpreters: both are asked again.
    for _ in 0..2 {
        let mut socket = front.connect();
        socket.write_all(b"GET /gone HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        socket.read_exact(&mut [0; 200_000]).unwrap();
    }
    for _ in 0..4 {
        assert_eq!(front.ask("GET /length HTTP/1.1", b"").text(), "12345");
    }
}

#[test]
fn kept_connections_and_pipelined_requests() {
    let directory = Directory::new();
    let front = Front::start(&[&app(&directory)]);
    let mut socket = front.connect();
    socket
        .write_all(
            b"GET /length HTTP/1.1\r\nHost: x\r\n\r\nGET /length HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    assert_eq!(String::from_utf8_lossy(&bytes).matches("\r\n\r\n12345").count(), 2);
    let answer = front.ask("POST /echo HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2", b"hi");
    assert!(answer.status == 100 && answer.text().ends_with("hi"), "{}", answer.text());
}

#[test]
fn static_files_and_scripts_in_a_directory() {
    let directory = Directory::new();
    let show = "print('Content-Type: text/plain\\n') print(os.getenv('SCRIPT_NAME'), os.getenv('PATH_INFO'))";
    directory.file("site/a.lua", show);
    directory.file("site/sub/index.lua", show);
    directory.file("files/style.css", "body {}");
    directory.file("files/page/index.html", "<p>page");
    directory.file("files/.secret", "hidden");
    directory.file("outside.txt", "outside");
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::os::unix::fs::symlink(at("outside.txt"), at("files/link.txt")).unwrap();
    let front = Front::start(&["--root", &at("site"), "--static", &at("files")]);
    for (path, status, text) in [
        ("/a.lua", 200, "/a.lua\tnil\n"),
        ("/a.lua/x%20y", 200, "/a.lua\t/x y\n"),
        ("/sub/", 200, "/sub/index.lua\tnil\n"),
        ("/style.css", 200, "body {}"),
        ("/page/", 200, "<p>page"),
        ("/.secret", 404, "404 Not Found\n"),
        ("/link.txt", 404, "404 Not Found\n"),
        ("/../outside.txt", 404, "404 Not Found\n"),
        ("/%2e%2e/outside.txt", 404, "404 Not Found\n"),
        ("/nothing", 404, "404 Not Found\n"),
        ("/%00", 400, "400 Bad Request\n"),
    ] {
        let answer = front.ask(&format!("GET {path} HTTP/1.1"), b"");
        assert_eq!((answer.status, answer.text().trim_start_matches('\n')), (status, text), "{path}");
    }
    assert_eq!(front.ask("GET /page HTTP/1.1", b"").header("location"), Some("/page/"));
    let answer = front.ask("GET /style.css HTTP/1.1", b"");
    assert_eq!(answer.header("content-type"), Some("text/css"));
    let date = answer.header("last-modified").unwrap().to_owned();
    let again = front.ask(&format!("GET /style.css HTTP/1.1\r\nIf-Modified-Since: {date}"), b"");
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[test]
fn an_address_in_use_is_one_clear_line() {
    let directory = Directory::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = Command::new(FCGI_LUA).args(["--http", &address, &app(&directory)]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), text.lines().count()), (Some(2), 1), "{text}");
    assert!(text.contains("in use by a running server"), "{text}");
}

/// Says that it has begun, by a file, and works on until another file is there.
const SLOW: &str = "io.open('begun', 'w'):close()
repeat os.execute('sleep 0.02') local f = io.open('go') until f
print('Content-Type: text/plain\\n') print('done')";

/// The processes that a process has started.
fn children(pid: u32) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().map(str::to_owned).collect()
}

#[test]
fn stopping_refuses_nothing_that_has_come() {
    for workers in [&[][..], &["--workers", "2"]] {
        let directory = Directory::new();
        let script = directory.file("slow.lua", SLOW).display().to_string();
        let mut front = Front::start(&[workers, &[&script]].concat());
        let ask = |request: &str| {
            let mut socket = front.connect();
            write!(socket, "{request}\r\nHost: x\r\nConnection: close\r\n").unwrap();
            socket
        };
        // One runs, others wait for an interpreter; of one the head is not yet complete, of one nothing has come.
        let mut asked: Vec<TcpStream> = (0..4).map(|_| ask("GET / HTTP/1.1")).collect();
        for socket in &mut asked {
            socket.write_all(b"\r\n").unwrap();
        }
        asked.push(ask("GET /half HTTP/1.1"));
        let mut silent = front.connect();
        let end = Instant::now() + Duration::from_secs(30);
        while !directory.path().join("begun").exists() {
            assert!(Instant::now() < end, "no request is worked on");
            std::thread::sleep(Duration::from_millis(5));
        }
        // As Ctrl-C on a terminal and systemd do it: to all processes at once.
        for worker in if workers.is_empty() { Vec::new() } else { children(front.running.0.id()) } {
            assert!(Command::new("kill").args(["-s", "TERM", &worker]).status().unwrap().success());
        }
        front.running.signal("TERM");
        asked.last_mut().unwrap().write_all(b"\r\n").unwrap();
        while TcpStream::connect(("127.0.0.1", front.port)).is_ok() {
            assert!(Instant::now() < end, "the front takes new connections");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(silent.read(&mut [0]).unwrap(), 0, "a connection without a request does not delay the end");
        assert!(front.running.0.try_wait().unwrap().is_none(), "requests are running");
        directory.file("go", "");
        for mut socket in asked {
            let mut bytes = Vec::new();
            socket.read_to_end(&mut bytes).unwrap();
            let answer = read_answer(bytes);
            assert_eq!((answer.status, &*answer.text()), (200, "done\n"), "{workers:?}");
        }
        let (status, log) = front.running.wait(Duration::from_secs(20));
        assert_eq!(status, Some(0), "{log}");
        assert!(!log.contains("\" 503 ") && !log.contains("started again"), "{log}");
    }
}

#[test]
fn stopping_waits_for_requests_only_so_long() {
    let directory = Directory::new();
    let script = directory.file("slow.lua", SLOW).display().to_string();
    let mut front = Front::start(&["--workers", "1", "--shutdown-timeout", "1", &script]);
    let mut socket = front.connect();
    socket.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while !directory.path().join("begun").exists() {
        assert!(Instant::now() < end, "no request is worked on");
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    front.running.signal("INT");
    let (status, log) = front.running.wait(Duration::from_secs(20));
    assert_eq!(status, Some(0), "{log}");
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[test]
fn clients_and_scripts_that_are_late() {
    let directory = Directory::new();
    let timeouts = ["--read-timeout", "1", "--write-timeout", "1", "--answer-timeout", "1"];
    let front = Front::start(&[&timeouts[..], &["--workers", "2", &app(&directory)]].concat());
    let ended = |mut socket: TcpStream| {
        let start = Instant::now();
        let mut bytes = Vec::new();
        let _ = socket.read_to_end(&mut bytes);
        (String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().to_owned(), start.elapsed())
    };
    let send = |bytes: &[u8]| {
        let mut socket = front.connect();
        socket.write_all(bytes).unwrap();
        socket
    };
    for (what, request, answer) in [
        ("nothing", &b""[..], ""),
        ("half a head", b"GET /length HTTP/1.1\r\nHost", ""),
        ("no second request", b"GET /length HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 200 OK"),
        (
            "half a body",
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe",
            "HTTP/1.1 408 Request Timeout",
        ),
        ("a slow script", b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1.1 504 Gateway Timeout"),
    ] {
        let (line, time) = ended(send(request));
        assert_eq!(line, answer, "{what}");
        assert!(time < Duration::from_secs(10), "{what}: {time:?}");
    }
    // The answer waits in the socket's buffers until somebody reads it, which nobody does.
    let unread = send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    std::thread::sleep(Duration::from_secs(3));
    let log = front.stop();
    assert!(log.contains("an answer was not read in time"), "{log}");
    drop(unread);
}
