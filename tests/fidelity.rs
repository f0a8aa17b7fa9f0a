//! The truth is not written down: each script runs as a real CGI program under the system's interpreter, and then under
//! ours, ten times and mixed with the others. Output is compared byte for byte.
//!
//! Directives in a script's comments (here as Lua has them) give its requests: `-- query: TEXT`, `-- body: TEXT` (with escapes), `-- body-repeat:
//! TEXT COUNT`, `-- type: CONTENT-TYPE` for bodies that follow. A script without any gets one GET. `-- not for: NAME ...` and
//! `-- only for: NAME ...` choose versions of Lua.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::support::client::{Reply, call};
use crate::support::{Directory, FCGI_LUA, LUA, Running, comparable, repository, serve_with};

/// A language: its scripts, its real interpreter, and ours.
#[derive(Clone, Copy)]
struct Language {
    /// Directory of the scripts, and their extension.
    name: &'static str,
    extension: &'static str,
    comment: &'static str,
    interpreter: &'static str,
    runner: &'static str,
}

const LUA_SCRIPTS: Language =
    Language { name: "lua", extension: "lua", comment: "-- ", interpreter: LUA, runner: FCGI_LUA };
#[cfg(feature = "python")]
const PYTHON_SCRIPTS: Language = Language {
    name: "python",
    extension: "py",
    comment: "# ",
    interpreter: crate::support::PYTHON,
    runner: crate::support::FCGI_PYTHON,
};

struct Request {
    query: String,
    body: Vec<u8>,
    content_type: String,
}

struct Case {
    script: PathBuf,
    request: Request,
    stdout: Vec<u8>,
    stderr: String,
    status: u32,
}

fn unescape(text: &str) -> Vec<u8> {
    text.replace("\\r", "\r").replace("\\n", "\n").into_bytes()
}

fn requests(language: Language, script: &Path) -> Vec<Request> {
    let text = String::from_utf8_lossy(&std::fs::read(script).unwrap()).into_owned();
    let mut content_type = "text/plain".to_owned();
    let mut requests = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix(language.comment)) {
        let (query, body) = if let Some(query) = line.strip_prefix("query: ") {
            (query.to_owned(), Vec::new())
        } else if let Some(body) = line.strip_prefix("body: ") {
            (String::new(), unescape(body))
        } else if let Some(body) = line.strip_prefix("body-repeat: ") {
            let (text, count) = body.rsplit_once(' ').unwrap();
            (String::new(), unescape(text).repeat(count.parse().unwrap()))
        } else {
            if let Some(kind) = line.strip_prefix("type: ") {
                content_type = kind.to_owned();
            }
            continue;
        };
        requests.push(Request { query, body, content_type: content_type.clone() });
    }
    if requests.is_empty() {
        requests.push(Request { query: String::new(), body: Vec::new(), content_type });
    }
    requests
}

impl Request {
    fn params(&self, script: &Path) -> Vec<(&'static str, Vec<u8>)> {
        let mut params: Vec<(&str, Vec<u8>)> = vec![
            ("GATEWAY_INTERFACE", b"CGI/1.1".to_vec()),
            ("SERVER_PROTOCOL", b"HTTP/1.1".to_vec()),
            ("SERVER_NAME", b"localhost".to_vec()),
            ("REQUEST_METHOD", if self.body.is_empty() { b"GET".to_vec() } else { b"POST".to_vec() }),
            ("SCRIPT_NAME", b"/script".to_vec()),
            ("SCRIPT_FILENAME", script.to_str().unwrap().into()),
            ("QUERY_STRING", self.query.clone().into()),
            ("HTTP_X_BYTES", b"\xe9\xff=".to_vec()),
            ("FCGI_ROLE", b"RESPONDER".to_vec()),
        ];
        if !self.body.is_empty() {
            params.push(("CONTENT_LENGTH", self.body.len().to_string().into()));
            params.push(("CONTENT_TYPE", self.content_type.clone().into()));
        }
        params
    }
}

