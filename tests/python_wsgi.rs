//! What PEP 3333 asks of a server, seen from the web server's side.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::support::client::{call, connect, read_reply, request};
use crate::support::{Directory, FCGI_PYTHON, Running, serve_with};

/// Serves an application that is a script.
fn serve(directory: &Directory, source: &str) -> (String, Running) {
    let script = directory.file("app.py", source).display().to_string();
    let address = directory.socket("s");
    let runner = serve_with(FCGI_PYTHON, &address, &[&script]);
    (address, runner)
}

#[test]
fn environ_is_that_of_the_request() {
    let directory = Directory::new();
    let source = r#"
import json

def app(environ, start_response):
    known = {k: v for k, v in environ.items() if isinstance(v, (str, bool))}
    environ["LEFT"] = "by the request before"
    environ["PATH_INFO"] = "changed"
    start_response("200 OK", [])
    return [json.dumps(known, sort_keys=True).encode()]
"#;
    let (address, _runner) = serve(&directory, source);
    let requests: [&[(&str, &[u8])]; 6] = [
        &[("REQUEST_METHOD", b"GET"), ("PATH_INFO", b"/a"), ("HTTP_A", b"1"), ("HTTPS", b"on")],
        &[("REQUEST_METHOD", b"GET"), ("PATH_INFO", b"/a"), ("HTTP_A", b"2"), ("HTTPS", b"off")],
        &[("REQUEST_METHOD", b"POST"), ("HTTP_B", b"b"), ("PATH_INFO", b"/b"), ("HTTP_A", b"2")],
        &[("HTTP_A", b"2"), ("HTTP_CONTENT_TYPE", b"x"), ("HTTP_CONTENT_LENGTH", b"0"), ("PATH_INFO", b"/")],
        &[("REQUEST_SCHEME", b"https"), ("HTTP_A", b"\xc3\xa9\xff"), ("PATH_INFO", b"/")],
        &[("REQUEST_METHOD", b"GET"), ("PATH_INFO", b"/a"), ("HTTP_A", b"1"), ("HTTPS", b"on")],
    ];
    let expected = [
        ("\"HTTP_A\": \"1\"", "\"wsgi.url_scheme\": \"https\"", "\"PATH_INFO\": \"/a\""),
        ("\"HTTP_A\": \"2\"", "\"wsgi.url_scheme\": \"http\"", "\"REQUEST_METHOD\": \"GET\""),
        ("\"HTTP_B\": \"b\"", "\"wsgi.url_scheme\": \"http\"", "\"REQUEST_METHOD\": \"POST\""),
        ("\"HTTP_A\": \"2\"", "\"wsgi.url_scheme\": \"http\"", "\"REQUEST_METHOD\": \"GET\""),
        ("\"HTTP_A\": \"\\u00c3\\u00a9\\u00ff\"", "\"wsgi.url_scheme\": \"https\"", "\"SERVER_NAME\": \"localhost\""),
        ("\"HTTP_A\": \"1\"", "\"wsgi.url_scheme\": \"https\"", "\"wsgi.multiprocess\": false"),
    ];
    for (pairs, (one, two, three)) in requests.into_iter().zip(expected) {
        let text = call(&address, pairs, b"").text();
        assert!(text.contains(one) && text.contains(two) && text.contains(three), "{pairs:?}: {text}");
        assert!(!text.contains("LEFT") && !text.contains("HTTP_CONTENT"), "{text}");
        assert_eq!(text.contains("HTTP_B"), pairs.iter().any(|(name, _)| *name == "HTTP_B"), "{text}");
    }
}

const LENGTHS: &str = r#"
class Text(str):
    pass

def app(environ, start_response):
    what = environ["QUERY_STRING"]
    length = {"wrong": "ten", "negative": "-1"}.get(what, "10")
    status = "304 Not Modified" if what == "304" else "200 OK"
    write = start_response(Text(status), [(Text("Content-length"), Text(length))])
    if what == "more":
        return iter([b"01234", b"56789abc", b"never"])
    if what == "write":
        write(b"0123456789")
        write(b"a")
    if what == "fewer":
        return [b"01234"]
    if what == "broken":
        write(b"01234")
    if what in ("nothing", "304", "broken"):
        return []
    return (block for block in (b"01234", b"", b"56789"))
"#;

