//! Ordinary Python scripts in several threads of one process (`--threads`): each request finds what is its own.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::call;
use crate::support::{Directory, FCGI_PYTHON, Running, plain_environment, serve_with};

const THREADS: &[&str] = &["--threads", "4"];

/// Sends requests with queries `0..count` from six clients at once; gives what each was answered.
fn ask_at_once(address: &str, count: usize, ask: impl Fn(&str, usize) + Sync) {
    std::thread::scope(|scope| {
        for client in 0..6 {
            let ask = &ask;
            scope.spawn(move || (0..count).for_each(|number| ask(address, client * count + number)));
        }
    });
}

#[test]
fn all_that_a_request_has_is_its_own() {
    let directory = Directory::new();
    let script = directory.file(
        "own.py",
        r#"
import __main__
import atexit
import io
import logging
import os
import pickle
import subprocess
import sys
import threading
import time

import volatile

query = os.environ["QUERY_STRING"]


class Kept:
    pass


def said(what):
    print(what, os.environ["QUERY_STRING"], flush=True)


print("Content-Type: text/plain\n")
thread = threading.Thread(target=said, args=("thread",))
thread.start()
thread.join()
os.environ["OWN"] = query
sys.path.append(query)
sys.argv.append(query)
os.mkdir(query)
os.chdir(query)
os.umask(int(query) % 8)
logging.basicConfig(stream=sys.stdout, format="%(message)s")
sys.excepthook = lambda kind, value, trace: print("hook", value, query)
atexit.register(print, "atexit", query)
time.sleep(0.005)
print(os.getenv("OWN"), sys.path[-1], sys.argv[-1], os.path.basename(os.getcwd()), os.umask(0), volatile.QUERY)
print(__main__.query, sys.modules["__main__"].query, type(pickle.loads(pickle.dumps(Kept()))) is Kept)
before, sys.stdout = sys.stdout, io.StringIO()
print("kept")
time.sleep(0.005)
kept, sys.stdout = sys.stdout.getvalue(), before
print(kept + query, flush=True)
os.write(1, b"descriptor %s\n" % query.encode())
os.system("echo system $QUERY_STRING $OWN")
subprocess.run(["sh", "-c", "echo run $QUERY_STRING; echo error $QUERY_STRING >&2; cat"])
os.write(sys.stdout.fileno(), subprocess.check_output("echo output; exec cat", shell=True, stdin=sys.stdin))
child = os.fork()
if child == 0:
    os.write(1, b"child %s\n" % os.environb[b"OWN"])
    sys.exit(3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), sys.stdin.read())
raise ValueError("raised")
"#,
    );
    directory.file("volatile.py", "import os, time\nQUERY = os.environ['QUERY_STRING']\ntime.sleep(0.01)\n");
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    ask_at_once(&address, 25, |address, n| {
        let reply = call(address, &[("QUERY_STRING", n.to_string().as_bytes())], format!("body {n}").as_bytes());
        let expected = format!(
            "Content-Type: text/plain\n\nthread {n}\n{n} {n} {n} {n} {} {n}\n{n} {n} True\nkept\n{n}\n\
             descriptor {n}\nsystem {n} {n}\nrun {n}\nbody {n}output\nchild {n}\natexit {n}\n3 \nhook raised {n}\natexit {n}\n",
            n % 8
        );
        assert_eq!((reply.text(), reply.errors(), reply.app_status), (expected, format!("error {n}\n"), 1));
    });
}

#[test]
fn who_waits_for_a_module_that_another_request_loads_gets_his_own() {
    let directory = Directory::new();
    for module in ["first", "second"] {
        let text = "import os\nimport time\nquery = os.environ['QUERY_STRING']\ntime.sleep(0.2)\n";
        directory.file(&format!("{module}.py"), text);
    }
    let script = directory.file(
        "app.py",
        r#"
import sys
import time


class Slow:
    """Takes its time to find nothing."""

    def find_spec(self, name, path=None, target=None):
        if name == "second":
            time.sleep(0.2)


sys.meta_path.insert(0, Slow())
print("Content-Type: text/plain\n")
import first
import second
print(first.query, second.query)
"#,
    );
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    ask_at_once(&address, 1, |address, number| {
        let reply = call(address, &[("QUERY_STRING", number.to_string().as_bytes())], b"");
        assert_eq!(reply.text(), format!("Content-Type: text/plain\n\n{number} {number}\n"), "{}", reply.errors());
    });
}