/// What the script does as a CGI program.
fn as_cgi(language: Language, script: &Path, request: Request) -> Case {
    use std::os::unix::ffi::OsStringExt;
    let mut command = Command::new(language.interpreter);
    crate::support::plain_environment(&mut command);
    for (name, value) in request.params(script) {
        command.env(name, std::ffi::OsString::from_vec(value));
    }
    let mut child = command
        .arg(script)
        .current_dir(script.parent().unwrap())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the real interpreter is installed (tests/run installs what the tests need)");
    let (mut stdin, body) = (child.stdin.take().unwrap(), request.body.clone());
    let writer = std::thread::spawn(move || drop(stdin.write_all(&body)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Case {
        script: script.to_owned(),
        request,
        stdout: output.stdout,
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        status: output.status.code().expect("the script is not killed") as u32,
    }
}

/// `-- not for: NAME ...` leaves versions out, by their features' names; `-- only for: NAME ...` all others.
fn is_for_this_version(text: &str) -> bool {
    let built_in = [
        ("lua51", cfg!(feature = "lua51")),
        ("lua52", cfg!(feature = "lua52")),
        ("lua53", cfg!(feature = "lua53")),
        ("lua54", cfg!(feature = "lua54")),
        ("lua55", cfg!(feature = "lua55")),
        ("luajit", cfg!(feature = "luajit")),
    ];
    let name = built_in.iter().find(|(_, is)| *is).expect("one version is built in").0;
    text.lines().all(|line| match (line.strip_prefix("-- not for: "), line.strip_prefix("-- only for: ")) {
        (Some(names), _) => !names.split(' ').any(|n| n == name),
        (_, Some(names)) => names.split(' ').any(|n| n == name),
        _ => true,
    })
}

fn scripts(language: Language) -> Vec<PathBuf> {
    let mut scripts: Vec<PathBuf> = std::fs::read_dir(repository().join("tests/scripts").join(language.name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == language.extension))
        .filter(|path| !path.file_name().unwrap().to_str().unwrap().starts_with('_'))
        .filter(|path| is_for_this_version(&String::from_utf8_lossy(&std::fs::read(path).unwrap())))
        .collect();
    scripts.sort();
    assert!(scripts.len() > 25, "the scripts are there");
    scripts
}

/// Messages, without tracebacks and without the program's name, which differ.
fn messages(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| {
            !line.starts_with('\t')
                && !line.starts_with("  ")
                && !line.starts_with("Traceback")
                && !line.starts_with("stack traceback")
                && !line.is_empty()
        })
        .map(|line| {
            let (first, rest) = line.split_once(": ").unwrap_or(("", line));
            if first.ends_with("lua") || first.ends_with(LUA) { rest.to_owned() } else { line.to_owned() }
        })
        .collect()
}

/// How the answer differs from what the script says under CGI.
fn difference(case: &Case, reply: &Reply, when: &str) -> Option<String> {
    let name = case.script.file_name().unwrap().to_str().unwrap();
    let what = format!("{name} ?{} {when}", case.request.query);
    // A script that wrote nothing gets an error page from any web server; ours says so itself.
    if case.stdout.is_empty() && !reply.stdout.starts_with(b"Status: 500 ") {
        return Some(format!("{what}: no error page, but {reply:?}"));
    }
    let (stdout, answer) = (comparable(&case.stdout), comparable(&reply.stdout));
    if !stdout.is_empty() && stdout != answer {
        let at = stdout.iter().zip(&answer).take_while(|(a, b)| a == b).count();
        let show = |bytes: &[u8]| bytes[at.saturating_sub(40)..(at + 60).min(bytes.len())].escape_ascii().to_string();
        let (cgi, fastcgi) = (show(&stdout), show(&answer));
        return Some(format!("{what}: byte {at}\n  CGI:     {cgi}\n  FastCGI: {fastcgi}"));
    }
    let (cgi, fastcgi) = (messages(&case.stderr), messages(&reply.errors()));
    if cgi != fastcgi {
        return Some(format!("{what}: error stream\n  CGI:     {cgi:?}\n  FastCGI: {fastcgi:?}"));
    }
    (case.status != reply.app_status)
        .then(|| format!("{what}: exit status {} under CGI, {} under FastCGI", case.status, reply.app_status))
}

fn send(address: &str, case: &Case) -> Reply {
    // Shown when the test fails: an answer that does not come has no difference to tell.
    println!("{} {:?}", case.script.display(), case.request.query);
    let params = case.request.params(&case.script);
    let params: Vec<(&str, &[u8])> = params.iter().map(|(n, v)| (*n, &v[..])).collect();
    call(address, &params, &case.request.body)
}

fn all_scripts_answer_as_under_cgi(language: Language, runner: impl FnOnce(&str) -> Running) {
    let directory = Directory::new();
    let address = directory.socket("s");
    let _runner = runner(&address);
    let cases: Vec<Case> = scripts(language)
        .iter()
        .flat_map(|s| requests(language, s).into_iter().map(|r| as_cgi(language, s, r)).collect::<Vec<_>>())
        .collect();
    // Several times in a row: what the script itself leaves behind.
    let in_a_row: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            (1..=3).find_map(|time| difference(case, &send(&address, case), &format!("in a row, time {time}")))
        })
        .collect();
    assert!(in_a_row.is_empty(), "{}", in_a_row.join("\n"));
    // Mixed: what others leave behind.
    for round in 1..=7 {
        let mixed: Vec<String> = cases
            .iter()
            .filter_map(|case| difference(case, &send(&address, case), &format!("mixed, round {round}")))
            .collect();
        assert!(mixed.is_empty(), "{}", mixed.join("\n"));
    }
}