#[test]
fn the_body_is_as_long_as_its_header_says() {
    let directory = Directory::new();
    let (address, _runner) = serve(&directory, LENGTHS);
    let ask = |what: &str, method: &str| {
        call(&address, &[("QUERY_STRING", what.as_bytes()), ("REQUEST_METHOD", method.as_bytes())], b"")
    };
    let head = "Status: 200 OK\r\nContent-length: 10\r\n\r\n";
    let good = |what: &str, method: &str| {
        let reply = ask(what, method);
        assert_eq!((reply.app_status, reply.errors()), (0, String::new()), "{what}");
        reply.text()
    };
    assert_eq!(good("", "GET"), format!("{head}0123456789"));
    // Where there is no body, its length is that of the body of another answer.
    assert_eq!(good("", "HEAD"), head);
    assert_eq!(good("nothing", "HEAD"), head);
    assert_eq!(good("304", "GET"), "Status: 304 Not Modified\r\nContent-length: 10\r\n\r\n");
    let more = ask("more", "GET");
    assert_eq!((more.text(), more.app_status), (format!("{head}0123456789"), 0));
    assert!(more.errors().contains("more than its Content-Length says"), "{}", more.errors());
    for (what, message) in [
        ("fewer", "AssertionError: the application gave 5 bytes fewer than its Content-Length says"),
        ("nothing", "AssertionError: the application gave 10 bytes fewer than its Content-Length says"),
        ("wrong", "ValueError: start_response(): the Content-Length must be a number"),
        ("negative", "ValueError: start_response(): the Content-Length must be a number"),
    ] {
        let reply = ask(what, "GET");
        assert!(reply.text().starts_with("Status: 500 ") && reply.errors().contains(message), "{}", reply.errors());
    }
}

#[test]
fn a_part_is_not_taken_for_a_whole_answer() {
    let directory = Directory::new();
    let source = LENGTHS.to_owned()
        + "\n\ndef during():\n    yield b'x' * 100000\n    raise ValueError('during')\n\n\ninner = app\n\n\n\
           def app(environ, start_response):\n    if environ['QUERY_STRING'] != 'during':\n        return inner(environ, start_response)\n    \
           start_response('200 OK', [])\n    return during()\n";
    let (address, _runner) = serve(&directory, &source);
    for (query, message) in [("during", "ValueError: during"), ("broken", "fewer"), ("write", "wrote more")] {
        let mut socket = connect(&address);
        socket.write_all(&request(1, 1, true, &[("QUERY_STRING", query.as_bytes())], b"")).unwrap();
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(text.contains("200 OK") && text.contains(message), "{query}: {text}");
        assert!(!ends_a_request(&answer), "{query} ends without END_REQUEST");
    }
    assert!(call(&address, &[("QUERY_STRING", b"")], b"").text().ends_with("0123456789"));
}

/// Whether one of the records is an END_REQUEST.
fn ends_a_request(mut records: &[u8]) -> bool {
    while records.len() >= 8 {
        if records[1] == 3 {
            return true;
        }
        let length = usize::from(u16::from_be_bytes([records[4], records[5]])) + usize::from(records[6]);
        records = &records[8 + length..];
    }
    false
}

#[test]
fn an_answer_of_one_block_is_sent_at_once_with_its_end() {
    let directory = Directory::new();
    let (address, _runner) = serve(
        &directory,
        "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'x' * 1000]\n",
    );
    let mut socket = connect(&address);
    for _ in 0..10 {
        socket.write_all(&request(1, 1, true, &[], b"")).unwrap();
        let mut answer = [0; 4096];
        let count = socket.read(&mut answer).unwrap();
        assert!(ends_a_request(&answer[..count]), "{count} bytes came first");
    }
}

#[test]
fn what_an_application_gives_is_closed_however_it_ends() {
    let directory = Directory::new();
    let log = directory.path().join("log");
    let source = format!(
        r#"
import sys

class Blocks:
    def __init__(self, what):
        self.what = what

    def __iter__(self):
        if self.what == "before":
            raise KeyError("before")
        yield b"a block"
        if self.what == "during":
            raise KeyError("during")

    def close(self):
        open({:?}, "a").write(self.what + "\n")
        if self.what == "closing":
            raise KeyError("closing")

def app(environ, start_response):
    what = environ["QUERY_STRING"]
    if what == "again":
        start_response("200 OK", [("X", "1")])
        try:
            raise KeyError("again")
        except KeyError:
            start_response("503 Busy", [("Y", "2")], sys.exc_info())
        return [b"sorry"]
    if what == "late":
        start_response("200 OK", [])(b"sent")
        try:
            raise KeyError("late")
        except KeyError:
            start_response("503 Busy", [], sys.exc_info())
    if what == "number":
        start_response("200 OK", [])
        return b"text"
    if what == "None":
        return None
    if what == "exit":
        sys.exit(3)
    start_response("200 OK", [])
    return Blocks(what)
"#,
        log.display().to_string()
    );
    let (address, _runner) = serve(&directory, &source);
    let ask = |what: &str| call(&address, &[("QUERY_STRING", what.as_bytes())], b"");
    for (what, status, error) in [
        ("good", 200, ""),
        ("before", 500, "KeyError: 'before'"),
        ("during", 500, "KeyError: 'during'"),
        ("closing", 200, "KeyError: 'closing'"),
        ("again", 503, ""),
        ("number", 500, "the application gave int where bytes are wanted: it must give a list"),
        ("None", 500, "TypeError: 'NoneType' object is not iterable"),
        ("exit", 500, "SystemExit: 3"),
        ("good", 200, ""),
    ] {
        let reply = ask(what);
        assert!(reply.text().starts_with(&format!("Status: {status} ")), "{what}: {}", reply.text());
        assert!(reply.errors().contains(error) && reply.errors().is_empty() == error.is_empty(), "{}", reply.errors());
        assert_eq!(reply.app_status, u32::from(!error.is_empty()), "{what}");
    }
    assert_eq!(std::fs::read_to_string(log).unwrap(), "good\nbefore\nduring\nclosing\ngood\n");
    assert_eq!(ask("again").text(), "Status: 503 Busy\r\nY: 2\r\n\r\nsorry");
}

