//! `--isolation fork`: what a script does dies with its child, whatever it is; the worker and its connections live on.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::client::{Reply, call, connect, params, read_reply, record, request, stream};
use crate::support::{Directory, FCGI_LUA, Running, serve_with};

fn forked(runner: &str, directory: &Directory, script: &str, options: &[&str]) -> (String, Running) {
    let address = directory.socket("s");
    let mut arguments = vec!["--isolation", "fork"];
    arguments.extend_from_slice(options);
    arguments.push(script);
    let running = serve_with(runner, &address, &arguments);
    (address, running)
}

fn ask(address: &str, query: &str, body: &[u8]) -> Reply {
    call(address, &[("REQUEST_METHOD", b"GET"), ("QUERY_STRING", query.as_bytes())], body)
}

#[cfg(feature = "python")]
const HARMFUL: &str = r#"
import ctypes, gc, itertools, json, os, signal, sys, threading, time
what = os.environ["QUERY_STRING"]
print("Content-Type: text/plain\n")
if what == "look":
    # All that the others have left, were there anything.
    print(json.dumps([
        hasattr(json, "left"), hasattr(itertools, "left") or hasattr(itertools.count, "left"), len(os.listdir("/proc/self/fd")), threading.active_count(),
        signal.getsignal(signal.SIGUSR2) == signal.SIG_DFL, os.getcwd() == os.path.dirname(os.path.abspath(__file__)),
        os.environ.get("LEFT"), "/left" in sys.path, "left" in sys.modules,
    ]))
if what == "quit":
    print("quits", flush=True)
    os._exit(7)
if what == "crash":
    print("crashes", flush=True)
    ctypes.string_at(0)
if what == "silent crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if what == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
if what == "patch":
    json.left = itertools.left = True
    # A type of a module in C: its dictionary is one that Python does not let change.
    gc.get_referents(itertools.count.__dict__)[0]["left"] = "patched"
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(itertools.count))
    print(itertools.count.left)
if what == "leak":
    for _ in range(50):
        os.dup(os.open("/dev/null", os.O_RDONLY))
    os.environ["LEFT"] = "x"
    ctypes.CDLL(None).setenv(b"LEFT", b"x", 1)
    sys.path.append("/left")
    sys.modules["left"] = sys
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    os.chdir("/")
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
if what == "exec":
    sys.stdout.flush()
    os.execvp("sh", ["sh", "-c", "echo became a shell; exit 9"])
if what == "background":
    print("answered", flush=True)
    if os.fork() == 0:
        os.setsid()
        for number in range(3):
            os.close(number)
        time.sleep(2)
        open("background-has-ended", "w").close()
        os._exit(0)
"#;

#[cfg(feature = "python")]
#[test]
fn what_harms_a_process_dies_with_the_child() {
    let directory = Directory::new();
    let script = directory.file("harmful.py", HARMFUL).display().to_string();
    let address = directory.socket("s");
    let mut command = Command::new(crate::support::FCGI_PYTHON);
    crate::support::plain_environment(&mut command);
    command.args(["--isolation", "fork", "--listen", &address, &script]).stderr(std::process::Stdio::piped());
    let mut runner = Running::start(&mut command);
    let looks = ask(&address, "look", b"").text();
    // Besides 0, 1 and 2, the one of the list itself.
    let fresh = "Content-Type: text/plain\n\n[false, false, 4, 1, true, true, null, false, false]\n";
    assert_eq!(looks, fresh);
    for (what, says, status) in [
        ("quit", "quits\n", 7),
        ("crash", "crashes\n", 128 + 11),
        ("kill", "", 128 + 9),
        ("patch", "patched\n", 0),
        ("leak", "", 0),
        ("exec", "became a shell\n", 9),
        ("background", "answered\n", 0),
    ] {
        let reply = ask(&address, what, b"");
        assert!(reply.text().ends_with(says), "{what}: {reply:?}");
        assert_eq!(reply.app_status, status, "{what}: {reply:?}");
        assert_eq!(ask(&address, "look", b"").text(), fresh, "behind {what}");
    }
    let reply = ask(&address, "silent crash", b"");
    assert!(reply.text().starts_with("Status: 500 "), "{reply:?}");
    assert!(ask(&address, "kill", b"").text().starts_with("Status: 500 "), "what is buffered dies, too");
    let end = Instant::now() + Duration::from_secs(60);
    while !directory.path().join("background-has-ended").exists() {
        assert!(Instant::now() < end, "a process in the background was ended");
        std::thread::sleep(Duration::from_millis(20));
    }
    runner.signal("TERM");
    let (status, log) = runner.wait(Duration::from_secs(20));
    assert_eq!(status, Some(0), "the worker has lived: {log}");
    assert!(log.contains("was killed by SIGSEGV"), "{log}");
}