#[test]
fn one_interpreter() {
    let language = LUA_SCRIPTS;
    all_scripts_answer_as_under_cgi(language, |address| serve_with(language.runner, address, &[]));
}

#[cfg(feature = "python")]
#[test]
fn one_python() {
    let language = PYTHON_SCRIPTS;
    all_scripts_answer_as_under_cgi(language, |address| serve_with(language.runner, address, &[]));
}

#[cfg(feature = "python")]
#[test]
fn python_workers_and_their_parent() {
    let language = PYTHON_SCRIPTS;
    all_scripts_answer_as_under_cgi(language, |address| serve_with(language.runner, address, &["--workers", "2"]));
}

#[test]
fn workers_and_their_parent() {
    let language = LUA_SCRIPTS;
    all_scripts_answer_as_under_cgi(language, |address| serve_with(language.runner, address, &["--workers", "2"]));
}

#[test]
fn forked() {
    let language = LUA_SCRIPTS;
    all_scripts_answer_as_under_cgi(language, |address| serve_with(language.runner, address, &["--isolation", "fork"]));
}

#[cfg(feature = "python")]
#[test]
fn python_forked() {
    let language = PYTHON_SCRIPTS;
    all_scripts_answer_as_under_cgi(language, |address| serve_with(language.runner, address, &["--isolation", "fork"]));
}

/// All scripts from several clients at once, but for those about what a process has only once.
fn threads_answer_as_under_cgi(language: Language, of_process: &[&str]) {
    let directory = Directory::new();
    let address = directory.socket("s");
    let _runner = serve_with(language.runner, &address, &["--threads", "4"]);
    let cases: Vec<Case> = scripts(language)
        .iter()
        .filter(|s| !of_process.contains(&s.file_name().unwrap().to_str().unwrap()))
        .flat_map(|s| requests(language, s).into_iter().map(|r| as_cgi(language, s, r)).collect::<Vec<_>>())
        .collect();
    let differences = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6)
            .map(|offset| {
                let (cases, address) = (&cases, &address);
                scope.spawn(move || -> Vec<String> {
                    let in_turn = (0..cases.len()).map(|at| &cases[(at + offset * 17) % cases.len()]);
                    let when = format!("beside others, client {offset}");
                    in_turn.filter_map(|case| difference(case, &send(address, case), &when)).collect()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// Interpreters in threads share locale and the C library's streams.
#[test]
fn threads_at_once() {
    threads_answer_as_under_cgi(LUA_SCRIPTS, &["state_random_locale.lua", "state_files.lua", "in_dofile_stdin.lua"]);
}

/// Here they share modules of the library, signals and the C library's environment as well, and `sys.stdout` is of a type of
/// its own.
#[cfg(feature = "python")]
#[test]
fn python_threads_at_once() {
    let of_process = [
        "state_process.py",
        "state_library.py",
        "state_settings.py",
        "proc_servers.py",
        "exit_by_timer.py",
        "err_module.py",
        "err_warnings.py",
        "mod_library.py",
        "mod_sets_up.py",
        "exit_order.py",
        "env_overlay.py",
        // A module that fails as another thread waits for it is no error there: so it is in CPython.
        "err_import.py",
        "mod_copies.py",
        "out_descriptors.py",
        "out_streams.py",
    ];
    threads_answer_as_under_cgi(PYTHON_SCRIPTS, &of_process);
}