#[test]
fn a_module_of_another_request_is_not_loaded_by_looking_through_all() {
    let directory = Directory::new();
    directory.file("says.py", "import os\nprint('loaded for', os.environ['QUERY_STRING'])\n");
    directory.file("names.py", "argv = 'its own'\n");
    let script = directory.file(
        "app.py",
        r#"
import inspect
import os
import sys

print("Content-Type: text/plain\n")
import names
assert names.argv == "its own" and type(names) is type(os) and isinstance(names, type(sys)), type(names)
if os.environ["QUERY_STRING"] != "none":
    import says
else:
    print(len(inspect.stack()), hasattr(sys.modules["says"], "os"), vars(sys.modules["says"])["__name__"])
"#,
    );
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    for (query, said) in
        [("a", "loaded for a"), ("none", "1 False says"), ("b", "loaded for b"), ("none", "1 False says")]
    {
        let reply = call(&address, &[("QUERY_STRING", query.as_bytes())], b"");
        assert_eq!(reply.text(), format!("Content-Type: text/plain\n\n{said}\n"), "{}", reply.errors());
    }
}

#[test]
fn what_ends_one_request_ends_no_other() {
    let directory = Directory::new();
    let script = directory.file(
        "app.py",
        "import os, signal, sys, threading, time\nprint('Content-Type: text/plain\\n', flush=True)\ntime.sleep(0.002)\nexec(os.environ['QUERY_STRING'])\nprint('end')",
    );
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    let ends = [
        ("os._exit(5)", 5, ""),
        ("os.abort()", 134, ""),
        ("os.kill(os.getpid(), signal.SIGTERM)", 143, ""),
        ("signal.raise_signal(signal.SIGUSR2)", 140, ""),
        ("signal.signal(signal.SIGUSR1, lambda *_: print('heard')); os.kill(os.getpid(), 10)", 0, "heard\nend\n"),
        ("os.execv('/bin/false', ['false'])", 1, ""),
        ("sys.exit(7)", 7, ""),
        ("signal.alarm(1)", 0, "end\n"),
        ("os.close(1)", 0, ""),
        ("sys.stdout.close(); exit(3)", 3, ""),
        ("os.dup2(os.open(os.devnull, os.O_WRONLY), 1)", 0, ""),
        ("open(1, 'w').write('by number\\n')", 0, "by number\nend\n"),
        ("sys.stdout = os.fdopen(1, 'w')", 0, "end\n"),
        ("threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", 0, "end\n"),
        (
            "import concurrent.futures as c; p = c.ProcessPoolExecutor(1); print(p.submit(abs, -3).result())",
            0,
            "3\nend\n",
        ),
    ];
    let begun = Instant::now();
    ask_at_once(&address, 40, |address, n| {
        let (query, status, said) = ends[n % ends.len()];
        let reply = call(address, &[("QUERY_STRING", query.as_bytes())], b"");
        let expected = format!("Content-Type: text/plain\n\n{said}");
        assert_eq!((reply.text(), reply.app_status), (expected, status), "{query} {}", reply.errors());
    });
    assert!(begun.elapsed() < Duration::from_secs(60), "no daemon thread is waited for");
}

#[test]
fn what_a_process_has_once_is_put_back_when_no_script_runs() {
    let directory = Directory::new();
    let script = directory.file(
        "change.py",
        r#"
import json
import os
import random
import sys
import warnings

print("Content-Type: text/plain\n")
print(json.dumps([1]), sys.getrecursionlimit(), len(warnings.filters), hasattr(json, "left"))
if os.environ["QUERY_STRING"] == "change":
    json.dumps = json.left = lambda _: "changed"
    sys.setrecursionlimit(500)
    warnings.simplefilter("ignore")
"#,
    );
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    let ask = |query: &str| call(&address, &[("QUERY_STRING", query.as_bytes())], b"").text();
    let first = ask("change");
    for _ in 0..3 {
        assert_eq!(ask("look"), first);
        assert_eq!(ask("change"), first);
    }
}

