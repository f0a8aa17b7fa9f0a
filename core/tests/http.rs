//! The HTTP front before a small application, both in this process; clients are no more than sockets.
#![cfg(feature = "http")]
// What pedantry asks of a library (panics documented, casts argued) only hides what a test is about.
#![allow(clippy::pedantic, unreachable_pub)]

mod http_support;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use fcgi_core::http::{Site, Timeouts};
use http_support::{Directory, Pair, logged, read_answer};

const MIB: usize = 1 << 20;

#[test]
fn answers() {
    let pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    for (path, status, headers, body) in [
        ("/hello", "200 OK", "content-length: 6", "hello\n"),
        ("/length", "200 OK", "content-length: 5", "12345"),
        ("/long", "200 OK", "content-length: 5", "12345"),
        ("/twice", "200 OK", "content-length: 5", "12345"),
        ("/parts", "200 OK", "transfer-encoding: chunked", "onetwo"),
        ("/none", "204 No Content", "", ""),
        ("/none-length", "204 No Content", "", ""),
        ("/unchanged", "304 Not Modified", "", ""),
        ("/missing", "404 Not Here", "content-length: 0", ""),
        ("/away", "302 Found", "location: http://other.test/x", ""),
        ("/moved", "301 Gone Away", "location: /hello", ""),
        ("/inside", "200 OK", "content-length: 6", "hello\n"),
        ("/loop", "502 Bad Gateway", "content-type: text/plain", "502 Bad Gateway\n"),
        ("/hop", "200 OK", "x-kept: 1", ""),
        ("/broken", "502 Bad Gateway", "content-type: text/plain", "502 Bad Gateway\n"),
        ("/lengths", "502 Bad Gateway", "content-type: text/plain", "502 Bad Gateway\n"),
        ("/lengthless", "502 Bad Gateway", "content-type: text/plain", "502 Bad Gateway\n"),
        ("/early", "502 Bad Gateway", "content-type: text/plain", "502 Bad Gateway\n"),
        ("/silent", "502 Bad Gateway", "content-type: text/plain", "502 Bad Gateway\n"),
        ("/endless-head", "502 Bad Gateway", "content-type: text/plain", "502 Bad Gateway\n"),
    ] {
        let answer = pair.get(path);
        assert_eq!(answer.status, status, "{path}");
        assert!(headers.is_empty() || answer.head.contains(headers), "{path}: {}", answer.head);
        assert_eq!(answer.text(), body, "{path}");
        let lengths = answer.count("content-length") + answer.count("transfer-encoding");
        assert!(lengths <= 1, "{path}: {}", answer.head);
        for dropped in ["keep-alive", "upgrade", "x-mine"] {
            assert_eq!(answer.count(dropped), 0, "{path}: {}", answer.head);
        }
        if answer.status.starts_with("204") || answer.status.starts_with("304") {
            assert_eq!(lengths, 0, "{path}: {}", answer.head);
        }
    }
    assert!(logged("a line of 9000 bytes: xxx"), "long lines of the error stream");
    assert!(logged("/broken: the header of the answer has a line without"), "why there is a 502");
}

#[test]
fn head_requests_and_old_clients() {
    let pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    for path in ["/length", "/hello", "/parts", "/none", "/inside"] {
        let answer = pair.ask(&format!("HEAD {path} HTTP/1.1"), b"");
        assert_eq!((answer.status.starts_with('2'), answer.body.len()), (true, 0), "{path}");
        assert_ne!(answer.header("content-length"), Some("0"), "{path}: the length would be that of GET's answer");
    }
    assert_eq!(pair.ask("HEAD /length HTTP/1.1", b"").header("content-length"), Some("5"));
    assert_eq!(pair.ask("HEAD /endless HTTP/1.1", b"").status, "200 OK");
    pair.app.wait_until_idle();
    let old = pair.ask("GET /parts HTTP/1.0", b"");
    assert_eq!((old.count("transfer-encoding"), old.count("content-length"), old.text()), (0, 0, "onetwo".to_owned()));
    // A kept connection: an answer ends where its head says.
    let mut socket = pair.connect();
    let one = "GET /parts HTTP/1.1\r\nHost: x\r\n\r\nHEAD /hello HTTP/1.1\r\nHost: x\r\n\r\n";
    socket.write_all(one.repeat(3).as_bytes()).unwrap();
    socket.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut bytes = String::new();
    socket.read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes.matches("HTTP/1.1 200 OK\r\n").count(), 7, "{bytes}");
    assert!(bytes.ends_with("\r\n\r\nhello\n"), "{bytes}");
}

