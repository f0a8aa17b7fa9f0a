//! Rhai: scripts, loops and applications, each as a CGI program, by FastCGI and behind the HTTP front.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{Reply, call};
use crate::support::{Directory, FCGI_RHAI, Running, serve_with};

const SCRIPT: &str = r#"#!/usr/bin/env fcgi-rhai
fn asked() { `${env("REQUEST_METHOD")} ${env("QUERY_STRING")} ${stdin.read_line()}|${stdin.read()}` }
let seen = if is_def_var("before") { "again" } else { "first" };
let before = 1;
write("Content-Type: text/plain\n\n");
print(`${seen} ${asked()}`);
write(blob(2, 0x41));
debug("said");
exit(env("QUERY_STRING").len());
"#;

const LOOP: &str = r#"
let before = 0;
while fcgi::accept() {
    before += 1;
    print("Content-Type: text/plain\n");
    print(`${before} ${env("QUERY_STRING")} ${stdin.read()} ${fcgi::role()}`);
    fcgi::set_exit_status(4);
}
"#;

const APPLICATION: &str = r#"
const NAME = "<app>";
fn handle(request) {
    switch request.query.what {
        "missing" => #{ status: 404, body: "gone" },
        "bytes" => blob(3, 0x42),
        "wrong" => 42,
        "split" => #{ headers: #{ "X-A": "b\r\nX-C: d" } },
        _ => #{
            headers: #{ "X-Two": ["1", "2"] },
            body: [html_escape(global::NAME), `|${request.method}|${request.cookies.c}|${request.form.k}|${request.headers["content-type"]}`]
        }
    }
}
"#;

fn cgi(directory: &Directory, script: &str, query: &str, body: &str) -> Output {
    let mut command = Command::new(FCGI_RHAI);
    command.env_clear().env("REQUEST_METHOD", "POST").env("QUERY_STRING", query).env("HTTP_COOKIE", "c=v");
    command.env("CONTENT_TYPE", "application/x-www-form-urlencoded").env("CONTENT_LENGTH", body.len().to_string());
    command.arg(directory.path().join(script)).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It need not be read.
    let _ = child.stdin.take().unwrap().write_all(body.as_bytes());
    child.wait_with_output().unwrap()
}

fn ask(address: &str, query: &str, body: &str) -> Reply {
    let params = [
        ("REQUEST_METHOD", "POST".as_bytes()),
        ("QUERY_STRING", query.as_bytes()),
        ("HTTP_COOKIE", b"c=v"),
        ("CONTENT_TYPE", b"application/x-www-form-urlencoded"),
    ];
    call(address, &params, body.as_bytes())
}

fn serve(directory: &Directory, arguments: &[&str]) -> (String, Running) {
    let address = directory.socket("s");
    let arguments: Vec<String> = arguments
        .iter()
        .map(|a| if a.ends_with(".rhai") { directory.path().join(a).display().to_string() } else { (*a).to_owned() })
        .collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let running = serve_with(FCGI_RHAI, &address, &arguments);
    (address, running)
}

fn three() -> Directory {
    let directory = Directory::new();
    directory.file("script.rhai", SCRIPT);
    directory.file("loop.rhai", LOOP);
    directory.file("app.rhai", APPLICATION);
    directory
}

const BODY: &str = "k=w\nx\n";
const ANSWER: &str = "Content-Type: text/plain\n\nfirst POST q1 k=w|x\n\nAA";

#[test]
fn a_script_answers_alike_each_time_and_everywhere() {
    let directory = three();
    let output = cgi(&directory, "script.rhai", "q1", BODY);
    assert_eq!((&*String::from_utf8_lossy(&output.stdout), output.status.code()), (ANSWER, Some(2)));
    let complaint = format!("{} @ 8:1 | \"said\"\n", directory.path().join("script.rhai").display());
    assert_eq!(String::from_utf8_lossy(&output.stderr), complaint);
    for arguments in [&["script.rhai"][..], &["--workers", "2", "script.rhai"], &["--threads", "2", "script.rhai"]] {
        let (address, _running) = serve(&directory, arguments);
        for _ in 0..10 {
            let reply = ask(&address, "q1", BODY);
            assert_eq!((&*reply.text(), reply.app_status), (ANSWER, 2), "{arguments:?}");
            assert_eq!(reply.errors(), complaint);
        }
    }
}

