//! The access log: what a line says of scripts, applications and event loops; several writers; logrotate.

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::call;
use crate::support::{Directory, FCGI_LUA, serve};

/// Lines of a file, as soon as there are so many.
fn lines(path: &Path, count: usize) -> Vec<String> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        if text.lines().count() >= count && text.ends_with('\n') {
            return text.lines().map(str::to_owned).collect();
        }
        assert!(Instant::now() < end, "not {count} lines: {text}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const SCRIPT: &str = "
local query = os.getenv('QUERY_STRING')
if query == 'fail' then error('on purpose') end
if query == 'none' then os.exit(4) end
io.write('Status: 201 Made\\nX-Name: me\\nContent-Type: text/plain\\n\\n', ('x'):rep(200000))
os.exit(3)";

fn ask(address: &str, query: &str, body: &[u8]) {
    let uri = format!("/a b?{query}");
    let length = body.len().to_string();
    let pairs: [(&str, &[u8]); 6] = [
        ("REQUEST_METHOD", b"POST"),
        ("REQUEST_URI", uri.as_bytes()),
        ("QUERY_STRING", query.as_bytes()),
        ("REMOTE_ADDR", b"192.0.2.1"),
        ("REMOTE_USER", b"an\"na\n"),
        ("CONTENT_LENGTH", length.as_bytes()),
    ];
    call(address, &pairs, body);
}

#[test]
fn scripts() {
    for isolation in ["globals", "state"] {
        let directory = Directory::new();
        let script = directory.file("app.lua", SCRIPT).display().to_string();
        let address = directory.socket("s");
        let log = directory.path().join("access.log");
        let path = log.display().to_string();
        let format = "%R|%u|%m|%r%Q%q|%s|%x|%b|%l|%{X-Name}o|%{QUERY_STRING}e|%n|%f";
        let arguments = ["--access-log", &path, "--access-format", format, "--isolation", isolation, &script];
        let _runner = serve(&address, &arguments);
        ask(&address, "q=1", b"body");
        ask(&address, "fail", b"");
        ask(&address, "none", b"");
        let user = r"an\x22na\x0A";
        assert_eq!(
            lines(&log, 3),
            [
                format!("192.0.2.1|{user}|POST|/a b?q=1|201|3|200000|4|me|q=1|lua|-"),
                // The error page.
                format!("192.0.2.1|{user}|POST|/a b?fail|500|1|26|0|-|fail|lua|-"),
                // The one for a script that says nothing.
                format!("192.0.2.1|{user}|POST|/a b?none|500|4|26|0|-|none|lua|-"),
            ],
            "{isolation}"
        );
    }
}

#[test]
fn json_of_several_workers() {
    let directory = Directory::new();
    let script = directory.file("app.lua", SCRIPT).display().to_string();
    let address = directory.socket("s");
    let log = directory.path().join("access.log");
    let path = log.display().to_string();
    let _runner = serve(&address, &["--workers", "3", "--access-log", &path, "--access-format", "json", &script]);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..20).for_each(|_| ask(&address, "q", b"")));
        }
    });
    let mut pids = HashSet::new();
    for line in lines(&log, 120) {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert_eq!((&line["uri"], &line["query"], &line["status"]), (&"/a b".into(), &"q".into(), &201.into()));
        assert!(line["duration_ms"].as_f64().unwrap() > 0.0 && line["memory"].as_u64().unwrap() > 1 << 20, "{line}");
        assert!(line["user_ms"].is_number() && line["time"].as_str().unwrap().contains('T'), "{line}");
        pids.insert(line["pid"].as_u64().unwrap());
    }
    assert!(!pids.is_empty() && pids.len() <= 3);
}

#[test]
fn a_file_that_was_moved_away_is_opened_anew() {
    let directory = Directory::new();
    let script = directory.file("app.lua", SCRIPT).display().to_string();
    let address = directory.socket("s");
    let log = directory.path().join("access.log");
    let path = log.display().to_string();
    let _runner = serve(&address, &["--access-log", &path, "--access-format", "%q", &script]);
    ask(&address, "first", b"");
    assert_eq!(lines(&log, 1), ["first"]);
    std::fs::rename(&log, directory.path().join("access.log.1")).unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    while !log.exists() {
        assert!(Instant::now() < end, "the file is not opened anew");
        ask(&address, "later", b"");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(lines(&log, 1).iter().all(|line| line == "later"));
}

#[test]
fn what_is_no_format_is_said() {
    for (arguments, said) in [
        (&["--access-log", "stderr", "--access-format", "%Z"][..], "there is no field %Z"),
        (&["--access-format", "%s"], "--access-log"),
        (&["--access-log", "/nowhere/at/all"], "/nowhere/at/all (--access-log)"),
    ] {
        let directory = Directory::new();
        let script = directory.file("app.lua", "");
        let mut command = Command::new(FCGI_LUA);
        let done = command.args(["--listen", &directory.socket("s")]).args(arguments).arg(script).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.contains(said), "{text}");
    }
}

#[cfg(feature = "python")]
#[test]
fn applications_of_python() {
    use crate::support::{FCGI_PYTHON, serve_with};
    let wsgi = "def app(environ, start_response):
    start_response('202 Fine', [('X-Name', 'wsgi')])
    return [b'12345', b'67']";
    let asgi = "async def app(scope, receive, send):
    if scope['type'] == 'lifespan':
        return
    await send({'type': 'http.response.start', 'status': 202, 'headers': [(b'x-name', b'asgi')]})
    await send({'type': 'http.response.body', 'body': b'12345', 'more_body': True})
    await send({'type': 'http.response.body', 'body': b'67'})";
    for (name, text, interface) in [("wsgi", wsgi, "wsgi"), ("asgi", asgi, "asgi:asyncio")] {
        let directory = Directory::new();
        let script = directory.file("app.py", text).display().to_string();
        let address = directory.socket("s");
        let log = directory.path().join("access.log");
        let path = log.display().to_string();
        let format = "%m %r %s %b %{x-name}o %n";
        let arguments = ["--interface", interface, "--access-log", &path, "--access-format", format, &script];
        let _runner = serve_with(FCGI_PYTHON, &address, &arguments);
        ask(&address, "", b"");
        assert_eq!(lines(&log, 1), [format!("POST /a b 202 7 {name} python")], "{name}");
    }
}