#[test]
fn bodies() {
    let pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    let answer = pair.ask("POST /echo HTTP/1.1\r\nContent-Length: 5", b"hello");
    assert_eq!((answer.text(), answer.header("x-length")), ("hello".to_owned(), Some("5")));
    let chunks = b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n";
    let answer = pair.ask("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked", chunks);
    assert_eq!(answer.text(), "hello!");
    // What could be read as another length is no length.
    let both = "POST /echo HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked";
    let answer = pair.ask(both, chunks);
    assert!(answer.status == "400 Bad Request" || answer.text() == "hello!", "{}", answer.head);
    // A broken chunk is the client's fault; the script is not run on half a body.
    let answer = pair.ask("POST /echo HTTP/1.1\r\nTransfer-Encoding: chunked", b"5\r\nhello\r\nzz\r\n");
    assert!(answer.status.starts_with("400") || answer.status.starts_with("200"), "{}", answer.status);

    let mut socket = pair.connect();
    socket
        .write_all(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
        )
        .unwrap();
    let mut go_on = [0; 25];
    socket.read_exact(&mut go_on).unwrap();
    assert_eq!(&go_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    socket.write_all(b"hi").unwrap();
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    assert_eq!(read_answer(bytes).text(), "hi");
}

#[test]
fn large_bodies_stream() {
    let pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    let body: Vec<u8> = (0..20 * MIB).map(|n| (n % 251) as u8).collect();
    let answer = pair.ask(&format!("POST /echo HTTP/1.1\r\nContent-Length: {}", body.len()), &body);
    assert!(answer.body == body);
    let answer = pair.get("/large");
    assert_eq!(answer.body.len(), 20 * MIB);
    let answer = pair.ask(&format!("POST /hello HTTP/1.1\r\nContent-Length: {}", body.len()), &body);
    assert_eq!(answer.text(), "hello\n");
}

/// A client that does not read makes the script wait; one that leaves ends it.
#[test]
fn clients_that_leave() {
    let pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    let mut socket = pair.connect();
    socket.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    socket.read_exact(&mut [0; 100_000]).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let held = pair.app.written();
    assert!(held < 16 * MIB, "{held} bytes were taken for a client that does not read");
    assert_eq!(pair.app.running(), 1);
    drop(socket);
    pair.app.wait_until_idle();

    // Before the answer has begun, too.
    let mut socket = pair.connect();
    socket.write_all(b"GET /until-aborted HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    pair.app.wait_until_busy();
    drop(socket);
    pair.app.wait_until_idle();
    assert!(logged("GET /until-aborted\" 499 0 "), "requests without an answer are in the access log");

    // And while the body is being sent.
    let mut socket = pair.connect();
    socket.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n").unwrap();
    socket.write_all(&[b'x'; 200_000]).unwrap();
    pair.app.wait_until_busy();
    drop(socket);
    pair.app.wait_until_idle();
}

#[test]
fn files_as_they_are() {
    let directory = Directory::new("files");
    for (name, text) in [
        ("pub/style.css", "body {}"),
        ("pub/page/index.html", "<p>page"),
        ("pub/.secret", "not for clients"),
        ("pub/.git/config", "not for clients"),
        ("pub/app.x", "not for clients"),
        ("pub/other.x", "not for clients"),
        ("pub/empty/file.txt", ""),
        ("outside.txt", "not for clients"),
    ] {
        directory.file(name, text);
    }
    std::os::unix::fs::symlink(directory.path("outside.txt"), directory.path("pub/link.txt")).unwrap();
    std::os::unix::fs::symlink(directory.path(""), directory.path("pub/up")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, directory.path("pub/fifo"), 0o600.into()).unwrap();
    let outside = directory.path("outside.txt").display().to_string();
    let inside = directory.path("pub/style.css").display().to_string();
    let pair = Pair::start(Site::Script(directory.path("pub/app.x")), Some(directory.path("pub")));
    for (path, text) in [
        ("/style.css", "body {}"),
        ("/%73tyle.css", "body {}"),
        ("/style.css?v=1", "body {}"),
        ("//style.css", "body {}"),
        ("/page//index.html", "<p>page"),
        ("/page/", "<p>page"),
        ("/empty/file.txt", ""),
    ] {
        let answer = pair.get(path);
        assert_eq!((&*answer.status, &*answer.text()), ("200 OK", text), "{path}");
        assert_eq!(answer.header("content-length"), Some(&*text.len().to_string()), "{path}");
    }
    let twice = format!("/{outside}");
    let twice_inside = format!("/{inside}");
    for path in [
        "/.secret",
        "/.git/config",
        "/link.txt",
        "/up/outside.txt",
        "/../outside.txt",
        "/%2e%2e/outside.txt",
        "/page/../../outside.txt",
        "/page/%2e%2e%2f..%2foutside.txt",
        &twice,
        &twice_inside,
        "/app.x",
        "/other.x",
        "//app.x",
        "/fifo",
        "/empty/",
        "/page/index.html/x",
        "/style.css/",
        "/style.css%00",
    ] {
        let answer = pair.get(path);
        let runs = path.ends_with("/app.x");
        assert!(runs || answer.status.starts_with('4'), "{path}: {}", answer.status);
        assert!(!answer.text().contains("not for clients"), "{path}");
    }
    assert_eq!(pair.get("/page?a=1").header("location"), Some("/page/?a=1"));
    assert_eq!(pair.get("//page").header("location"), Some("/page/"), "two slashes would begin a host");
    assert_eq!(pair.ask("POST /style.css HTTP/1.1\r\nContent-Length: 0", b"").status, "404 Not Found");
    let head = pair.ask("HEAD /style.css HTTP/1.1", b"");
    assert_eq!((head.header("content-length"), head.body.len()), (Some("7"), 0));
    assert_eq!(head.header("content-type"), Some("text/css"));
    let since = format!("GET /style.css HTTP/1.1\r\nIf-Modified-Since: {}", head.header("last-modified").unwrap());
    let again = pair.ask(&since, b"");
    assert_eq!((&*again.status, again.body.len(), again.count("content-length")), ("304 Not Modified", 0, 0));
}

#[test]
fn scripts_in_a_directory() {
    let directory = Directory::new("scripts");
    for name in ["site/a.x", "site/sub/index.x", "site/notes.txt", "site/.hidden.x", "outside.x"] {
        directory.file(name, "source");
    }
    let outside = directory.path("outside.x").display().to_string();
    let site = |extensions: &[&str]| Site::Directory {
        root: directory.path("site"),
        extensions: extensions.iter().map(|e| (*e).into()).collect(),
    };
    for extensions in [&["x"][..], &[]] {
        let pair = Pair::start(site(extensions), Some(directory.path("site")));
        for (path, name, info) in [
            ("/a.x", "/a.x", "-"),
            ("/a.x/", "/a.x", "/"),
            ("/a.x/b%20c/.d", "/a.x", "/b c/.d"),
            ("/%61.x/%2e", "/a.x", "/."),
            ("//a.x", "/a.x", "-"),
            ("/sub//index.x/more", "/sub/index.x", "/more"),
        ] {
            let expected = format!("{} {name} {info}\n", directory.path(&format!("site{name}")).display());
            assert_eq!(pair.get(path).text(), expected, "{path} {extensions:?}");
        }
        for path in [
            format!("/{outside}"),
            format!("//{outside}"),
            "/../outside.x".into(),
            "/%2e%2e/outside.x".into(),
            "/sub/../a.x".into(),
            "/.hidden.x".into(),
            "/nothing".into(),
            "/a.xx".into(),
        ] {
            let answer = pair.get(&path);
            assert_eq!(answer.status, "404 Not Found", "{path} {extensions:?}: {}", answer.text());
        }
        let notes = pair.get("/notes.txt");
        // Any extension: all files are scripts.
        assert_eq!(notes.text() == "source", !extensions.is_empty(), "{}", notes.text());
    }
}

#[test]
fn variables() {
    let pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    let request = "POST /vars/a%20b?x=%20&y HTTP/1.1\r\nX-A: 1\r\nX-A: 2\r\nCookie: a=1\r\nCookie: b=2\r\nProxy: evil\r\n\
        X_Under: no\r\nX.Dot: no\r\nAuthorization: Basic eA==\r\nX-Bytes: \u{e9}\r\nContent-Type: text/x\r\nContent-Length: 4";
    let text = pair.ask(request, b"body").text();
    let port = pair.port().to_string();
    for (name, value) in [
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_NAME", "example.test"),
        ("SERVER_PORT", &port),
        ("SERVER_ADDR", "127.0.0.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("REQUEST_METHOD", "POST"),
        ("REQUEST_SCHEME", "http"),
        ("REQUEST_URI", "/vars/a%20b?x=%20&y"),
        ("QUERY_STRING", "x=%20&y"),
        ("SCRIPT_NAME", ""),
        ("SCRIPT_FILENAME", "/srv/app.x"),
        ("PATH_INFO", "/vars/a b"),
        ("PATH_TRANSLATED", "/srv/vars/a b"),
        ("DOCUMENT_ROOT", "/srv"),
        ("CONTENT_LENGTH", "4"),
        ("CONTENT_TYPE", "text/x"),
        ("HTTP_HOST", "example.test:81"),
        ("HTTP_X_A", "1, 2"),
        ("HTTP_COOKIE", "a=1; b=2"),
        ("HTTP_AUTHORIZATION", "Basic eA=="),
        ("HTTP_X_BYTES", "\u{e9}"),
    ] {
        assert!(text.contains(&format!("\n{name}={value}\n")), "{name}: {text}");
    }
    for name in ["HTTP_PROXY", "HTTP_X_UNDER", "HTTP_X.DOT", "HTTPS", "REMOTE_USER", "HTTP_CONTENT_LENGTH"] {
        assert!(!text.contains(&format!("\n{name}=")), "{name}: {text}");
    }
}

#[test]
fn an_application_that_is_slow_or_gone() {
    let mut pair = Pair::start_with(
        Site::Script("/srv/app.x".into()),
        None,
        Timeouts { answer: Some(Duration::from_millis(300)), ..Timeouts::default() },
    );
    let start = Instant::now();
    assert_eq!(pair.get("/until-aborted").status, "504 Gateway Timeout");
    assert!(start.elapsed() < Duration::from_secs(5));
    pair.app.wait_until_idle();
    // A body that takes its time is not the application's fault.
    let mut socket = pair.connect();
    socket.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 8\r\n\r\n").unwrap();
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(100));
        socket.write_all(b"x").unwrap();
    }
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).unwrap();
    assert_eq!(read_answer(bytes).text(), "xxxxxxxx");
    pair.app.stop();
    assert_eq!(pair.get("/hello").status, "503 Service Unavailable");
}