#[cfg(feature = "python")]
#[test]
fn modules_of_the_library_are_there_for_the_next_child() {
    let directory = Directory::new();
    // One beside the script has the name of one of the library; another one of the library says something as it is loaded.
    directory.file("colorsys.py", "mine = True");
    let text = r#"
import sys
had = "decimal" in sys.modules, "helper" in sys.modules, "this" in sys.modules
import decimal, helper, colorsys, this
print("Content-Type: text/plain\n")
print(*had, colorsys.mine, helper.count)
"#;
    directory.file("helper.py", "count = 1");
    let script = directory.file("loads.py", text).display().to_string();
    let (address, _runner) = forked(crate::support::FCGI_PYTHON, &directory, &script, &[]);
    let first = ask(&address, "", b"").text();
    assert!(first.contains("Beautiful is better"), "{first}");
    assert!(first.ends_with("\nFalse False False True 1\n"), "{first}");
    let second = ask(&address, "", b"").text();
    assert!(second.contains("Beautiful is better"), "{second}");
    assert!(second.ends_with("\nTrue False False True 1\n"), "{second}");
    // A script in the way of the library gets its own.
    directory.file("decimal.py", "Decimal = 'mine'");
    let third = ask(&address, "", b"").text();
    assert!(third.ends_with("\nFalse False False True 1\n"), "{third}");
}

#[cfg(feature = "python")]
#[test]
fn applications_are_called_once_by_each_child() {
    let directory = Directory::new();
    let text = r#"
count = 0
def application(environ, start_response):
    global count
    count += 1
    start_response("201 Made", [("Content-Type", "text/plain")])
    return [b"%d %s" % (count, environ["wsgi.input"].read())]
"#;
    let script = directory.file("app.py", text).display().to_string();
    let (address, _runner) = forked(crate::support::FCGI_PYTHON, &directory, &script, &[]);
    for _ in 0..3 {
        let reply = call(&address, &[("REQUEST_METHOD", b"POST"), ("CONTENT_LENGTH", b"4")], b"body").text();
        assert!(reply.starts_with("Status: 201 Made") && reply.ends_with("1 body"), "{reply}");
    }
    // The state before a loop is each child's as well.
    let text = "import fcgi\ncount = 0\nwhile fcgi.accept():\n    count += 1\n    print(f'Content-Type: text/plain\\n\\n{count}')\n    fcgi.set_exit_status(3)\n";
    let script = directory.file("loop.py", text).display().to_string();
    let address = directory.socket("loop");
    let _runner = serve_with(crate::support::FCGI_PYTHON, &address, &["--isolation", "fork", &script]);
    for _ in 0..2 {
        let reply = ask(&address, "", b"");
        assert_eq!((reply.text().as_str(), reply.app_status), ("Content-Type: text/plain\n\n1\n", 3));
    }
}

