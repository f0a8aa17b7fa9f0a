//! Scripts in Rhai that want too much: each is ended and told so, the worker lives on, and others are served meanwhile.

use std::io::{Read, Write};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use crate::support::client::{call, connect, request};
use crate::support::{Directory, FCGI_RHAI, Running, serve_with};

const TOO_LONG: &str = "the request takes too long (--request-timeout)";
const TOO_MUCH: &str = "the script wants more memory than it may have (--memory-limit)";
const LATE: &str = "504 Gateway Timeout";
const FAILED: &str = "500 Internal Server Error";

/// What it does, how the request ends, and what is said of it.
const HOSTILE: &[(&str, &str, &str, &str)] = &[
    ("an endless loop", "loop {}", LATE, TOO_LONG),
    ("an endless loop that catches", "loop { try { loop {} } catch {} }", LATE, TOO_LONG),
    ("a long sleep", "sleep(1000000);", LATE, TOO_LONG),
    ("a string that grows", "let s = \"abc\"; loop { s += s; }", FAILED, TOO_MUCH),
    ("a string that grows by replacement", "let s = \"aa\"; loop { s.replace(\"a\", s); }", FAILED, TOO_MUCH),
    ("a padded string", "let s = \"\"; s.pad(1000000000000, \"ab\");", FAILED, TOO_MUCH),
    ("a huge blob", "let b = blob(1000000000000);", FAILED, TOO_MUCH),
    ("a padded array", "let a = []; a.pad(1000000000000, 1);", FAILED, TOO_MUCH),
    ("an array that grows", "let a = []; loop { a.push(1); }", FAILED, TOO_MUCH),
    ("an array of itself", "let a = [1]; loop { a.push(a); }", FAILED, TOO_MUCH),
    ("many small strings", "let a = []; loop { a.push(`${a.len} or so`); }", FAILED, TOO_MUCH),
    ("a map that grows", "let m = #{}; let n = 0; loop { m[`k${n}`] = n; n += 1; }", FAILED, TOO_MUCH),
    ("many maps", "let a = []; loop { a.push(#{ a: 1 }); }", FAILED, TOO_MUCH),
    ("all of a text in pieces", "let s = \"\"; s.pad(500000, \"a\"); s.split(\"\");", FAILED, TOO_MUCH),
    (
        "one text many times as JSON",
        "let s = \"\"; s.pad(500000, \"a\"); let a = []; a.pad(1000, s); a.to_json();",
        FAILED,
        TOO_MUCH,
    ),
    (
        "one text many times as text",
        "let s = \"\"; s.pad(500000, \"a\"); let a = []; a.pad(1000, s); `${a}`;",
        FAILED,
        TOO_MUCH,
    ),
    ("what is caught", "let a = []; loop { try { a.pad(100000000, 1); } catch {} }", FAILED, TOO_MUCH),
    ("values in values", "let a = []; loop { a = [take(a)]; }", FAILED, TOO_MUCH),
    ("maps in maps", "let m = #{}; loop { m = #{ m: take(m) }; }", FAILED, TOO_MUCH),
    ("functions in functions", "let f = || 1; loop { let g = f; f = |x| g; }", FAILED, TOO_MUCH),
    ("a huge text as code", "let s = \"[1\"; s.pad(600000, \",1\"); eval(s + \"]\");", FAILED, TOO_MUCH),
    ("JSON of many values", "let s = \"[\"; s.pad(600000, \"[],\"); parse_json(s + \"1]\");", FAILED, TOO_MUCH),
    ("a deep recursion", "fn deeper(n) { deeper(n + 1) } deeper(0);", FAILED, "Stack overflow"),
    ("a deep expression", "let s = \"\"; s.pad(100000, \"(\"); eval(s);", FAILED, "exceeds maximum complexity"),
    ("deep JSON", "let s = \"\"; s.pad(1000, \"[\"); parse_json(s);", FAILED, "recursion limit"),
    ("all of a body", "stdin.read();", FAILED, TOO_MUCH),
    ("all of a form", "form();", FAILED, TOO_MUCH),
    ("all lines of a body", "stdin.lines();", FAILED, TOO_MUCH),
    ("a module above", "import \"../outside\" as o;", FAILED, "Module not found: ../outside"),
    ("a module by its whole path", "import \"/etc/passwd\" as o;", FAILED, "Module not found: /etc/passwd"),
    ("a module through a link", "import \"link\" as o;", FAILED, "Module not found: link"),
    ("a file above", "open_file(\"../outside.rhai\");", FAILED, "../outside.rhai"),
    ("a file by its whole path", "open_file(\"/etc/passwd\");", FAILED, "/etc/passwd"),
    ("a file through a link", "open_file(\"link.rhai\");", FAILED, "link.rhai"),
    ("a file without end", "open_file(\"large\").read_string();", FAILED, "too long for a value"),
    ("another program", "system(\"id\");", FAILED, "Function not found: system"),
];