#[test]
fn threads_of_modules_and_pools() {
    let directory = Directory::new();
    directory.file("pools.py", "import concurrent.futures\npool = concurrent.futures.ThreadPoolExecutor(2)\n");
    let script = directory.file(
        "app.py",
        "import os, pools\nprint('Content-Type: text/plain\\n')\npools.pool.submit(lambda: print('pooled', os.environ['QUERY_STRING'])).result()\n",
    );
    let address = directory.socket("s");
    let mut runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    ask_at_once(&address, 20, |address, n| {
        let reply = call(address, &[("QUERY_STRING", n.to_string().as_bytes())], b"");
        assert_eq!(reply.text(), format!("Content-Type: text/plain\n\npooled {n}\n"), "{}", reply.errors());
    });
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(20)).0, Some(0));
}

#[test]
fn an_application_in_a_script_is_loaded_once_for_all_threads() {
    let directory = Directory::new();
    let source = "import sys, threading, time\nloaded = time.time_ns()\nbarrier = threading.Barrier(4)\n\ndef app(environ, start_response):\n    if environ['QUERY_STRING'] == 'meet':\n        barrier.wait(20)\n    start_response('200 OK', [])\n    return [b'%d %d' % (sys.modules['__main__'].loaded, VERSION)]\n\nVERSION = 1\n";
    let script = directory.file("app.py", source);
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    let ask = |query: &str, body: &[u8]| call(&address, &[("QUERY_STRING", query.as_bytes())], body).text();
    let first = ask("alone", b"body");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(ask("meet", b""), first));
        }
    });
    std::thread::sleep(Duration::from_millis(1100));
    directory.file("app.py", source.replace("VERSION = 1", "VERSION = 2"));
    let second = ask("alone", b"");
    assert!(second.ends_with(" 2") && second != first, "{second}");
    std::thread::sleep(Duration::from_millis(1100));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(ask("meet", b""), second));
        }
    });
}

#[test]
fn accept_loops_at_once() {
    let directory = Directory::new();
    let script = directory.file(
        "loop.py",
        "import os, subprocess, sys\nimport fcgi\n\nwhile fcgi.accept():\n    print('Content-Type: text/plain\\n')\n    print(os.environ['QUERY_STRING'], sys.stdin.read(), fcgi.role(), fcgi.aborted(), flush=True)\n    subprocess.run('echo child $QUERY_STRING', shell=True)\n",
    );
    let address = directory.socket("s");
    let mut command = Command::new(FCGI_PYTHON);
    plain_environment(&mut command);
    command.args(["--listen", &address]).args(THREADS).arg(script).stdin(Stdio::null()).stderr(Stdio::null());
    let mut runner = Running::start(&mut command);
    ask_at_once(&address, 20, |address, n| {
        let reply = call(address, &[("QUERY_STRING", n.to_string().as_bytes())], b"body");
        assert_eq!(
            reply.text(),
            format!("Content-Type: text/plain\n\n{n} body RESPONDER False\nchild {n}\n"),
            "{}",
            reply.errors()
        );
    });
    runner.signal("TERM");
    assert_eq!(runner.wait(Duration::from_secs(20)).0, Some(0));
}

#[test]
fn requests_are_objects_in_each_thread() {
    let directory = Directory::new();
    let script = directory.file(
        "app.py",
        r#"
import fcgi
import os

for request in fcgi.requests():
    query = request.params["QUERY_STRING"]
    answer = "Content-Type: text/plain\n\n%s %s %s\n" % (query, os.environ.get("QUERY_STRING"), fcgi.role())
    request.stdout.write(answer.encode())
"#,
    );
    let address = directory.socket("s");
    let _runner = serve_with(FCGI_PYTHON, &address, &[THREADS, &[&script.display().to_string()]].concat());
    ask_at_once(&address, 20, |address, number| {
        let reply = call(address, &[("QUERY_STRING", number.to_string().as_bytes())], b"");
        assert_eq!(
            reply.text(),
            format!("Content-Type: text/plain\n\n{number} None RESPONDER\n"),
            "{}",
            reply.errors()
        );
    });
}