#[cfg(feature = "python")]
#[test]
fn an_application_is_told_of_a_client_that_leaves() {
    use std::io::Read;

    let directory = Directory::new();
    let log = directory.path().join("log");
    let source = format!(
        "def blocks():\n    try:\n        while True:\n            yield b'x' * 10000\n    \
         except GeneratorExit:\n        open({:?}, 'w').write('closed')\n        raise\n\n\n\
         def app(environ, start_response):\n    start_response('200 OK', [])\n    return blocks()\n",
        log.display().to_string()
    );
    let script = directory.file("site_app.py", source).display().to_string();
    let folder = directory.path().display().to_string();
    for arguments in [&[&*script][..], &["--chdir", &folder, "--app", "site_app"]] {
        let address = directory.socket("s");
        let options = [&["--isolation", "fork"], arguments].concat();
        let _runner = serve_with(crate::support::FCGI_PYTHON, &address, &options);
        let mut socket = connect(&address);
        socket.write_all(&request(1, 1, false, &[], b"")).unwrap();
        socket.read_exact(&mut [0; 100_000]).unwrap();
        drop(socket);
        let end = Instant::now() + Duration::from_secs(60);
        while std::fs::read_to_string(&log).unwrap_or_default() != "closed" {
            assert!(Instant::now() < end, "{arguments:?}: the generator was not closed");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::fs::remove_file(&log).unwrap();
    }
}

#[test]
fn bodies_and_answers_of_any_size_stream_through() {
    let directory = Directory::new();
    // It answers as it reads: neither side may wait for the other.
    let text = "io.write('Content-Type: text/plain\\n\\n') io.stdout:flush()
        while true do local block = io.read(8192) if not block then break end io.write(block) end";
    let script = directory.file("echo.lua", text).display().to_string();
    let (address, _runner) = forked(FCGI_LUA, &directory, &script, &[]);
    let body: Vec<u8> = (0..3_000_000u32).map(|number| (number % 251) as u8).collect();
    let reply = ask(&address, "", &body);
    assert!(reply.stdout.ends_with(&body), "{} bytes", reply.stdout.len());
    // The beginning of an answer comes before the body has.
    let mut socket = connect(&address);
    socket.write_all(&record(1, 1, &[0, 1, 1, 0, 0, 0, 0, 0])).unwrap();
    socket.write_all(&stream(4, 1, &params(&[("REQUEST_METHOD", b"POST")]))).unwrap();
    let large = vec![b'x'; 100_000];
    for piece in large.chunks(50_000) {
        socket.write_all(&record(5, 1, piece)).unwrap();
    }
    let mut head = [0; 8];
    socket.read_exact(&mut head).unwrap();
    assert_eq!(head[1], 6, "output comes before the body's end");
    let mut content = vec![0; usize::from(head[4]) * 256 + usize::from(head[5]) + usize::from(head[6])];
    socket.read_exact(&mut content).unwrap();
    socket.write_all(&record(5, 1, b"")).unwrap();
    let rest = read_reply(&mut *socket, 1);
    assert_eq!((rest.app_status, rest.protocol_status), (0, 0));
    // The connection is as good as before, and a body that nobody reads does not disturb the next request.
    socket.write_all(&request(2, 1, true, &[("REQUEST_METHOD", b"POST")], b"short")).unwrap();
    assert!(read_reply(&mut *socket, 2).text().ends_with("short"));
}

#[test]
fn a_client_that_leaves_costs_its_own_request_alone() {
    let directory = Directory::new();
    let text = "io.write('Content-Type: text/plain\\n\\n')
        if os.getenv('QUERY_STRING') == 'much' then while true do io.write(('x'):rep(1000)) end end print('hello')";
    let script = directory.file("much.lua", text).display().to_string();
    let (address, _runner) = forked(FCGI_LUA, &directory, &script, &[]);
    let mut socket = connect(&address);
    socket.write_all(&request(1, 1, true, &[("QUERY_STRING", b"much")], b"")).unwrap();
    socket.read_exact(&mut [0; 100]).unwrap();
    drop(socket);
    // The child learns it as from a closed pipe; the one worker is free again.
    assert!(ask(&address, "", b"").text().ends_with("hello\n"));
}

#[test]
fn multiplexed_requests_come_one_after_the_other() {
    let directory = Directory::new();
    let text = "print('Content-Type: text/plain\\n') print(os.getenv('QUERY_STRING'), io.read('*a'))";
    let script = directory.file("say.lua", text).display().to_string();
    let (address, _runner) = forked(FCGI_LUA, &directory, &script, &[]);
    if !crate::support::lua_is_at_least(3) {
        return;
    }
    let mut socket = connect(&address);
    for id in 1..=5u16 {
        let query = format!("q{id}");
        socket.write_all(&request(id, 1, true, &[("QUERY_STRING", query.as_bytes())], query.as_bytes())).unwrap();
    }
    for id in 1..=5u16 {
        assert!(read_reply(&mut *socket, id).text().ends_with(&format!("q{id}\tq{id}\n")));
    }
}

#[test]
fn what_takes_too_long_is_ended_with_all_that_it_has_started() {
    let directory = Directory::new();
    let text = "local what = os.getenv('QUERY_STRING')
        if what == 'loop' then while true do end end
        if what == 'child' then os.execute('sleep 1000') end
        print('Content-Type: text/plain\\n')
        if what == 'begun' then io.stdout:flush() os.execute('sleep 0.2') print('half') io.stdout:flush() os.execute('sleep 1000') end
        print('done')";
    let script = directory.file("late.lua", text).display().to_string();
    let (address, _runner) = forked(FCGI_LUA, &directory, &script, &["--request-timeout", "1"]);
    for what in ["loop", "child"] {
        let begun = Instant::now();
        let reply = ask(&address, what, b"");
        assert!(reply.text().starts_with("Status: 504 "), "{what}: {reply:?}");
        assert_ne!(reply.app_status, 0);
        assert!(begun.elapsed() >= Duration::from_secs(1), "{what}");
    }
    // An answer of which a part has left is not given an end: the connection is closed.
    let mut socket = connect(&address);
    socket.write_all(&request(1, 1, true, &[("QUERY_STRING", b"begun")], b"")).unwrap();
    let mut all = Vec::new();
    socket.read_to_end(&mut all).unwrap();
    assert!(all.windows(4).any(|bytes| bytes == b"half"));
    assert!(ask(&address, "", b"").text().ends_with("done\n"));
}

#[test]
fn memory_is_bounded_in_the_child() {
    let directory = Directory::new();
    let text = "print('Content-Type: text/plain\\n')
        if os.getenv('QUERY_STRING') == 'much' then local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end end print('done')";
    let script = directory.file("memory.lua", text).display().to_string();
    let (address, _runner) = forked(FCGI_LUA, &directory, &script, &["--memory-limit", "50M"]);
    let reply = ask(&address, "much", b"");
    assert!(reply.errors().contains("not enough memory"), "{reply:?}");
    assert!(ask(&address, "", b"").text().ends_with("done\n"));
}

#[test]
fn wrong_use_is_refused() {
    let directory = Directory::new();
    let script = directory.file("hello.lua", "print('Content-Type: text/plain\\n')").display().to_string();
    let options = ["--listen", &directory.socket("s"), "--isolation", "fork", "--threads", "2", &script];
    let output = Command::new(FCGI_LUA).args(options).output().unwrap();
    let log = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{log}");
    assert!(log.contains("--threads is not for --isolation fork"), "{log}");
}

#[cfg(feature = "rhai")]
#[test]
fn rhai_too() {
    let directory = Directory::new();
    let text = r#"print("Content-Type: text/plain\n"); print(env("QUERY_STRING") + stdin.read()); exit(4);"#;
    let script = directory.file("say.rhai", text).display().to_string();
    let (address, _runner) = forked(crate::support::FCGI_RHAI, &directory, &script, &["--workers", "2"]);
    for _ in 0..3 {
        let reply = ask(&address, "a", b"b");
        assert_eq!((reply.text().as_str(), reply.app_status), ("Content-Type: text/plain\n\nab\n", 4), "{reply:?}");
    }
}