/// A site with one script for each, and a good one; outside of it lies what no script may reach.
fn site() -> Directory {
    let directory = Directory::new();
    for (number, (_, code, ..)) in HOSTILE.iter().enumerate() {
        directory.file(&format!("site/{number}.rhai"), code);
    }
    directory.file("site/good.rhai", "print(\"Content-Type: text/plain\\n\\nfine\");");
    directory.file("site/talks.rhai", "print(\"Content-Type: text/plain\\n\"); loop { print(\"on and on\"); }");
    directory.file("outside.rhai", "fn f() { 1 }");
    std::os::unix::fs::symlink("../outside.rhai", directory.path().join("site/link.rhai")).unwrap();
    std::fs::File::create(directory.path().join("site/large")).unwrap().set_len(1 << 40).unwrap();
    directory
}

fn serve(directory: &Directory, arguments: &[&str]) -> (String, Running) {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let address = directory.socket(&format!("s{}", COUNT.fetch_add(1, Ordering::Relaxed)));
    let site = directory.path().join("site").display().to_string();
    let running = serve_with(FCGI_RHAI, &address, &[arguments, &["--root", &site, "--fs-root", &site]].concat());
    (address, running)
}

fn script(directory: &Directory, name: &str) -> String {
    directory.path().join("site").join(format!("{name}.rhai")).display().to_string()
}

fn peak_memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn hostile_scripts_are_ended_while_others_are_served() {
    let directory = site();
    // What is to be ended by its memory has time for it, however busy the machine is.
    let common = ["--memory-limit", "4M", "--threads", "4"];
    let (late, _late) = serve(&directory, &[&common[..], &["--request-timeout", "5"]].concat());
    let (address, running) = serve(&directory, &[&common[..], &["--request-timeout", "600"]].concat());
    let pid = running.0.id();
    let body = vec![b'\n'; 10 << 20];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let hostile: Vec<_> = (0..3)
            .map(|part| {
                let (directory, address, late, body) = (&directory, &address, &late, &body);
                scope.spawn(move || {
                    for (number, (what, _, status, why)) in HOSTILE.iter().enumerate().skip(part).step_by(3) {
                        let file = script(directory, &number.to_string());
                        let body = if why == &TOO_MUCH && what.contains("all ") { &body[..] } else { b"" };
                        let address = if status == &LATE { late } else { address };
                        let reply = call(address, &[("SCRIPT_FILENAME", file.as_bytes())], body);
                        let begins = reply.text().starts_with(&format!("Status: {status}\r\n"));
                        assert!(begins, "{what}: {} {}", reply.text(), reply.errors());
                        assert!(reply.errors().contains(why), "{what}: {}", reply.errors());
                    }
                })
            })
            .collect();
        let good = scope.spawn(|| {
            let file = script(&directory, "good");
            let mut count = 0;
            while !done.load(Ordering::Relaxed) || count == 0 {
                for address in [&address, &late] {
                    let reply = call(address, &[("SCRIPT_FILENAME", file.as_bytes())], b"");
                    assert_eq!(reply.text(), "Content-Type: text/plain\n\nfine\n");
                }
                count += 1;
            }
        });
        let ended: Vec<_> = hostile.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        good.join().unwrap();
        ended.into_iter().for_each(Result::unwrap);
    });
    assert_eq!(running.0.id(), pid);
    // Four scripts of 4 MiB, stacks for what they nest, and what the program is.
    let peak = peak_memory(pid);
    assert!(peak < 400, "{peak} MiB");
}