#[test]
fn a_generator_whose_client_has_gone_is_closed() {
    let directory = Directory::new();
    let log = directory.path().join("log");
    let source = format!(
        "import time\n\ndef blocks():\n    try:\n        while True:\n            yield b'x' * 10000\n            time.sleep(0.001)\n    \
         except GeneratorExit:\n        open({:?}, 'w').write('closed')\n        raise\n\n\n\
         def app(environ, start_response):\n    start_response('200 OK', [])\n    return blocks()\n",
        log.display().to_string()
    );
    let (address, _runner) = serve(&directory, &source);
    let mut socket = connect(&address);
    socket.write_all(&request(1, 1, false, &[], b"")).unwrap();
    socket.read_exact(&mut [0; 100_000]).unwrap();
    drop(socket);
    let end = Instant::now() + Duration::from_secs(20);
    while std::fs::read_to_string(&log).unwrap_or_default() != "closed" {
        assert!(Instant::now() < end, "the generator was not closed");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn of_a_file_as_much_is_sent_as_the_header_says() {
    let directory = Directory::new();
    let file = directory.file("file", "before and behind");
    let source = format!(
        "def app(environ, start_response):\n    start_response('200 OK', [('Content-Length', '3')])\n    \
         file = open({:?}, 'rb')\n    file.seek(7)\n    return environ['wsgi.file_wrapper'](file)\n",
        file.display().to_string()
    );
    let (address, _runner) = serve(&directory, &source);
    let reply = call(&address, &[], b"");
    assert_eq!((&reply.text()[..], &reply.errors()[..]), ("Status: 200 OK\r\nContent-Length: 3\r\n\r\nand", ""));
}

#[test]
fn a_file_is_sent_in_pieces_and_closed() {
    let directory = Directory::new();
    let file = directory.file("file", vec![b'f'; 3 << 20]);
    let source = format!(
        "import resource\nopened = None\n\ndef app(environ, start_response):\n    global opened\n    \
         start_response('200 OK', [('X-Closed', str(opened and opened.closed))])\n    opened = open({:?}, 'rb')\n    \
         return environ['wsgi.file_wrapper'](opened, 1000)\n",
        file.display().to_string()
    );
    let (address, _runner) = serve(&directory, &source);
    let mut socket = connect(&address);
    for closed in ["None", "True"] {
        socket.write_all(&request(1, 1, true, &[], b"")).unwrap();
        let reply = read_reply(&mut *socket, 1);
        let head = format!("Status: 200 OK\r\nX-Closed: {closed}\r\n\r\n");
        assert!(reply.text().starts_with(&head) && reply.stdout.len() == head.len() + (3 << 20), "{closed}");
    }
}

/// Applications are found however they are bound, and a script that has something of such a name is not taken for one. Each of
/// them is run as often as it must be.
#[test]
fn what_is_an_application() {
    const ONE: &str =
        "(environ, start_response):\n        start_response('200 OK', [])\n        return [b'application']\n";
    const CGI: &str = "print('Status: 200 OK\\n\\napplication')";
    let (once, always) = (1, 3);
    let scripts = [
        ("in a branch", format!("try:\n    from missing import app\nexcept ImportError:\n    def app{ONE}"), once),
        ("by a star", "from applications import *\n".to_owned(), once),
        ("made", format!("def app():\n    def made{ONE}    return made\napplication = app()\n"), once),
        (
            "a class",
            "class app:\n    def __init__(self, environ, start):\n        start('200 OK', [])\n    \
             def __iter__(self):\n        yield b'application'\n"
                .to_owned(),
            once,
        ),
        ("called", format!("def app(a, b):\n    {CGI}\nif __name__ == '__main__':\n    app(1, 2)\n"), always),
        ("a text", format!("app = 'an application'\n{CGI}\n"), always),
    ];
    for (what, source, runs) in scripts {
        let directory = Directory::new();
        directory.file("applications.py", format!("if True:\n    def app{ONE}"));
        let log = directory.path().join("log");
        let source = format!("open({:?}, 'a').write('x')\n{source}", log.display().to_string());
        let (address, _runner) = serve(&directory, &source);
        for _ in 0..3 {
            let text = call(&address, &[], b"").text().replace('\r', "");
            assert_eq!(text.trim_end(), "Status: 200 OK\n\napplication", "{what}");
        }
        assert_eq!(std::fs::read_to_string(&log).unwrap().len(), runs, "{what}");
    }
}