#[test]
fn clients_that_are_slow() {
    let short = Some(Duration::from_millis(300));
    let timeouts = Timeouts { head: short, body: short, write: short, ..Timeouts::default() };
    let pair = Pair::start_with(Site::Script("/srv/app.x".into()), None, timeouts);
    let mut unread = pair.connect();
    unread.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    pair.app.wait_until_busy();
    pair.app.wait_until_idle();
    assert!(logged("an answer was not read in time"));
    let mut half = pair.connect();
    half.write_all(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe").unwrap();
    let mut bytes = Vec::new();
    half.read_to_end(&mut bytes).unwrap();
    assert_eq!(read_answer(bytes).status, "408 Request Timeout");
    assert_eq!(pair.connect().read(&mut [0]).unwrap(), 0, "a silent connection is closed");
}

#[test]
fn stopping_finishes_what_runs() {
    let mut pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    let mut idle = pair.connect();
    idle.write_all(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    idle.read_exact(&mut [0; 100]).unwrap();
    let mut busy = pair.connect();
    busy.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    pair.app.wait_until_busy();
    let start = Instant::now();
    pair.stop_front();
    assert!(start.elapsed() < Duration::from_secs(8));
    let mut bytes = Vec::new();
    busy.read_to_end(&mut bytes).unwrap();
    assert_eq!(read_answer(bytes).text(), "slow\n");
    let _ = idle.read_to_end(&mut Vec::new());
    assert!(std::net::TcpStream::connect(("127.0.0.1", pair.port())).is_err());
    // What goes on behind an answer runs to its end.
    let mut pair = Pair::start(Site::Script("/srv/app.x".into()), None);
    assert_eq!(pair.ask("HEAD /after HTTP/1.1", b"").status, "200 OK");
    assert_eq!(pair.app.running(), 1);
    pair.stop_front();
    pair.app.wait_until_idle();
    assert_eq!(pair.app.written(), 1);
    // What does not end is given up.
    let mut pair = Pair::start_with(
        Site::Script("/srv/app.x".into()),
        None,
        Timeouts { stop: Duration::from_millis(200), ..Timeouts::default() },
    );
    let mut busy = pair.connect();
    busy.write_all(b"GET /until-aborted HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    pair.app.wait_until_busy();
    pair.stop_front();
    pair.app.wait_until_idle();
}