#[test]
fn a_loop_keeps_what_stands_before_it() {
    let directory = three();
    let output = cgi(&directory, "loop.rhai", "q", "b");
    let says = |number: usize| format!("Content-Type: text/plain\n\n{number} q b RESPONDER\n");
    assert_eq!((String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code()), (says(1), Some(4)));
    let (address, mut running) = serve(&directory, &["loop.rhai"]);
    for number in 1..=5 {
        let reply = ask(&address, "q", "b");
        assert_eq!((reply.text(), reply.app_status), (says(number), 4));
    }
    std::thread::sleep(Duration::from_millis(1100));
    directory.file("loop.rhai", LOOP.replace("let before = 0", "let before = 100"));
    assert_eq!(ask(&address, "q", "b").text(), says(101), "a script that changes begins anew");
    running.signal("TERM");
    assert_eq!(running.wait(Duration::from_secs(20)).0, Some(0));
}

#[test]
fn what_an_application_returns_is_the_answer() {
    let directory = three();
    let page = "Content-Type: text/html; charset=utf-8\r\nX-Two: 1\r\nX-Two: 2\r\n\r\n\
                &lt;app&gt;|POST|v|w|application/x-www-form-urlencoded";
    assert_eq!(String::from_utf8_lossy(&cgi(&directory, "app.rhai", "", "k=w").stdout), page);
    let (address, _running) = serve(&directory, &["app.rhai"]);
    for _ in 0..3 {
        assert_eq!(ask(&address, "", "k=w").text(), page);
        let missing = "Status: 404\r\nContent-Type: text/html; charset=utf-8\r\n\r\ngone";
        assert_eq!(ask(&address, "what=missing", "").text(), missing);
        let bytes = "Content-Type: application/octet-stream\r\n\r\nBBB";
        assert_eq!(ask(&address, "what=bytes", "").text(), bytes);
        for (what, why) in [("wrong", "and no i64"), ("split", "a header has no line ends")] {
            let reply = ask(&address, &format!("what={what}"), "");
            assert!(reply.text().starts_with("Status: 500 ") && reply.app_status == 1, "{}", reply.text());
            assert!(reply.errors().contains(why), "{}", reply.errors());
        }
    }
}

#[test]
fn behind_the_http_front() {
    let directory = three();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = Command::new(FCGI_RHAI);
    command.args(["--http", &format!("127.0.0.1:{port}"), "--root"]).arg(directory.path());
    let _running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    let end = Instant::now() + Duration::from_secs(30);
    for (script, expected) in [("loop", "\r\n\r\n1 q b RESPONDER\n"), ("app", "|POST|"), ("script", "AA")] {
        let mut socket = loop {
            match TcpStream::connect(("127.0.0.1", port)) {
                Ok(socket) => break socket,
                Err(e) => assert!(Instant::now() < end, "{e}"),
            }
        };
        write!(
            socket,
            "POST /{script}.rhai?q HTTP/1.1\r\nHost: x\r\nCookie: c=v\r\nContent-Length: 1\r\nConnection: close\r\n\r\nb"
        )
        .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains(expected), "{answer}");
    }
}

