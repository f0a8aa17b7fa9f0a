//! Scripts that authorize, transform files and take the log, asked by the HTTP front: in all languages, as ordinary scripts,
//! loops and applications. The table that it prints (`--nocapture`) has a line for each language and kind of program.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Directory, FCGI_LUA, FCGI_PYTHON, FCGI_RHAI, Running, plain_environment, repository};

struct Language {
    runner: &'static str,
    extension: &'static str,
    /// Tells the variable GUEST.
    page: &'static str,
    /// Kinds of programs, each with an authorizer, a filter and a logger.
    kinds: [(&'static str, Program, Program, Program); 3],
}

enum Program {
    Example(&'static str),
    Text(&'static str),
}

use Program::{Example, Text};

const LUA: Language = Language {
    runner: FCGI_LUA,
    extension: "lua",
    page: "print('Content-Type: text/plain\\n\\nguest ' .. tostring(os.getenv('GUEST')) .. ' ' .. os.getenv('FCGI_ROLE'))",
    kinds: [
        (
            "script",
            Example("authorizer"),
            Text(
                "local fcgi = require 'fcgi'
io.write('Content-Type: text/plain\\nX-Length: ', os.getenv('FCGI_DATA_LENGTH'), '\\n\\n', (fcgi.data():read('a'):upper()))",
            ),
            Example("logger"),
        ),
        (
            "accept loop",
            Text(
                "local fcgi = require 'fcgi'
while fcgi.accept() do
    if fcgi.role() == 'AUTHORIZER' and os.getenv('QUERY_STRING') == 'word=sesame' then
        io.write('Status: 200 OK\\nVariable-GUEST: yes\\n\\n')
    else
        io.write('Status: 403 Forbidden\\nContent-Type: text/plain\\n\\nWhat is the word?')
    end
end",
            ),
            Example("filter"),
            Text(
                "local fcgi = require 'fcgi'
while fcgi.accept() do
    for line in io.lines() do
        if line:find('\" 403 ', 1, true) then io.stderr:write('403 for ', line:match('\"(.-)\"'), '\\n') end
    end
end",
            ),
        ),
        (
            "application",
            Text(
                "return function(env)
    if env.QUERY_STRING == 'word=sesame' then return 200, { ['Variable-GUEST'] = 'yes' }, '' end
    return '403 Forbidden', { ['Content-Type'] = 'text/plain' }, 'What is the word?'
end",
            ),
            Text(
                "local fcgi = require 'fcgi'
return function(env)
    return 200, { ['Content-Type'] = 'text/plain', ['X-Length'] = env.headers.FCGI_DATA_LENGTH }, fcgi.data():read('a'):upper()
end",
            ),
            Text(
                "return function(env)
    local lines = env.input:read(1000000)
    for request in lines:gmatch('\"([^\"]-)\" 403 ') do env.error:write('403 for ', request, '\\n') end
    return 200, {}, ''
end",
            ),
        ),
    ],
};

const PYTHON: Language = Language {
    runner: FCGI_PYTHON,
    extension: "py",
    page: "import os
print('Content-Type: text/plain\\n\\nguest', os.environ.get('GUEST'), os.environ['FCGI_ROLE'])",
    kinds: [
        (
            "script",
            Example("authorizer"),
            Text(
                "import fcgi, os, sys
print('Content-Type: text/plain\\nX-Length:', os.environ['FCGI_DATA_LENGTH'], end='\\n\\n', flush=True)
first = fcgi.data().readline()
sys.stdout.buffer.write((first + fcgi.data().read()).upper())",
            ),
            Example("logger"),
        ),
        (
            "accept loop",
            Text(
                "import fcgi, os
while fcgi.accept():
    if fcgi.role() == 'AUTHORIZER' and os.environ['QUERY_STRING'] == 'word=sesame':
        print('Status: 200 OK\\nVariable-GUEST: yes\\n')
    else:
        print('Status: 403 Forbidden\\nContent-Type: text/plain\\n\\nWhat is the word?')",
            ),
            Example("filter"),
            Text(
                "import fcgi, sys
while fcgi.accept():
    for line in sys.stdin:
        if '\" 403 ' in line:
            print('403 for', line.split('\"')[1], file=sys.stderr)",
            ),
        ),
        (
            "application",
            Text(
                "def application(environ, start_response):
    if environ['QUERY_STRING'] == 'word=sesame':
        start_response('200 OK', [('Variable-GUEST', 'yes')])
        return []
    start_response('403 Forbidden', [('Content-Type', 'text/plain')])
    return [b'What is the word?']",
            ),
            Text(
                "def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain'), ('X-Length', environ['FCGI_DATA_LENGTH'])])
    return (line.upper() for line in environ['fcgi.data'])",
            ),
            Text(
                "def application(environ, start_response):
    for line in environ['wsgi.input']:
        if b'\" 403 ' in line:
            print('403 for', line.decode().split('\"')[1], file=environ['wsgi.errors'])
    start_response('200 OK', [])
    return []",
            ),
        ),
    ],
};

const RHAI: Language = Language {
    runner: FCGI_RHAI,
    extension: "rhai",
    page: "print(\"Content-Type: text/plain\\n\"); print(`guest ${env(\"GUEST\") ?? \"nil\"} ${env(\"FCGI_ROLE\")}`);",
    kinds: [
        (
            "script",
            Example("authorizer"),
            Text(
                "print(\"Content-Type: text/plain\");
print(`X-Length: ${env(\"FCGI_DATA_LENGTH\")}`);
print(\"\");
write(fcgi::data().to_upper());",
            ),
            Example("logger"),
        ),
        (
            "accept loop",
            Text(
                "while fcgi::accept() {
    if fcgi::role() == \"AUTHORIZER\" && env(\"QUERY_STRING\") == \"word=sesame\" {
        print(\"Status: 200 OK\\nVariable-GUEST: yes\\n\");
    } else {
        print(\"Status: 403 Forbidden\\nContent-Type: text/plain\\n\\nWhat is the word?\");
    }
}",
            ),
            Example("filter"),
            Text(
                "while fcgi::accept() {
    for line in stdin.lines() {
        if line.contains(\"\\\" 403 \") { debug(`403 for ${line.split(\"\\\"\")[1]}`); }
    }
}",
            ),
        ),
        (
            "application",
            Text(
                "fn handle(request) {
    if request.params.QUERY_STRING == \"word=sesame\" { return #{ status: 200, headers: #{ \"Variable-GUEST\": \"yes\" } }; }
    #{ status: \"403 Forbidden\", headers: #{ \"Content-Type\": \"text/plain\" }, body: \"What is the word?\" }
}",
            ),
            Text(
                "fn handle(request) {
    let length = request.params.FCGI_DATA_LENGTH;
    #{ headers: #{ \"Content-Type\": \"text/plain\", \"X-Length\": length }, body: fcgi::data().to_upper() }
}",
            ),
            Text(
                "fn handle(request) {
    for line in request.text.split(\"\\n\") {
        if line.contains(\"\\\" 403 \") { debug(`403 for ${line.split(\"\\\"\")[1]}`); }
    }
    #{ status: 200 }
}",
            ),
        ),
    ],
};

struct Front {
    port: u16,
    running: Running,
    log: PathBuf,
}

impl Front {
    fn start(runner: &str, directory: &Directory, arguments: &[String]) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = directory.path().join("log");
        let mut command = Command::new(runner);
        plain_environment(&mut command);
        command.args(["--http", &format!("127.0.0.1:{port}")]).args(arguments).stdin(Stdio::null());
        let running = Running::start(command.stderr(std::fs::File::create(&log).unwrap()));
        let end = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < end, "{arguments:?}: {}", std::fs::read_to_string(&log).unwrap());
            std::thread::sleep(Duration::from_millis(5));
        }
        Self { port, running, log }
    }

