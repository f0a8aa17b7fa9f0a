//! Status pages and ping: what workers, threads and event loops do, in all forms, while they do it.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{call, connect, read_reply, request};
use crate::support::{Directory, Running, repository, serve};

/// Says that it has begun, by a file, and works on until another file is there.
const SLOW: &str = "io.open('begun', 'w'):close()
repeat os.execute('sleep 0.02') local f = io.open('go') until f
print('Content-Type: text/plain\\n') print('done')";

fn ask(address: &str, uri: &str) -> String {
    let query = uri.split_once('?').map_or("", |(_, query)| query);
    let pairs: [(&str, &[u8]); 3] =
        [("REQUEST_METHOD", b"GET"), ("REQUEST_URI", uri.as_bytes()), ("QUERY_STRING", query.as_bytes())];
    let text = call(address, &pairs, b"").text();
    text.split_once("\r\n\r\n").expect("a head").1.to_owned()
}

fn json(address: &str, query: &str) -> serde_json::Value {
    let text = ask(address, &format!("/status?json{query}"));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A server whose script can be made to wait, and one request that waits.
struct Busy {
    directory: Directory,
    address: String,
    _runner: Running,
    client: Box<dyn crate::support::client::Socket>,
}

impl Busy {
    fn start(arguments: &[&str]) -> Self {
        let directory = Directory::new();
        let script = directory
            .file("slow.lua", SLOW.replace("'begun'", "arg[1] .. '/begun'").replace("'go'", "arg[1] .. '/go'"));
        let address = directory.socket("s");
        let (script, place) = (script.display().to_string(), directory.path().display().to_string());
        let all = [arguments, &["--status", "/status", "--ping", "/ping", &script, &place]].concat();
        let runner = serve(&address, &all);
        let mut client = connect(&address);
        let pairs: [(&str, &[u8]); 5] = [
            ("REQUEST_METHOD", b"POST"),
            ("REQUEST_URI", b"/slow?x=<\"1\">"),
            ("SCRIPT_FILENAME", script.as_bytes()),
            ("REMOTE_USER", b"anna"),
            ("CONTENT_LENGTH", b"4"),
        ];
        client.write_all(&request(1, 1, false, &pairs, b"body")).unwrap();
        let begun = directory.path().join("begun");
        wait_for("the request has begun", || begun.exists());
        Self { directory, address, _runner: runner, client }
    }

    fn finish(&mut self) {
        self.directory.file("go", "");
        assert!(read_reply(&mut *self.client, 1).text().contains("done"));
    }
}

fn check(arguments: &[&str], manager: &str) {
    let mut busy = Busy::start(arguments);
    let address = busy.address.clone();
    assert_eq!(ask(&address, "/ping"), "pong", "{arguments:?}");
    let status = json(&address, "");
    let number = |name: &str| status[name].as_u64().unwrap_or_else(|| panic!("{name}: {status}"));
    assert_eq!((status["pool"].as_str(), status["process manager"].as_str()), (Some("lua"), Some(manager)));
    assert_eq!((number("accepted conn"), number("active processes")), (1, 1), "{status}");
    wait_for("all interpreters are there", || json(&address, "")["total processes"] == 2);
    assert!(status["processes"].is_null());
    let full = json(&address, "&full");
    let lines = full["processes"].as_array().unwrap();
    let line = lines.iter().find(|line| line["state"] == "running").unwrap();
    assert_eq!((&line["request method"], &line["request uri"]), (&"POST".into(), &"/slow?x=<\"1\">".into()), "{full}");
    assert_eq!((&line["user"], &line["content length"], &line["requests"]), (&"anna".into(), &4.into(), &1.into()));
    assert!(line["script"].as_str().unwrap().ends_with("/slow.lua"), "{full}");
    assert!(ask(&address, "/status").contains(&format!("process manager:      {manager}\n")));
    assert!(ask(&address, "/status?full").contains("request uri:          /slow?x=<\"1\">\n"));
    assert!(ask(&address, "/status?html&full").contains("<td>/slow?x=&lt;&quot;1&quot;&gt;</td>"));

    busy.finish();
    wait_for("the interpreter idles", || json(&address, "")["active processes"] == 0);
    let full = json(&address, "&full");
    let line = full["processes"].as_array().unwrap().iter().find(|line| line["requests"] == 1).unwrap().clone();
    assert_eq!(line["state"], "idle");
    assert!(
        line["request duration"].as_u64().unwrap() > 0 && line["last request memory"].as_u64().unwrap() > 0,
        "{line}"
    );
}

#[test]
fn workers() {
    check(&["--workers", "2"], "static");
}

#[test]
fn threads() {
    check(&["--threads", "2"], "none");
}

/// What an HTTP server at this address says of the status.
fn by_http(address: &str, uri: &str) -> String {
    let mut socket = connect(address);
    socket.write_all(format!("GET {uri} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut socket, &mut text).unwrap();
    text
}

#[test]
fn a_socket_of_its_own_while_everybody_is_busy() {
    for workers in [&["--workers", "1"][..], &[]] {
        let place = Directory::new();
        let status = place.socket("status");
        let mut busy = Busy::start(&[workers, &["--status-listen", &status]].concat());
        // The only interpreter works; this is somebody else.
        assert_eq!(ask(&status, "/ping"), "pong");
        assert_eq!(json(&status, "&full")["processes"][0]["request uri"], "/slow?x=<\"1\">");
        let page = by_http(&status, "/status?json");
        assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.contains("\"active processes\":1"), "{page}");
        assert!(by_http(&status, "/other").starts_with("HTTP/1.1 404 "));
        busy.finish();
        if !workers.is_empty() {
            // The socket outlives a reload, and so does what was counted.
            busy._runner.signal("HUP");
            let end = Instant::now() + Duration::from_secs(60);
            let pid = || json(&status, "&full")["processes"][0]["pid"].as_u64();
            let before = pid();
            while pid() == before || pid().is_none() {
                assert!(Instant::now() < end, "not reloaded");
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(json(&status, "")["accepted conn"], 1);
        }
    }
}

#[test]
fn other_paths_are_the_scripts() {
    let directory = Directory::new();
    let script =
        directory.file("uri.lua", "print('Content-Type: text/plain\\r\\n\\r') io.write(os.getenv('REQUEST_URI'))");
    let address = directory.socket("s");
    let _runner = serve(&address, &["--ping", "/ping", "--ping-response", "here I am", &script.display().to_string()]);
    assert_eq!(ask(&address, "/ping?x=1"), "here I am");
    for uri in ["/ping/", "/pings", "/status", "/a/ping", "/a?/ping"] {
        assert_eq!(ask(&address, uri), uri);
    }
}

#[test]
fn what_was_counted_outlives_a_worker() {
    let directory = Directory::new();
    let script = directory.file(
        "pid.lua",
        "print('Content-Type: text/plain\\r\\n\\r') io.write((io.open('/proc/self/stat'):read('*n')))",
    );
    let address = directory.socket("s");
    let _runner = serve(&address, &["--workers", "1", "--status", "/status", &script.display().to_string()]);
    let pid = ask(&address, "/");
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    wait_for("another worker", || ask(&address, "/") != pid);
    let status = json(&address, "&full");
    assert_eq!(
        (&status["accepted conn"], &status["failed workers"], &status["total processes"]),
        (&2.into(), &1.into(), &1.into())
    );
}

#[cfg(feature = "python")]
#[test]
fn event_loops() {
    use crate::support::{FCGI_PYTHON, serve_with};
    let directory = Directory::new();
    let app = "import asyncio
async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    if scope['path'] == '/slow':
        open(DIRECTORY + '/begun', 'w').close()
        import os.path
        while not os.path.exists(DIRECTORY + '/go'):
            await asyncio.sleep(0.02)
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': b'done'})
";
    let script = directory.file("app.py", format!("DIRECTORY = {:?}\n{app}", directory.path().display().to_string()));
    let address = directory.socket("s");
    let script = script.display().to_string();
    let arguments = ["--interface", "asgi", "--status", "/status", "--ping", "/ping", &script];
    let _runner = serve_with(FCGI_PYTHON, &address, &arguments);
    let mut client = connect(&address);
    let pairs: [(&str, &[u8]); 3] = [("REQUEST_METHOD", b"GET"), ("REQUEST_URI", b"/slow"), ("PATH_INFO", b"/slow")];
    client.write_all(&request(1, 1, false, &pairs, b"")).unwrap();
    let begun = directory.path().join("begun");
    wait_for("the request has begun", || begun.exists());
    assert_eq!(ask(&address, "/ping"), "pong");
    let status = json(&address, "&full");
    assert_eq!((&status["active processes"], &status["processes"][0]["request uri"]), (&1.into(), &"/slow".into()));
    directory.file("go", "");
    read_reply(&mut *client, 1);
    wait_for("the loop idles", || json(&address, "")["active processes"] == 0);
}

/// As Prometheus reads it.
#[test]
fn metrics_are_what_the_real_parser_reads() {
    let busy = Busy::start(&["--workers", "2"]);
    let metrics = ask(&busy.address, "/status?openmetrics");
    let python = repository().join("target/test-tools/bin/python");
    assert!(python.exists(), "{} is missing: tests/run makes it", python.display());
    let read = "import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
for family in text_string_to_metric_families(sys.stdin.read()):
    for sample in family.samples:
        print(family.type, sample.name, sorted(sample.labels.items()), sample.value)";
    let mut parser =
        Command::new(python).args(["-c", read]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    parser.stdin.take().unwrap().write_all(metrics.as_bytes()).unwrap();
    let done = parser.wait_with_output().unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(done.status.success(), "{metrics}");
    for line in [
        "counter fcgi_requests_total [('pool', 'lua')] 1",
        "gauge fcgi_interpreters [('pool', 'lua'), ('state', 'active')] 1",
        "gauge fcgi_queue_connections [('pool', 'lua')] 0",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}
