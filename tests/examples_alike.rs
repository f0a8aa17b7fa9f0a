//! The examples do the same in all languages, behind nginx and behind the HTTP front. The table that the test prints
//! (`--nocapture`) has a line for each example and language.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::nginx::{Nginx, free_port};
use crate::support::client::{connect, params, read_reply, record, request, stream};
use crate::support::{Directory, FCGI_LUA, FCGI_PYTHON, FCGI_RHAI, Running, plain_environment, repository, serve_with};

/// What answers clients; and what plays other roles, which `roles` and the test below ask for.
const RESPONDERS: [&str; 6] = ["hello", "counter", "form", "api", "stream", "session"];
const OTHERS: [&str; 3] = ["authorizer", "filter", "logger"];

const LANGUAGES: [(&str, &str); 3] = [("lua", FCGI_LUA), ("py", FCGI_PYTHON), ("rhai", FCGI_RHAI)];

fn example(name: &str, extension: &str) -> String {
    repository().join("examples").join(format!("{name}.{extension}")).display().to_string()
}

/// A client's answer: its head, in small letters, its body, and what of both had come with the first lines.
struct Answer {
    status: u16,
    head: String,
    body: String,
    beginning: String,
}

fn ask(port: u16, line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    socket
        .write_all(format!("{line} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n{headers}{length}\r\n").as_bytes())
        .unwrap();
    socket.write_all(body).unwrap();
    let mut answer = Vec::new();
    let mut piece = [0; 512];
    while !answer.windows(6).any(|window| window == b"line 1") {
        let length = socket.read(&mut piece).unwrap();
        if length == 0 {
            break;
        }
        answer.extend(&piece[..length]);
    }
    let beginning = String::from_utf8_lossy(&answer).into_owned();
    socket.read_to_end(&mut answer).unwrap();
    let text = String::from_utf8(answer).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP head");
    let head = head.to_ascii_lowercase();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    let body = if head.contains("transfer-encoding: chunked") { without_chunks(body) } else { body.to_owned() };
    Answer { status, head, body, beginning }
}

fn without_chunks(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        whole += &rest[..size];
        body = rest[size..].trim_start_matches("\r\n");
    }
    whole
}