#[test]
fn forms_with_files() {
    let directory = Directory::new();
    directory.file(
        "form.rhai",
        r#"let f = form();
write("Content-Type: text/plain\n\n");
write(`${f.name}|${f.file.filename}|${f.file.content_type}|`);
write(f.file.data);"#,
    );
    let (address, _running) = serve(&directory, &["form.rhai"]);
    let mut body = b"--xx\r\nContent-Disposition: form-data; name=\"name\"\r\n\r\nAnna\r\n--xx\r\n".to_vec();
    body.extend(
        b"Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"\r\nContent-Type: image/png\r\n\r\n",
    );
    let data: Vec<u8> = (0..200_000_u32).map(|n| (n % 251) as u8).collect();
    body.extend(&data);
    body.extend(b"\r\n--xx--\r\n");
    let reply = call(&address, &[("CONTENT_TYPE", b"multipart/form-data; boundary=xx")], &body);
    let head = b"Content-Type: text/plain\n\nAnna|a.bin|image/png|";
    assert!(reply.stdout.starts_with(head), "{}", reply.errors());
    assert_eq!(reply.stdout[head.len()..], data);
}

#[test]
fn modules_lie_beside_the_script_and_nowhere_else() {
    let directory = Directory::new();
    directory.file("site/deep/m.rhai", "export const ASKED = env(\"QUERY_STRING\");\nfn twice(x) { x * 2 }");
    directory
        .file("site/s.rhai", "import \"deep/m\" as m;\nprint(`Content-Type: a/b\n\n${m::twice(21)} ${m::ASKED}`);");
    directory.file("outside.rhai", "fn f() { 1 }");
    directory.file("site/out.rhai", "import \"../outside\" as o;\nprint(o::f());");
    directory.file("site/round.rhai", "import \"round\" as r;\nprint(1);");
    let (address, _running) = serve(&directory, &["--root", &directory.path().join("site").display().to_string()]);
    let ask = |name: &str, query: &str| {
        let file = directory.path().join("site").join(name).display().to_string();
        call(&address, &[("SCRIPT_FILENAME", file.as_bytes()), ("QUERY_STRING", query.as_bytes())], b"")
    };
    for query in ["one", "two"] {
        assert_eq!(ask("s.rhai", query).text(), format!("Content-Type: a/b\n\n42 {query}\n"));
    }
    for (name, why) in [("out.rhai", "Module not found: ../outside"), ("round.rhai", "imported already")] {
        let reply = ask(name, "");
        assert!(reply.text().starts_with("Status: 500 "), "{}", reply.text());
        assert!(reply.errors().contains(why), "{}", reply.errors());
    }
    std::thread::sleep(Duration::from_millis(1100));
    directory.file("site/deep/m.rhai", "export const ASKED = 0;\nfn twice(x) { x * 3 }");
    assert_eq!(ask("s.rhai", "").text(), "Content-Type: a/b\n\n63 0\n");
}

#[test]
fn on_a_command_line() {
    let run = |arguments: &[&str], input: &str| {
        let mut command = Command::new(FCGI_RHAI);
        command.args(arguments).env("GREETING", "hello").env_remove("GATEWAY_INTERFACE").env_remove("REQUEST_METHOD");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr), output.status.code())
    };
    let (out, err, status) = run(&["-e", "let x = 40;", "-e", "print(x + 2); print(env(\"GREETING\"))"], "");
    assert_eq!((&*out, &*err, status), ("42\nhello\n", "", Some(0)));
    let directory = Directory::new();
    let (socket, script) = (directory.socket("s"), directory.file("s.rhai", "1").display().to_string());
    for (arguments, why) in [
        (&["-e"][..], "-e is followed by code"),
        (&["-x"], "there is no option -x"),
        (&["--listen", &socket, "-e", "1", &script], "-e is for a command line"),
        (&["--isolation", "state", "-e", "1"], "--isolation state"),
        (&["--max-operations", "few", "-e", "1"], "--max-operations"),
    ] {
        let (out, err, status) = run(arguments, "");
        assert!(out.is_empty() && status == Some(2) && err.contains("fcgi-rhai: "), "{arguments:?}: {err}");
        assert!(err.contains(why), "{arguments:?}: {err}");
    }
    let (out, err, status) = run(&["-eprint(1);", "-e", "exit(300)"], "");
    assert_eq!((&*out, &*err, status), ("1\n", "", Some(44)));
    let (out, _, status) =
        run(&["-e", "for name in env_names() { if name == \"GREETING\" { print(env(name)); } }"], "");
    assert_eq!((&*out, status), ("hello\n", Some(0)));
    let (out, err, status) = run(&["-e", "exit(7)"], "");
    assert_eq!((&*out, &*err, status), ("", "", Some(7)));
    let (out, err, status) = run(&["-", "a", "b"], "print(args());");
    assert_eq!((&*out, &*err, status), ("[\"a\", \"b\"]\n", "", Some(0)));
    let directory = Directory::new();
    let script = directory.file("wrong.rhai", "fn f(x) {\n    x.nothing()\n}\nf(1);\n").display().to_string();
    let (_, err, status) = run(&[&script], "");
    let expected = format!(
        "{script}:2:7: Function not found: nothing (i64)\n 2 |     x.nothing()\n   |       ^\n  in function 'f', called at \
         {script}:4:1\n"
    );
    assert_eq!((err, status), (expected, Some(1)));
    let script = directory.file("broken.rhai", "let x = ;\n").display().to_string();
    let (_, err, status) = run(&[&script], "");
    let expected = format!("{script}:1:9: Unexpected ';'\n 1 | let x = ;\n   |         ^\n");
    assert_eq!((err, status), (expected, Some(1)));
}