    fn ask(&self, path: &str) -> String {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        write!(socket, "GET {path} HTTP/1.0\r\nHost: test\r\nUser-Agent: a \"test\"\r\n\r\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text
    }

    /// Waits until the log has a text.
    fn expect_log(&self, text: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        let log = || std::fs::read_to_string(&self.log).unwrap();
        while !log().contains(text) {
            assert!(Instant::now() < end, "no '{text}' in {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends the front; gives its log.
    fn stop(mut self) -> String {
        self.running.signal("TERM");
        assert_eq!(self.running.wait(Duration::from_secs(30)).0, Some(0));
        std::fs::read_to_string(&self.log).unwrap()
    }
}

fn check(language: &Language, kind: &(&str, Program, Program, Program)) {
    let (name, authorizer, filter, logger) = kind;
    let directory = Directory::new();
    let file = |program: &Program, name: &str| {
        let path = match program {
            Example(example) => repository().join("examples").join(format!("{example}.{}", language.extension)),
            Text(text) => directory.file(&format!("{name}.{}", language.extension), text),
        };
        path.display().to_string()
    };
    let page = directory.file(&format!("page.{}", language.extension), language.page).display().to_string();
    // More than is kept of a file before it is read.
    let text = "a line of notes\n".repeat(20_000);
    directory.file("static/notes.md", &text);
    directory.file("static/plain.txt", "as it is");
    let arguments = [
        "--static".to_owned(),
        directory.path().join("static").display().to_string(),
        "--authorizer".to_owned(),
        file(authorizer, "authorizer"),
        "--filter".to_owned(),
        format!("*.md={}", file(filter, "filter")),
        "--logger".to_owned(),
        file(logger, "logger"),
        page,
    ];
    let front = Front::start(language.runner, &directory, &arguments);
    let which = format!("{} {name}", language.extension);
    for _ in 0..3 {
        for path in ["/", "/plain.txt", "/notes.md", "/?word=closed"] {
            let answer = front.ask(path);
            assert!(answer.starts_with("HTTP/1.0 403 Forbidden"), "{which} {path}: {answer}");
            assert!(answer.trim_end().ends_with("What is the word?"), "{which} {path}: {answer}");
        }
        let answer = front.ask("/?word=sesame");
        assert!(answer.starts_with("HTTP/1.0 200 OK"), "{which}: {answer}");
        let body = answer.split("\r\n\r\n").nth(1).unwrap().trim_end();
        assert_eq!(body, "guest yes RESPONDER", "{which}");
        assert!(!answer.contains("Variable"), "{which}: {answer}");
        assert!(front.ask("/plain.txt?word=sesame").ends_with("\r\n\r\nas it is"), "{which}");
        let answer = front.ask("/notes.md?word=sesame");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK"), "{which}: {head}");
        assert!(*name == "accept loop" || head.contains(&format!("{}", text.len())), "{which}: {head}");
        assert!(body == text.to_uppercase(), "{which}: the file was not transformed");
    }
    front.expect_log("403 for GET /notes.md HTTP/1.0");
    // What is asked last is told as well.
    front.ask("/last");
    let log = front.stop();
    assert!(log.contains("403 for GET /last HTTP/1.0"), "{which}: {log}");
    assert!(!log.contains("200 for") && !log.contains("the logger"), "{which}: {log}");
}

#[test]
fn every_role_in_every_language() {
    println!("| language | program | authorizer | filter | logger |");
    println!("| --- | --- | :-: | :-: | :-: |");
    for language in [&LUA, &PYTHON, &RHAI] {
        for kind in &language.kinds {
            check(language, kind);
            println!("| {} | {} | yes | yes | yes |", language.extension, kind.0);
        }
    }
}

#[test]
fn what_the_logger_is_told() {
    let directory = Directory::new();
    let page = directory.file("page.lua", "print('Content-Type: text/plain\\n\\nhello')").display().to_string();
    let logger = directory.file("logger.lua", "for line in io.lines() do io.stderr:write('[', line, ']\\n') end");
    let arguments = ["--logger".to_owned(), logger.display().to_string(), page];
    let front = Front::start(FCGI_LUA, &directory, &arguments);
    front.ask("/path?query");
    front.expect_log("[127.0.0.1 - - [");
    let log = front.stop();
    let line = log.lines().find(|line| line.contains("[127.0.0.1")).unwrap();
    assert!(line.contains(" +0000] \"GET /path?query HTTP/1.0\" 200 6 \"-\" \"a \\\"test\\\"\"]"), "{line}");
}

#[test]
fn an_authorizer_that_fails_lets_nobody_in() {
    let directory = Directory::new();
    let page = directory.file("page.lua", "print('Content-Type: text/plain\\n\\nsecret')").display().to_string();
    for text in ["error('on purpose')", "", "io.write('no header')", "io.write('Status: 500\\n\\n')", "os.exit(3)"] {
        let authorizer = directory.file("authorizer.lua", text).display().to_string();
        let front = Front::start(FCGI_LUA, &directory, &["--authorizer".to_owned(), authorizer, page.clone()]);
        let answer = front.ask("/");
        assert!(answer.starts_with("HTTP/1.0 50"), "{text}: {answer}");
        assert!(!answer.contains("secret"), "{text}: {answer}");
    }
}

#[test]
fn what_roles_need_is_said() {
    let directory = Directory::new();
    let page = directory.file("page.py", "").display().to_string();
    let missing = directory.path().join("missing.py").display().to_string();
    for (arguments, said) in [
        (&["--authorizer", &page, &page][..], "--http"),
        (&["--http", "0", "--filter", "*.md", &page], "PATTERN=SCRIPT"),
        (&["--http", "0", "--filter", &format!("*.md={page}"), &page], "--static"),
        (&["--http", "0", "--logger", &missing, &page], "missing.py (--logger)"),
        (&["--http", "0", "--logger", &page, "--app", "a:b"], "beside another one"),
        (&["--http", "0", "--logger", &page, "--interface", "asgi", &page], "has the server for itself"),
    ] {
        let done = Command::new(FCGI_PYTHON).args(arguments).stdin(Stdio::null()).output().unwrap();
        let text = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(said), "{arguments:?}: {text}");
    }
}