/// What the library's own functions say is not changed by a limit.
#[test]
fn a_limit_changes_nothing_else() {
    let code = r#"
let a = [1, "x\n\"", 2.5, (), true, #{k: [1], "a b": "c"}, "c"[0], blob(2, 65), Fn("f"), 1..3, 1..=3];
print(a); print([]); print(#{}); print(`${a}|${a[5]}`); print("" + a); print(a.to_debug() + a[5].to_string());
const C = [1, #{ a: 2 }];
print(C); print(C.to_string()); print(C[1].to_json()); print(to_json(a[5]));
for by in ["b", ""] { print("abcb".split(by)); print("abcb".split_rev(by)); print("abcb".split(by, 2)); print("abcb".split_rev(by, 2)); print("".split(by)); }
print("a bc  d".split()); print("a,b".split(',')); print("a,b,c".split(',', 2)); print("a,b".split_rev(',')); print("a,b,c".split_rev(',', 2));
print("a".split("b")); print("a,b".split(",", 0)); print("a,b".split(",", -1)); print("äb".to_chars()); print("".to_chars());
let s = "ab"; s.pad(5, "xyz"); print(s); s.pad(3, 'c'); print(s); s.pad(7, 'ä'); print(s); s.pad(-1, "x"); print(s);
s.replace("x", "--"); print(s); s.replace("-", 'c'); print(s); s.replace('c', "d"); print(s); s.replace('d', 'e'); print(s); s.replace("", "."); print(s);
let e = ""; e.replace("", "x"); print(e);
let b = blob(3); b.pad(5, 0x141); print(b); print(b.to_array()); print(blob(-1)); print(blob(2, 0x142));
let p = [1]; p.pad(3, [2]); print(p); p.pad(1, 0); p.pad(-1, 0); print(p);
"#;
    let run = |options: &[&str]| Command::new(FCGI_RHAI).args(options).args(["-e", code]).output().unwrap();
    let (free, limited) = (run(&[]), run(&["--memory-limit", "64M"]));
    assert_eq!(String::from_utf8_lossy(&limited.stderr), "");
    assert_eq!(String::from_utf8_lossy(&free.stdout), String::from_utf8_lossy(&limited.stdout));
    assert!(
        free.status.success() && free.stdout.ends_with(b"[1, [2], [2]]\n"),
        "{}",
        String::from_utf8_lossy(&free.stderr)
    );
}

/// Many operations on a large array take no longer than they do without a limit.
#[test]
fn large_values_are_no_burden() {
    let code = "let a = []; for n in 0..200000 { a.push(n); } print(a.len);";
    let output = Command::new(FCGI_RHAI).args(["--memory-limit", "64M", "-e", code]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200000\n", "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn an_answer_without_end_is_ended_and_so_is_one_that_nobody_reads() {
    let directory = site();
    let file = script(&directory, "talks");
    let ask = [("SCRIPT_FILENAME", file.as_bytes())];
    let (address, running) = serve(&directory, &["--request-timeout", "0.5"]);
    let reply = call(&address, &ask, b"");
    assert!(reply.text().starts_with("Content-Type: text/plain\n\non and on\n") && reply.app_status == 1);
    assert!(reply.errors().contains(TOO_LONG), "{}", reply.errors());
    drop(running);
    // No time limit: it ends when its client has gone.
    let (address, _running) = serve(&directory, &[]);
    let mut socket = connect(&address);
    socket.write_all(&request(1, 1, false, &ask, b"")).unwrap();
    socket.read_exact(&mut [0; 1000]).unwrap();
    drop(socket);
    let good = script(&directory, "good");
    assert_eq!(
        call(&address, &[("SCRIPT_FILENAME", good.as_bytes())], b"").text(),
        "Content-Type: text/plain\n\nfine\n"
    );
}

#[test]
fn so_many_operations() {
    let directory = site();
    let (address, _running) = serve(&directory, &["--max-operations", "100000"]);
    let reply = call(&address, &[("SCRIPT_FILENAME", script(&directory, "0").as_bytes())], b"");
    assert!(reply.errors().contains("Too many operations"), "{}", reply.errors());
    let good = script(&directory, "good");
    assert_eq!(
        call(&address, &[("SCRIPT_FILENAME", good.as_bytes())], b"").text(),
        "Content-Type: text/plain\n\nfine\n"
    );
}

/// The time is each request's own, not the loop's; and so is the end of it.
#[test]
fn a_loop_may_wait_longer_than_a_request_may_take() {
    let directory = Directory::new();
    let file = directory.file(
        "loop.rhai",
        "let count = 0;
while fcgi::accept() {
    count += 1;
    print(`Content-Type: text/plain

${count}`);
    if env(\"QUERY_STRING\") == \"hangs\" { loop {} }
}",
    );
    let address = directory.socket("s");
    let _running = serve_with(FCGI_RHAI, &address, &["--request-timeout", "0.5", &file.display().to_string()]);
    let ask = |query: &str| call(&address, &[("QUERY_STRING", query.as_bytes())], b"").text();
    for count in 1..=3 {
        assert_eq!(ask(""), format!("Content-Type: text/plain\n\n{count}\n"));
        thread::sleep(Duration::from_millis(1200));
    }
    assert!(ask("hangs").starts_with("Status: 504 Gateway Timeout\r\n"));
    assert_eq!(ask(""), "Content-Type: text/plain\n\n1\n");
}

/// A large body is read in pieces where all of it would be too much.
#[test]
fn a_large_body_in_pieces() {
    let directory = Directory::new();
    let code =
        "let sum = 0; loop { let piece = stdin.read_blob(100000); if piece.len == 0 { break; } sum += piece.len; }
print(`Content-Type: text/plain

${sum}`);";
    let file = directory.file("sum.rhai", code).display().to_string();
    let address = directory.socket("s");
    let _running = serve_with(FCGI_RHAI, &address, &["--memory-limit", "4M", &file]);
    let body = vec![b'x'; 20 << 20];
    assert_eq!(call(&address, &[], &body).text(), format!("Content-Type: text/plain\n\n{}\n", body.len()));
}

/// The kernel gives a new program no more stack than usual; what a script nests has its own.
#[test]
fn deep_values_have_stack_for_all_that_is_done_with_them() {
    for what in ["a == b", "`${a}`.len", "a.contains(b)", "switch a { 1 => 2 }", "let c = a; c.len", "[a, b].dedup()"] {
        let code = format!(
            "let a = []; let n = 0; while n < 400 {{ n += 1; a = [#{{ a: take(a) }}]; }} let b = a; {what}; print(n);"
        );
        let output = Command::new(FCGI_RHAI).args(["--memory-limit", "32M", "-e", &code]).output().unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            "400\n",
            "{what} {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}
