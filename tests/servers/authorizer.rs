//! Authorizers behind the web servers that ask them: ordinary scripts (those of the examples) and applications, in all
//! languages. The table that the test prints (`--nocapture`) has a line for each.

use std::fs::Permissions;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::site::wait;
use super::software::{APACHE, LIGHTTPD, Software};
use super::{LANGUAGES, Language};
use crate::nginx::free_port;
use crate::support::http::{Answer, ask};
use crate::support::{Directory, Running, plain_environment, repository};

struct Case {
    server: &'static str,
    software: Software,
    example: &'static str,
}

const CASES: [Case; 2] = [
    Case { server: "apache", software: APACHE, example: "apache-authorizer.conf" },
    Case { server: "lighttpd", software: LIGHTTPD, example: "lighttpd-authorizer.conf" },
];

fn application(language: Language) -> &'static str {
    match language.extension {
        "lua" => {
            "return function(env)
                local role = require('fcgi').role()
                if env.QUERY_STRING == 'word=sesame' and role == 'AUTHORIZER' then
                    return 200, { ['Variable-GUEST'] = 'yes' }, ''
                end
                return 403, { ['Content-Type'] = 'text/plain' }, 'What is the word?\\n'
            end"
        }
        "py" => {
            "def application(environ, start_response):
    if environ['QUERY_STRING'] == 'word=sesame' and environ['FCGI_ROLE'] == 'AUTHORIZER':
        start_response('200 OK', [('Variable-GUEST', 'yes')])
        return []
    start_response('403 Forbidden', [('Content-Type', 'text/plain')])
    return [b'What is the word?\\n']
"
        }
        _ => {
            "fn handle(request) {
                if request.params.QUERY_STRING == \"word=sesame\" && request.params.FCGI_ROLE == \"AUTHORIZER\" {
                    return #{ headers: #{ \"Variable-GUEST\": \"yes\" }, body: \"\" };
                }
                #{ status: 403, headers: #{ \"Content-Type\": \"text/plain\" }, body: \"What is the word?\\n\" }
            }"
        }
    }
}

/// The guarded program says what it knows of its guest.
fn guarded(language: Language) -> &'static str {
    match language.extension {
        "lua" => "io.write('Content-Type: text/plain\\n\\nguest: ', os.getenv('GUEST') or 'nobody')",
        "py" => "import os\nprint('Content-Type: text/plain\\n\\nguest:', os.environ.get('GUEST', 'nobody'), end='')",
        _ => "write(`Content-Type: text/plain` + \"\\n\\n\" + `guest: ${env(\"GUEST\") ?? \"nobody\"}`);",
    }
}

fn start(directory: &Directory, language: Language, words: &[&str]) -> Running {
    let mut command = Command::new(language.runner);
    plain_environment(&mut command);
    let log = std::fs::File::options().create(true).append(true).open(directory.path().join("output.log")).unwrap();
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    Running::start(&mut command)
}

/// What a client gets who says the word, who says another one, and who asks elsewhere.
fn answers(case: &Case, language: Language, authorizer: &str) -> [Answer; 3] {
    let directory = Directory::new();
    let path = directory.path().display().to_string();
    std::fs::set_permissions(directory.path(), Permissions::from_mode(0o777)).unwrap();
    let extension = language.extension;
    let script = directory.file(&format!("www/authorizer.{extension}"), authorizer).display().to_string();
    for name in ["www/members/page", "www/page"] {
        directory.file(&format!("{name}.{extension}"), guarded(language));
    }
    let (port, tcp) = (free_port(), free_port());
    let text = std::fs::read_to_string(repository().join("examples/servers").join(case.example)).unwrap();
    let text = text
        .replace("/srv/www", &format!("{path}/www"))
        .replace("/run/app.sock", &format!("{path}/app.sock"))
        .replace(".lua", &format!(".{extension}"))
        .replace("8080", &port.to_string())
        .replace("9000", &tcp.to_string());
    directory.file("site.conf", text);
    let address = format!("127.0.0.1:{tcp}");
    let _authorizer = start(&directory, language, &["--listen", &address, &script]);
    let socket = directory.socket("app.sock");
    let _program = start(&directory, language, &["--listen", &socket, "--root", &format!("{path}/www")]);
    let socket = directory.path().join("app.sock");
    wait("the authorizer", || TcpStream::connect(&address).is_ok()).unwrap();
    wait("the program", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).unwrap();
    std::fs::set_permissions(&socket, Permissions::from_mode(0o777)).unwrap();
    let mut command = (case.software.command)(directory.path(), port);
    let mut server = Running::start(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
    wait("the web server", || TcpStream::connect(("127.0.0.1", port)).is_ok()).unwrap_or_else(|e| {
        panic!("{e}: {:?} {:?}", server.0.try_wait(), std::fs::read_to_string(directory.path().join("error.log")))
    });
    [
        format!("members/page.{extension}?word=sesame"),
        format!("members/page.{extension}?word=open"),
        format!("page.{extension}"),
    ]
    .map(|target| ask(port, &format!("GET /{target}"), "", b"").unwrap())
}

#[test]
fn authorizers_behind_web_servers() {
    println!("{:<10} {:<8} {:<12} let in  variable  refused  page", "server", "", "");
    for case in &CASES {
        for language in LANGUAGES {
            let example = repository().join("examples").join(format!("authorizer.{}", language.extension));
            let script = std::fs::read_to_string(example).unwrap();
            for (kind, authorizer) in [("script", &*script), ("application", application(language))] {
                let what = format!("{} {} {kind}", case.server, language.name);
                let [welcome, refused, elsewhere] = answers(case, language, authorizer);
                assert_eq!((welcome.status, &*welcome.text()), (200, "guest: yes"), "{what}");
                assert!(
                    welcome.all("variable-guest").is_empty(),
                    "{what}: the variable is no business of the client's"
                );
                assert_eq!((refused.status, &*refused.text()), (403, "What is the word?\n"), "{what}");
                assert_eq!((elsewhere.status, &*elsewhere.text()), (200, "guest: nobody"), "{what}");
                println!("{:<10} {:<8} {kind:<12} ok      ok        ok       ok", case.server, language.name);
            }
        }
    }
}