#[test]
fn json_comes_and_goes() {
    let code = r#"
let value = parse_json("{\"a\": [1, 2.5, null, true, \"\u00e4\"], \"b\": {}}");
print(value.a[0] + value.a[1]);
print(value.a[2] == ());
print(to_json(value));
print(parse_json("[7]")[0]);
for text in ["{", "", "nonsense"] { try { parse_json(text); print("taken"); } catch (why) { print(why.sub_string(0, 15)); } }
"#;
    let output = Command::new(FCGI_RHAI).args(["-e", code]).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let wrong = "this is no JSON\n".repeat(3);
    let json = r#"{"a":[1,2.5,null,true,"ä"],"b":{}}"#;
    assert_eq!(said, format!("3.5\ntrue\n{json}\n7\n{wrong}"), "{}", String::from_utf8_lossy(&output.stderr));
}

/// What is given to the functions of a page is checked.
#[test]
fn what_is_wrong_is_said() {
    for (code, why) in [
        ("set_cookie(\"a b\", \"c\")", "no name of a cookie"),
        ("set_cookie(\"\", \"c\")", "no name of a cookie"),
        ("set_cookie(\"a\", \"c\", #{ path: \"/; Secure\" })", "a cookie's path cannot be /; Secure"),
        ("set_cookie(\"a\", \"c\", #{ domain: \"x\\r\\nX: y\" })", "a cookie's domain cannot be"),
        ("set_cookie(\"a\", \"c\", #{ max_age: \"long\" })", "a cookie's max_age cannot be long"),
        ("set_cookie(\"a\", \"c\", #{ expires: 1e300 })", "a cookie's expires cannot be"),
        ("set_cookie(\"a\", \"c\", #{ same_site: \"lax\" })", "same_site is"),
        ("respond(redirect(\"/x\", 200))", "a redirection's status"),
        ("respond(redirect(\"/x\\r\\nX: y\"))", "a header has no line ends"),
        ("format_time(\"now\", \"%H\")", "a time is a number of seconds, and no string"),
        ("format_time(1e300, \"%H\")", "Runtime error"),
        ("format_time(0, \"%Q%\")", "Runtime error"),
        ("let f = \"\"; f.pad(5000, \"%H\"); format_time(0, f)", "4096 bytes"),
        ("format_time(0, \"%H\", \"../../etc/passwd\")", "Runtime error"),
        ("parse_time(\"2023-02-30T00:00:00Z\")", "Runtime error"),
        ("parse_time(\"12:00\", \"%H:%M\")", "Runtime error"),
        ("base64_decode(\"*\")", "Runtime error"),
    ] {
        let output = Command::new(FCGI_RHAI).args(["-e", code]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(said.contains(why) && output.status.code() == Some(1), "{code}: {said}");
        assert!(output.stdout.is_empty(), "{code}");
    }
    let code = "print(set_cookie(\"a\", \"b;\\r\\nX: y\", #{ same_site: \"None\", max_age: 0, expires: 0 }));";
    let output = Command::new(FCGI_RHAI).args(["-e", code]).env("HTTPS", "on").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let cookie = "Set-Cookie: a=b%3B%0D%0AX%3A%20y; HttpOnly; SameSite=None; Secure; Path=/; Max-Age=0; \
                  Expires=Thu, 01 Jan 1970 00:00:00 GMT\n";
    assert_eq!(said, cookie);
    let zone =
        "print(format_time(1700000000, \"%H:%M %Z\", \"local\")); print(time_parts(1700000000, \"local\").offset)";
    let output = Command::new(FCGI_RHAI).args(["-e", zone]).env("TZ", "XYZ-2").output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "00:13 XYZ\n7200\n");
}

