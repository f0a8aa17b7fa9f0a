//! `--reload`: modules of the script's own directory, or the application's, that change on disk.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Reply, call, connect};
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment};

const PATIENCE: Duration = Duration::from_secs(60);

/// Serves with the directory as the working directory.
fn serve(directory: &Directory, name: &str, arguments: &[&str]) -> (String, Running) {
    let address = directory.socket(name);
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command.args(["--listen", &address]).args(arguments).current_dir(directory.path());
    let running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    drop(connect(&address));
    (address, running)
}

fn ask(address: &str) -> Reply {
    call(address, &[("REQUEST_METHOD", b"GET"), ("SCRIPT_NAME", b"/x")], b"")
}

fn body(address: &str) -> String {
    let text = ask(address).text();
    text.split_once("\r\n\r\n").or_else(|| text.split_once("\n\n")).map_or(text.clone(), |(_, body)| body.to_owned())
}

/// Asks until the answer is as expected: files are looked at once a second.
fn until(address: &str, expected: &str) {
    let end = Instant::now() + PATIENCE;
    while body(address) != expected {
        assert!(Instant::now() < end, "{expected}: still {}", ask(address).text());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Modules that know each other, one of them in a package; `text` is in the deepest.
fn modules(directory: &Directory, text: &str) {
    directory.file(
        "outer.py",
        "from package.inner import text\nimport package.inner\n\ndef both():\n    return text + package.inner.text\n",
    );
    directory.file("package/__init__.py", "");
    directory.file("package/inner.py", format!("text = {text:?}\n"));
}

const SCRIPT: &str = "import outer\nprint('Content-Type: text/plain\\n')\nprint(outer.both(), end='')\n";
const WSGI: &str = "from outer import both\nloaded = []\n\n\ndef application(environ, start_response):\n    loaded.append(1)\n    \
    start_response('200 OK', [])\n    return [b'%s %d' % (both().encode(), len(loaded))]\n";

#[test]
fn modules_of_scripts() {
    for threads in ["1", "3"] {
        let directory = Directory::new();
        modules(&directory, "a");
        directory.file("script.py", SCRIPT);
        let arguments: &[&str] = &["--reload", "--threads", threads, "script.py"];
        let (address, _running) = serve(&directory, "s", arguments);
        assert_eq!((body(&address), body(&address)), ("aa".to_owned(), "aa".to_owned()));
        modules(&directory, "second");
        until(&address, "secondsecond");
        // A broken one fails until it is mended, a missing one until it is back.
        directory.file("package/inner.py", "text = = 3");
        let failed = "Status: 500 Internal Server Error\r\nContent-Type: text/plain";
        let end = Instant::now() + PATIENCE;
        while !ask(&address).text().starts_with(failed) {
            assert!(Instant::now() < end, "{}", ask(&address).text());
        }
        assert!(ask(&address).errors().contains("inner.py\", line 1\n"), "{}", ask(&address).errors());
        std::fs::remove_dir_all(directory.path().join("package")).unwrap();
        assert!(ask(&address).errors().contains("ModuleNotFoundError"), "{}", ask(&address).errors());
        modules(&directory, "back");
        until(&address, "backback");
    }
}

#[test]
fn without_it_modules_stay() {
    let directory = Directory::new();
    modules(&directory, "a");
    directory.file("script.py", SCRIPT);
    let (address, _running) = serve(&directory, "s", &["script.py"]);
    assert_eq!(body(&address), "aa");
    modules(&directory, "second");
    directory.file("script.py", SCRIPT.replace("end=''", "'new', end=''"));
    until(&address, "aa new");
}

#[test]
fn applications_of_scripts() {
    for threads in ["1", "3"] {
        let directory = Directory::new();
        modules(&directory, "a");
        directory.file("app.py", WSGI);
        let arguments: &[&str] = &["--reload", "--threads", threads, "app.py"];
        let (address, _running) = serve(&directory, "s", arguments);
        assert_eq!((body(&address), body(&address)), ("aa 1".to_owned(), "aa 2".to_owned()));
        modules(&directory, "second");
        until(&address, "secondsecond 1");
        assert_eq!(body(&address), "secondsecond 2");
    }
}

#[test]
fn applications_by_name() {
    for threads in ["1", "3"] {
        let directory = Directory::new();
        modules(&directory, "a");
        directory.file("site_app.py", WSGI);
        let arguments: &[&str] = &["--reload", "--threads", threads, "--app", "site_app:application"];
        let (address, _running) = serve(&directory, "s", arguments);
        assert_eq!((body(&address), body(&address)), ("aa 1".to_owned(), "aa 2".to_owned()));
        modules(&directory, "second");
        until(&address, "secondsecond 1");
        assert_eq!(body(&address), "secondsecond 2");
        directory.file("site_app.py", "1 /");
        until(&address, "500 Internal Server Error\n");
        assert!(ask(&address).errors().contains("SyntaxError"), "{}", ask(&address).errors());
        directory.file("site_app.py", WSGI.replace("both()", "both().upper()"));
        until(&address, "SECONDSECOND 1");
    }
}

const ASGI: &str = "import asyncio\nfrom outer import both\n\n\ndef note(text):\n    with open('lifespan.log', 'a') as log:\n        \
    log.write(both() + ' ' + text + '\\n')\n\n\nasync def application(scope, receive, send):\n    \
    if scope['type'] == 'lifespan':\n        note((await receive())['type'])\n        \
    scope['state']['began'] = both()\n        await send({'type': 'lifespan.startup.complete'})\n        \
    note((await receive())['type'])\n        return await send({'type': 'lifespan.shutdown.complete'})\n    \
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n    \
    if scope['query_string'] == b'slow':\n        open('slow', 'w').close()\n        await send({'type': 'http.response.body', 'body': b'old', 'more_body': True})\n        \
    while open('go').read() != 'go':\n            await asyncio.sleep(.01)\n    \
    await send({'type': 'http.response.body', 'body': (scope['state']['began'] + both()).encode()})\n";

#[test]
fn asynchronous_applications() {
    for arguments in [&["--app", "site_app"][..], &["--interface", "asgi", "site_app.py"], &["site_app.py"]] {
        let directory = Directory::new();
        modules(&directory, "a");
        directory.file("site_app.py", ASGI);
        directory.file("go", "");
        let (address, mut running) = serve(&directory, "s", &[&["--reload"], arguments].concat());
        assert_eq!(body(&address), "aaaa");
        std::thread::scope(|scope| {
            // What has begun is finished by the application that it began with, which ends then.
            let slow =
                scope.spawn(|| call(&address, &[("REQUEST_METHOD", b"GET"), ("QUERY_STRING", b"slow")], b"").text());
            let end = Instant::now() + PATIENCE;
            while !directory.path().join("slow").exists() {
                assert!(Instant::now() < end, "the request does not begin");
                std::thread::sleep(Duration::from_millis(10));
            }
            modules(&directory, "b");
            until(&address, "bbbb");
            directory.file("site_app.py", "1 /");
            until(&address, "500 Internal Server Error\n");
            assert!(ask(&address).errors().contains("SyntaxError"), "{}", ask(&address).errors());
            directory.file("site_app.py", ASGI.replace("both()).encode", "both() + '+').encode"));
            until(&address, "bbbb+");
            directory.file("go", "go");
            let slow = slow.join().unwrap();
            assert!(slow.ends_with("oldaaaa"), "{slow}");
        });
        running.signal("TERM");
        assert_eq!(running.wait(PATIENCE).0, Some(0));
        let log = std::fs::read_to_string(directory.path().join("lifespan.log")).unwrap();
        let mut lines: Vec<&str> = log.lines().collect();
        lines.sort_unstable();
        let (start, stop) = ("lifespan.startup", "lifespan.shutdown");
        let expected = ["aa", "bb", "bb"].map(|text| [format!("{text} {stop}"), format!("{text} {start}")]).concat();
        let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        expected.sort_unstable();
        assert_eq!(lines, expected, "{arguments:?}");
    }
}
