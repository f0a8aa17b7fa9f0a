//! What all runners do alike: the same programs in each language, started in each way, with the same expectations. The table
//! that it prints (`--nocapture`) has a line for each language and kind of program, and a column for each way.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{call, connect, params, read_reply, record, stream};
use crate::support::{Directory, FCGI_LUA, FCGI_PYTHON, FCGI_RHAI, Running, plain_environment, serve_with};

struct Language {
    runner: &'static str,
    extension: &'static str,
    /// Says whether it runs for the first time in its globals, method, query and body; exit status 3.
    script: &'static str,
    /// Counts its requests; exit status 4.
    accept_loop: &'static str,
    /// Answers 201 with a header `X-Kind`; with status 500 when it is asked to fail.
    application: &'static str,
    /// Fails before it has said anything.
    broken: &'static str,
    /// Says its role. A Filter also says what it is to transform, an Authorizer allows what is named `friend`.
    roles: &'static str,
    /// Never ends when it is asked to hang.
    endless: &'static str,
    /// Takes memory without end when it is asked to.
    hungry: &'static str,
    /// What is said of a script that wants too much memory; `None` where `--memory-limit` is refused.
    no_memory: Option<&'static str>,
}

const LUA: Language = Language {
    runner: FCGI_LUA,
    extension: "lua",
    script: "seen = seen and 'again' or 'first'
io.write('Content-Type: text/plain\\n\\n', seen, ' ', os.getenv('REQUEST_METHOD'), ' ', os.getenv('QUERY_STRING'), ' ')
io.write(io.read('*a'))
os.exit(3)",
    accept_loop: "local fcgi = require 'fcgi'
local count = 0
while fcgi.accept() do
    count = count + 1
    io.write('Content-Type: text/plain\\n\\n', count, ' ', os.getenv('QUERY_STRING'), ' ', io.read('*a'))
    fcgi.set_exit_status(4)
end",
    application: "return function(env)
    if env.QUERY_STRING == 'fail' then error('on purpose') end
    local body = env.REQUEST_METHOD .. ' ' .. env.QUERY_STRING .. ' ' .. env.input:read(100)
    return '201 Created', { ['Content-Type'] = 'text/plain', ['X-Kind'] = 'app' }, coroutine.wrap(function()
        coroutine.yield(body)
    end)
end",
    broken: "error('on purpose')",
    roles: "local fcgi = require 'fcgi'
local role = fcgi.role()
if role == 'AUTHORIZER' then
    io.write(os.getenv('QUERY_STRING') == 'friend' and 'Status: 200\\nVariable-WHO: friend\\n\\n' or 'Status: 403\\n\\n')
else
    io.write('Content-Type: text/plain\\n\\n', role, ' ', role == 'FILTER' and fcgi.data():read('*a') or '')
end",
    endless: "print('Content-Type: text/plain\\n')
while os.getenv('QUERY_STRING') == 'hang' do end
io.write('fine')",
    hungry: "local held = {}
while os.getenv('QUERY_STRING') == 'hungry' do held[#held + 1] = ('x'):rep(10000) .. #held end
io.write('Content-Type: text/plain\\n\\nfine')",
    no_memory: Some("not enough memory"),
};

const PYTHON: Language = Language {
    runner: FCGI_PYTHON,
    extension: "py",
    script: "import os, sys
seen = 'again' if 'seen' in globals() else 'first'
print('Content-Type: text/plain\\n')
print(seen, os.environ['REQUEST_METHOD'], os.environ['QUERY_STRING'], sys.stdin.read(), end='')
sys.exit(3)",
    accept_loop: "import fcgi, os, sys
count = 0
while fcgi.accept():
    count += 1
    print('Content-Type: text/plain\\n')
    print(count, os.environ['QUERY_STRING'], sys.stdin.read(), end='')
    fcgi.set_exit_status(4)",
    application: "def application(environ, start_response):
    if environ['QUERY_STRING'] == 'fail':
        raise ValueError('on purpose')
    body = environ['wsgi.input'].read().decode()
    start_response('201 Created', [('Content-Type', 'text/plain'), ('X-Kind', 'app')])
    return [f\"{environ['REQUEST_METHOD']} {environ['QUERY_STRING']} {body}\".encode()]",
    broken: "raise ValueError('on purpose')",
    roles: "import fcgi, os
for request in fcgi.requests():
    role, out = request.role, request.stdout
    if role == 'AUTHORIZER':
        allowed = request.params['QUERY_STRING'] == 'friend'
        out.write(b'Status: 200\\nVariable-WHO: friend\\n\\n' if allowed else b'Status: 403\\n\\n')
    else:
        out.write(b'Content-Type: text/plain\\n\\n' + role.encode() + b' ' + (request.data.read() if role == 'FILTER' else b''))",
    endless: "import os
print('Content-Type: text/plain\\n')
while os.environ['QUERY_STRING'] == 'hang':
    pass
print('fine', end='')",
    hungry: "print('Content-Type: text/plain\\n\\nfine', end='')",
    no_memory: None,
};

const RHAI: Language = Language {
    runner: FCGI_RHAI,
    extension: "rhai",
    script: "let seen = if is_def_var(\"known\") { \"again\" } else { \"first\" };
let known = true;
write(\"Content-Type: text/plain\\n\\n\" + `${seen} ${env(\"REQUEST_METHOD\")} ${env(\"QUERY_STRING\")} ${stdin.read()}`);
exit(3);",
    accept_loop: "let count = 0;
while fcgi::accept() {
    count += 1;
    write(\"Content-Type: text/plain\\n\\n\" + `${count} ${env(\"QUERY_STRING\")} ${stdin.read()}`);
    fcgi::set_exit_status(4);
}",
    application: "fn handle(request) {
    let query = request.params.QUERY_STRING;
    if query == \"fail\" { throw \"on purpose\"; }
    #{
        status: \"201 Created\",
        headers: #{ \"Content-Type\": \"text/plain\", \"X-Kind\": \"app\" },
        body: `${request.method} ${query} ${request.text}`
    }
}",
    broken: "throw \"on purpose\";",
    roles: "let role = fcgi::role();
if role == \"AUTHORIZER\" {
    write(if env(\"QUERY_STRING\") == \"friend\" { \"Status: 200\\nVariable-WHO: friend\\n\\n\" } else { \"Status: 403\\n\\n\" });
} else {
    write(\"Content-Type: text/plain\\n\\n\" + `${role} ${if role == \"FILTER\" { fcgi::data() } else { \"\" }}`);
}",
    endless: "print(\"Content-Type: text/plain\\n\");
while env(\"QUERY_STRING\") == \"hang\" {}
write(\"fine\");",
    hungry: "let held = [];
while env(\"QUERY_STRING\") == \"hungry\" { let text = \"\"; text.pad(10000, \"x\"); held.push(text); }
write(\"Content-Type: text/plain\\n\\nfine\");",
    no_memory: Some("--memory-limit"),
};

/// An answer, however it came.
#[derive(Debug)]
struct Answer {
    status: String,
    head: String,
    body: String,
    /// The exit status; an HTTP front does not tell it.
    ended: Option<i32>,
    errors: Option<String>,
}

impl Answer {
    /// From what a CGI program writes (RFC 3875, section 6).
    fn from_cgi(bytes: &[u8], ended: i32, errors: String) -> Self {
        let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap_or(("", &text));
        let status = head.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200");
        let (status, head, body) = (status.split(' ').next().unwrap().to_owned(), head.to_lowercase(), body.to_owned());
        Self { status, head, body, ended: Some(ended), errors: Some(errors) }
    }

    fn expect(&self, what: &str, status: &str, body: &str, ended: i32) {
        assert_eq!((&*self.status, &*self.body), (status, body), "{what}: {self:?}");
        assert!(self.head.contains("content-type: text/plain"), "{what}: {self:?}");
        assert!(self.ended.is_none_or(|status| status == ended), "{what}: {self:?}");
    }

    /// A page instead of an answer; the reason is on the error stream only.
    fn expect_failure(&self, what: &str) {
        assert_eq!(self.status, "500", "{what}: {self:?}");
        assert!(!self.body.contains("on purpose"), "{what}: {self:?}");
        assert!(self.ended.is_none_or(|status| status == 1), "{what}: {self:?}");
        assert!(self.errors.as_ref().is_none_or(|errors| errors.contains("on purpose")), "{what}: {self:?}");
    }
}

/// A way to have a program answer.
enum Way {
    Cgi(String),
    FastCgi {
        address: String,
        /// The script that requests name, if they do.
        named: Option<String>,
        _running: Running,
    },
    Http {
        port: u16,
        _running: Running,
    },
}

impl Way {
    const NAMES: [&'static str; 6] = ["CGI", "FastCGI", "HTTP front", "--root", "--threads", "--workers"];

    fn start(name: &str, language: &Language, directory: &Directory, script: &str) -> Self {
        let fast_cgi = |arguments: &[&str], named: Option<&str>| {
            let address = directory.socket("s");
            let running = serve_with(language.runner, &address, arguments);
            Self::FastCgi { address, named: named.map(str::to_owned), _running: running }
        };
        match name {
            "CGI" => Self::Cgi(script.to_owned()),
            "FastCGI" => fast_cgi(&[script], None),
            "--root" => fast_cgi(&["--root", directory.path().to_str().unwrap()], Some(script)),
            "--threads" => fast_cgi(&["--threads", "2", script], None),
            "--workers" => fast_cgi(&["--workers", "2", script], None),
            _ => {
                let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                let mut command = Command::new(language.runner);
                plain_environment(&mut command);
                command.args(["--http", &format!("127.0.0.1:{port}"), script]);
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                Self::Http { port, _running: Running::start(&mut command) }
            }
        }
    }

    fn ask(&self, language: &Language, query: &str, body: &str) -> Answer {
        let length = body.len().to_string();
        match self {
            Self::Cgi(script) => {
                let mut command = Command::new(language.runner);
                plain_environment(&mut command);
                command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
                command.envs([("GATEWAY_INTERFACE", "CGI/1.1"), ("REQUEST_METHOD", "POST"), ("QUERY_STRING", query)]);
                command.envs([("CONTENT_LENGTH", &*length), ("SERVER_NAME", "x"), ("SERVER_PORT", "80")]);
                let mut child = command.spawn().unwrap();
                // It need not be read.
                let _ = child.stdin.take().unwrap().write_all(body.as_bytes());
                let output = child.wait_with_output().unwrap();
                let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                Answer::from_cgi(&output.stdout, output.status.code().unwrap(), errors)
            }
            Self::FastCgi { address, named, .. } => {
                let mut params = vec![
                    ("REQUEST_METHOD", "POST"),
                    ("QUERY_STRING", query),
                    ("SERVER_NAME", "x"),
                    ("SERVER_PORT", "80"),
                ];
                params.extend(named.as_ref().map(|script| ("SCRIPT_FILENAME", &**script)));
                let params: Vec<_> = params.into_iter().map(|(name, value)| (name, value.as_bytes())).collect();
                let reply = call(address, &params, body.as_bytes());
                Answer::from_cgi(&reply.stdout, reply.app_status as i32, reply.errors())
            }
            Self::Http { port, .. } => {
                let end = Instant::now() + Duration::from_secs(60);
                let mut socket = loop {
                    match TcpStream::connect(("127.0.0.1", *port)) {
                        Ok(socket) => break socket,
                        Err(e) => assert!(Instant::now() < end, "{e}"),
                    }
                };
                let request = format!(
                    "POST /?{query} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
                );
                socket.write_all(request.as_bytes()).unwrap();
                let mut text = String::new();
                socket.read_to_string(&mut text).unwrap();
                let (head, body) = text.split_once("\r\n\r\n").unwrap();
                let status = head.split(' ').nth(1).unwrap().to_owned();
                Answer { status, head: head.to_lowercase(), body: unchunked(head, body), ended: None, errors: None }
            }
        }
    }
}

fn unchunked(head: &str, body: &str) -> String {
    if !head.to_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut left, mut whole) = (body, String::new());
    while let Some((length, rest)) = left.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole += &rest[..length];
        left = &rest[length + 2..];
    }
    whole
}

fn check(language: &Language, kind: &str, name: &str) {
    let what = format!("{} {kind} {name}", language.extension);
    let directory = Directory::new();
    let program = match kind {
        "script" => language.script,
        "accept loop" => language.accept_loop,
        "application" => language.application,
        _ => language.broken,
    };
    let script = directory.file(&format!("program.{}", language.extension), program).display().to_string();
    let way = Way::start(name, language, &directory, &script);
    for number in 1..=3 {
        let (query, body) = (format!("q={number}"), "b\n".repeat(number));
        let answer = way.ask(language, &query, &body);
        match kind {
            "script" => answer.expect(&what, "200", &format!("first POST {query} {body}"), 3),
            "accept loop" => {
                // A CGI program has one request; of several interpreters, each counts its own.
                let is_one_of_several = ["--threads", "--workers"].contains(&name);
                let counted = answer.body.split(' ').next().unwrap().parse::<usize>().unwrap_or(0);
                let count = match name {
                    "CGI" => 1,
                    _ if is_one_of_several && (1..=number).contains(&counted) => counted,
                    _ => number,
                };
                answer.expect(&what, "200", &format!("{count} {query} {body}"), 4);
            }
            "application" => {
                answer.expect(&what, "201", &format!("POST {query} {body}"), 0);
                assert!(answer.head.contains("x-kind: app"), "{what}: {answer:?}");
                way.ask(language, "fail", "").expect_failure(&what);
            }
            // A CGI program that is no application fails as the interpreter does: the web server makes the page.
            _ if name == "CGI" => {
                assert_eq!((answer.ended, answer.errors.unwrap().contains("on purpose")), (Some(1), true))
            }
            _ => answer.expect_failure(&what),
        }
    }
}

#[test]
fn all_runners_do_alike() {
    let mut table = format!("{:28}{}\n", "", Way::NAMES.map(|name| format!("{name:12}")).concat());
    for language in [LUA, PYTHON, RHAI] {
        for kind in ["script", "accept loop", "application", "broken script"] {
            write!(table, "{:28}", format!("{} {kind}", language.extension)).unwrap();
            for name in Way::NAMES {
                check(&language, kind, name);
                table += "ok          ";
            }
            table += "\n";
        }
    }
    println!("{table}");
}

/// The roles of the protocol; a request without a role has the first.
#[test]
fn all_runners_have_the_same_roles() {
    for language in [LUA, PYTHON, RHAI] {
        let directory = Directory::new();
        let script = directory.file(&format!("roles.{}", language.extension), language.roles).display().to_string();
        let address = directory.socket("s");
        let _running = serve_with(language.runner, &address, &[&script]);
        let ask = |role: u16, query: &str, data: &[u8]| {
            let mut socket = connect(&address);
            let length = data.len().to_string();
            let variables = [("QUERY_STRING", query.as_bytes()), ("FCGI_DATA_LENGTH", length.as_bytes())];
            let mut bytes = record(1, 1, &[0, role as u8, 0, 0, 0, 0, 0, 0]);
            bytes.extend(stream(4, 1, &params(&variables)));
            bytes.extend(stream(5, 1, b""));
            if role == 3 {
                bytes.extend(stream(8, 1, data));
            }
            socket.write_all(&bytes).unwrap();
            read_reply(&mut *socket, 1).text()
        };
        for _ in 0..2 {
            let what = language.extension;
            assert_eq!(ask(1, "", b""), "Content-Type: text/plain\n\nRESPONDER ", "{what}");
            assert_eq!(ask(2, "friend", b""), "Status: 200\nVariable-WHO: friend\n\n", "{what}");
            assert_eq!(ask(2, "stranger", b""), "Status: 403\n\n", "{what}");
            assert_eq!(ask(3, "", b"a file"), "Content-Type: text/plain\n\nFILTER a file", "{what}");
        }
    }
}

/// A request that takes too long, or too much, is ended; the next one is served.
#[test]
fn all_runners_have_the_same_limits() {
    for language in [LUA, PYTHON, RHAI] {
        let what = language.extension;
        let directory = Directory::new();
        let write = |name: &str, text: &str| directory.file(&format!("{name}.{what}"), text).display().to_string();
        let (endless, hungry) = (write("endless", language.endless), write("hungry", language.hungry));
        let address = directory.socket("endless");
        let running = serve_with(language.runner, &address, &["--request-timeout", "1", &endless]);
        let ask = |address: &str, query: &str| {
            let reply = call(address, &[("QUERY_STRING", query.as_bytes())], b"");
            Answer::from_cgi(&reply.stdout, reply.app_status as i32, reply.errors())
        };
        for _ in 0..2 {
            let late = ask(&address, "hang");
            assert_eq!((&*late.status, late.ended), ("504", Some(1)), "{what}: {late:?}");
            assert!(!late.errors.unwrap().is_empty(), "{what}");
            ask(&address, "").expect(what, "200", "fine", 0);
        }
        drop(running);
        let address = directory.socket("hungry");
        let arguments = ["--memory-limit", "16M", &hungry];
        let Some(why) = language.no_memory else {
            let output = Command::new(language.runner).args(["--listen", &address]).args(arguments).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.code() == Some(2) && said.contains("--memory-limit"), "{what}: {said}");
            continue;
        };
        let _running = serve_with(language.runner, &address, &arguments);
        for _ in 0..2 {
            let hungry = ask(&address, "hungry");
            assert_eq!((&*hungry.status, hungry.ended), ("500", Some(1)), "{what}: {hungry:?}");
            assert!(hungry.errors.unwrap().contains(why), "{what}");
            ask(&address, "").expect(what, "200", "fine", 0);
        }
    }
}