/// What each example must do for a web server's clients.
fn check(name: &str, port: u16) {
    match name {
        "hello" => {
            for (path, name) in [("/", "world"), ("/?R&D", "R&amp;D"), ("/", "world")] {
                let answer = ask(port, &format!("GET {path}"), "", b"");
                assert_eq!((answer.status, answer.body), (200, format!("Hello {name}!\n")));
                assert!(answer.head.contains("content-type: text/html"));
            }
        }
        "counter" => {
            for number in 1..=3 {
                let answer = ask(port, "GET /", "", b"");
                let body = format!("Hello world!<br>Request number {number}.");
                assert_eq!((answer.status, answer.body.trim_end()), (200, &*body));
                assert!(answer.head.contains("content-type: text/html"));
            }
        }
        "form" => {
            let page = ask(port, "GET /", "", b"");
            assert!(page.status == 200 && page.body.contains("multipart/form-data"), "{}", page.body);
            let form = "--b0UND\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nÄnne\r\n--b0UND\r\n\
                        Content-Disposition: form-data; name=\"file\"; filename=\"a b.txt\"\r\n\
                        Content-Type: text/plain\r\n\r\none\r\n--two\r\n\r\n--b0UND--\r\n";
            let headers = "Content-Type: multipart/form-data; boundary=b0UND\r\n";
            let answer = ask(port, "POST /", headers, form.as_bytes());
            assert_eq!((answer.status, &*answer.body), (200, "name: Änne\nfile: a b.txt, 12 bytes\n"));
        }
        "api" => {
            for (body, status, expected) in [
                (r#"{"a": 1, "b": 2}"#, 200, r#"{"sum":3}"#),
                (r#"{"a": 1}"#, 400, r#"{"error":"send numbers a and b"}"#),
                ("{", 400, r#"{"error":"send numbers a and b"}"#),
            ] {
                let answer = ask(port, "POST /", "Content-Type: application/json\r\n", body.as_bytes());
                assert_eq!((answer.status, &*answer.body), (status, expected), "{body}");
                assert!(answer.head.contains("content-type: application/json"));
            }
            assert_eq!(ask(port, "GET /", "", b"").status, 405);
        }
        "stream" => {
            let whole = "line 1\nline 2\nline 3\nline 4\nline 5\n";
            // A client that the machine does not let run for half a second finds all at once: others will not.
            let comes_in_pieces = (0..10).any(|_| {
                let answer = ask(port, "GET /", "", b"");
                assert_eq!((answer.status, &*answer.body), (200, whole));
                answer.beginning.contains("line 1") && !answer.beginning.contains("line 5")
            });
            assert!(comes_in_pieces, "it came as a whole each time");
        }
        _ => {
            let first = ask(port, "GET /", "", b"");
            assert_eq!((first.status, &*first.body), (200, "Visit 1\n"));
            let at = first.beginning.find("session=").expect("a cookie");
            let cookie = first.beginning[at..].split(';').next().unwrap();
            for visit in 2..=4 {
                let next = ask(port, "GET /", &format!("Cookie: a=b; {cookie}\r\n"), b"");
                assert_eq!(next.body, format!("Visit {visit}\n"));
                assert!(!next.head.contains("set-cookie"), "{}", next.head);
            }
            let stranger = ask(port, "GET /", "Cookie: session=abc\r\n", b"");
            assert!(stranger.body == "Visit 1\n" && stranger.head.contains("set-cookie"));
        }
    }
}

/// Each example is there in each language, and none is untested.
#[test]
fn none_is_left_out() {
    let known: BTreeSet<String> = RESPONDERS.iter().chain(&OTHERS).map(|name| (*name).to_owned()).collect();
    for (extension, _) in LANGUAGES {
        let entries = std::fs::read_dir(repository().join("examples")).unwrap().map(|entry| entry.unwrap().path());
        let names = entries.filter(|path| path.extension().is_some_and(|e| e == extension));
        let names = names.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned());
        // Python's requests as objects are tested by `python_requests`.
        let names: BTreeSet<String> = names.filter(|name| name != "roles").collect();
        assert_eq!(names, known, "{extension}");
    }
}

#[test]
fn behind_nginx_and_the_front() {
    let mut table = String::new();
    for name in RESPONDERS {
        for (extension, runner) in LANGUAGES {
            let script = example(name, extension);
            let directory = Directory::new();
            let address = directory.socket("s");
            println!("{name}.{extension} behind nginx");
            let _runner = serve_with(runner, &address, &[&script]);
            let nginx = Nginx::start(&directory, &format!("unix:{}/s", directory.path().display()), false);
            check(name, nginx.port());
            println!("{name}.{extension} behind the front");
            let port = free_port();
            let mut command = Command::new(runner);
            plain_environment(&mut command);
            command.args(["--http", &format!("127.0.0.1:{port}"), &script]).stdin(Stdio::null());
            let _front = Running::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
            let end = Instant::now() + Duration::from_secs(30);
            while TcpStream::connect(("127.0.0.1", port)).is_err() {
                assert!(Instant::now() < end, "the front does not listen");
                std::thread::sleep(Duration::from_millis(10));
            }
            check(name, port);
            table += &format!("{:16} nginx ok  front ok\n", format!("{name}.{extension}"));
        }
    }
    println!("{table}");
}

/// nginx and the front do not speak these roles: a client plays the web server.
#[test]
fn authorizers_and_filters() {
    for (extension, runner) in LANGUAGES {
        let directory = Directory::new();
        let address = directory.socket("authorizer");
        let _authorizer = serve_with(runner, &address, &[&example("authorizer", extension)]);
        let text = |query: &[u8]| {
            let mut socket = connect(&address);
            socket.write_all(&request(1, 2, false, &[("QUERY_STRING", query)], b"")).unwrap();
            read_reply(&mut *socket, 1).text()
        };
        assert_eq!(text(b"word=sesame"), "Status: 200 OK\nVariable-GUEST: yes\n\n", "{extension}");
        let refused = "Status: 403 Forbidden\nContent-Type: text/plain\n\nWhat is the word?\n";
        assert_eq!(text(b"word=abracadabra"), refused, "{extension}");

        let address = directory.socket("filter");
        let _filter = serve_with(runner, &address, &[&example("filter", extension)]);
        for file in [&b"a file\nof lines"[..], b"", b"another\n"] {
            let mut socket = connect(&address);
            let mut bytes = record(1, 1, &[0, 3, 0, 0, 0, 0, 0, 0]);
            let length = file.len().to_string();
            bytes.extend(stream(4, 1, &params(&[("FCGI_DATA_LENGTH", length.as_bytes())])));
            bytes.extend(stream(5, 1, b""));
            bytes.extend(stream(8, 1, file));
            socket.write_all(&bytes).unwrap();
            let expected = String::from_utf8(file.to_ascii_uppercase()).unwrap();
            let reply = read_reply(&mut *socket, 1);
            let says = format!("Content-Type: text/plain\n\n{expected}");
            assert_eq!(reply.text(), says, "{extension} {}", reply.errors());
        }
    }
}
