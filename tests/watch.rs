//! `--watch`: a change of source files reloads the server, and one that cannot be taken changes nothing.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crate::support::client::call;
use crate::support::logged::Logged;
use crate::support::{Directory, FCGI_LUA};

/// A runner that reloads when something has changed in the directory that it serves in.
struct Server(Logged);

impl std::ops::Deref for Server {
    type Target = Logged;
    fn deref(&self) -> &Logged {
        &self.0
    }
}

impl Server {
    fn start(runner: &str, directory: Directory, arguments: &[&str]) -> Self {
        Self(Logged::start(runner, directory, &[&["--watch"], arguments].concat()))
    }

    /// The last line of an answer.
    fn says(&self) -> String {
        let reply = call(&self.address, &[("REQUEST_METHOD", b"GET")], b"");
        assert_eq!(reply.protocol_status, 0, "{reply:?}");
        reply.text().lines().last().unwrap_or_default().to_owned()
    }

    fn until_says(&self, word: &str) {
        self.until(word, || self.says() == word);
    }

    /// All workers are new, for so many times: the next change is one behind that.
    fn until_reloaded(&self, times: usize) {
        self.until("a reload", || self.log().matches("reloaded: the new workers serve").count() >= times);
    }
}

/// Modules are loaded by the processes once: only new processes have them anew.
const LUA: &str = "package.path = './?.lua;' .. package.path
    print('Content-Type: text/plain\\n') print((require 'lib.words'))";

#[test]
fn modules_of_a_script_are_taken_anew_and_no_request_is_refused() {
    let directory = Directory::new();
    let script = directory.file("app.lua", LUA).display().to_string();
    directory.file("lib/words.lua", "return 'one'");
    // No number of workers is given.
    let server = Server::start(FCGI_LUA, directory, &[&script]);
    assert_eq!(server.says(), "one");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(SeqCst) {
                    let word = server.says();
                    assert!(["one", "two"].contains(&&*word), "{word:?}");
                }
            });
        }
        server.directory.file("lib/words.lua", "return 'two'");
        server.until_says("two");
        done.store(true, SeqCst);
    });
    server.until_reloaded(1);
    // Half a file is said, and is not taken; nor are files that are no sources.
    server.directory.file("lib/.words.lua.swp", "x");
    server.directory.file("lib/words.txt", "x");
    server.directory.file("lib/words.lua", "return 'three");
    server.until_log("all goes on as before");
    assert_eq!(server.says(), "two");
    server.directory.file("lib/words.lua", "return 'four'");
    server.until_says("four");
    server.until_reloaded(2);
    let log = server.0.stop();
    assert_eq!(log.matches("lib/words.lua changed: reloading").count(), 3, "{log}");
    assert!(log.contains("words.lua:1: unfinished string"), "{log}");
    assert!(!log.contains("swp") && !log.contains("txt"), "{log}");
}

#[test]
fn the_configuration_and_other_files_are_watched() {
    let directory = Directory::new();
    let text = "print('Content-Type: text/plain\\n')
        TEXT = TEXT or io.open('text/word'):read('*l') print(TEXT .. (arg[1] or ''))";
    let script = directory.file("page.lua", text).display().to_string();
    directory.file("text/word", "a");
    let text = directory.path().join("text").display().to_string();
    let configuration = |argument: &str| format!("script = {script:?}\narguments = [\"{argument}\"]\n");
    let file = directory.file("etc/fcgi.toml", configuration("1")).display().to_string();
    let server = Server::start(FCGI_LUA, directory, &["--config", &file, "--watch-also", &text]);
    assert_eq!(server.says(), "a1");
    server.directory.file("etc/fcgi.toml", configuration("2"));
    server.until_says("a2");
    server.until_reloaded(1);
    server.directory.file("etc/fcgi.toml", "no-such-key = 1");
    server.until_log("unknown key");
    assert_eq!(server.says(), "a2");
    server.directory.file("etc/fcgi.toml", configuration("3"));
    server.until_says("a3");
    server.until_reloaded(2);
    // Editors write another file, and put it in the place of the first one.
    let new = server.directory.file("text/.new", "b");
    std::fs::rename(new, server.directory.path().join("text/word")).unwrap();
    server.until_log("word changed: reloading");
    server.until_says("b3");
    server.0.stop();
}

#[cfg(feature = "python")]
#[test]
fn applications_of_python_go_on_until_they_are_mended() {
    const APP: &str = "import words\ndef app(environ, start_response):\n    start_response('200 OK', [])\n    \
        return [b'Content: \\n\\n' + words.WORD]\n";
    let directory = Directory::new();
    directory.file("site_app.py", APP);
    directory.file("words.py", "WORD = b'one'");
    let arguments = ["--workers", "2", "--app", "site_app:app"];
    let server = Server::start(crate::support::FCGI_PYTHON, directory, &arguments);
    assert_eq!(server.says(), "one");
    server.directory.file("words.py", "WORD = b'two'");
    server.until_says("two");
    server.until_reloaded(1);
    // Found as it is compiled, and found as it is loaded.
    server.directory.file("words.py", "WORD = b'three");
    server.until_log("SyntaxError");
    server.until_log("all goes on as before");
    assert_eq!(server.says(), "two");
    server.directory.file("words.py", "WORD = no_such_name");
    server.until_log("no_such_name");
    server.until_log("the workers from before the reload go on");
    assert_eq!(server.says(), "two");
    server.directory.file("words.py", "WORD = b'four'");
    server.until_says("four");
    server.0.stop();
}

#[cfg(feature = "rhai")]
#[test]
fn rhai_too() {
    let directory = Directory::new();
    let text = "import \"words\" as words; print(\"Content-Type: text/plain\\n\"); print(words::WORD);";
    let script = directory.file("app.rhai", text).display().to_string();
    directory.file("words.rhai", "export const WORD = \"one\";");
    let server = Server::start(crate::support::FCGI_RHAI, directory, &[&script]);
    assert_eq!(server.says(), "one");
    server.directory.file("words.rhai", "export const WORD = \"two");
    server.until_log("all goes on as before");
    server.directory.file("words.rhai", "export const WORD = \"three\";");
    server.until_reloaded(1);
    assert_eq!(server.says(), "three");
    server.0.stop();
}

#[test]
fn the_parent_stays_small() {
    let directory = Directory::new();
    let script = directory.file("app.lua", "print('Content-Type: text/plain\\n')").display().to_string();
    for number in 0..300 {
        directory.file(&format!("a-directory-with-a-long-name-{number}/module.lua"), "");
    }
    let server = Server::start(FCGI_LUA, directory, &[&script]);
    server.says();
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.running.0.id())).unwrap();
    let private = rollup.lines().filter(|line| line.starts_with("Private_"));
    let kib: u64 = private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum();
    assert!(kib < 2048, "{rollup}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.running.0.id())).unwrap();
    assert!(status.contains("Threads:\t1\n"), "{status}");
    server.0.stop();
}

#[test]
fn somebody_must_say_where_sources_lie() {
    let directory = Directory::new();
    let output = Command::new(FCGI_LUA).args(["--listen", &directory.socket("s"), "--watch"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && text.contains("--root or --watch-also"), "{text}");
}