#[test]
fn files_of_a_directory_and_no_others() {
    let directory = Directory::new();
    let root = directory.path().join("root");
    std::fs::create_dir(&root).unwrap();
    directory.file("secret", "of others");
    std::fs::write(root.join("greeting"), "hello\n").unwrap();
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
    std::os::unix::fs::symlink("greeting", root.join("inner")).unwrap();
    std::os::unix::fs::symlink(directory.path(), root.join("out")).unwrap();
    assert!(Command::new("mkfifo").arg(root.join("pipe")).status().unwrap().success());
    let script = directory.file(
        "app.rhai",
        r#"print("Content-Type: text/plain\n");
fn fails(what) { try { what.call(); print("ESCAPED"); } catch (why) { debug(why); } }
let secret = env("SECRET");
fails(|| open_file("../secret"));
fails(|| open_file("link"));
fails(|| open_file("out/secret"));
fails(|| open_file(secret));
fails(|| open_file("/etc/passwd"));
fails(|| open_file("../new", "w"));
fails(|| open_file("link", "w"));
fails(|| open_file("pipe"));
fails(|| open_file("greeting", "wx"));
fails(|| open_dir(".."));
fails(|| remove_file("../secret"));
fails(|| rename("../secret", "mine"));
fails(|| rename("greeting", "../greeting"));
fails(|| create_dir("../more"));
print(open_file("inner").read_string());
create_dir("a/b");
let file = open_file("a/b/new", "w+");
file.write("one ");
file.write(blob(3, 0x41));
file.seek(2);
print(`${file.read_string(3)} ${file.position()} ${file.bytes()}`);
rename("a/b/new", "a/new");
print(open_dir("a"));
remove_file("a/new");
remove_dir("a/b");
remove_dir("a");
print(exists("a"));"#,
    );
    let address = directory.socket("s");
    let arguments = ["--fs-root", root.to_str().unwrap(), script.to_str().unwrap()];
    let _runner = serve_with(FCGI_RHAI, &address, &arguments);
    let secret = directory.path().join("secret").display().to_string();
    for _ in 0..3 {
        let reply = call(&address, &[("SECRET", secret.as_bytes())], b"");
        let says = "Content-Type: text/plain\n\nhello\n\ne A 5 7\n[\"b\", \"new\"]\nfalse\n";
        assert_eq!(reply.text(), says, "{}", reply.errors());
        assert_eq!(reply.errors().lines().count(), 14, "{}", reply.errors());
    }
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "of others");
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 4);
    // Without the option there are none.
    let output = Command::new(FCGI_RHAI).args(["-e", "open_file(\"/etc/passwd\")"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("Function not found: open_file"), "{said}");
    let output = Command::new(FCGI_RHAI).args(["--fs-root", "/no/such", "-e", "1"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("/no/such") && said.contains("--fs-root"), "{said}");
}
