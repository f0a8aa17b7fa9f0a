//! CPython's own regression tests: the program stands as the `python3` of an installation, so that children of the tests are
//! the program, too. What fails is asked of the real `python3` in the same place: no case may fail under ours alone.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;

use crate::python_command_line::install_as_python3;
use crate::support::{Directory, FCGI_PYTHON, PYTHON};

/// What concerns the command line, `__main__`, io, sys, os, subprocess, signals and threads. Those that take long come first.
const TOPICS: &[&str] = &[
    "test_signal",
    "test_subprocess",
    "test_threading",
    "test_io",
    "test_cmd_line_script",
    "test_cmd_line",
    "test_threadsignals",
    "test_runpy",
    "test_sys",
    "test_os",
    "test_fileio",
    "test_thread",
    "test_atexit",
];
/// Long options are the runner's: these tests want the words of CPython. And a library in somebody's home is not there for
/// `nobody`, as whom a test starts a child.
const LEFT_OUT: &[(&str, &str)] = &[
    ("test_cmd_line", "test_help"),
    ("test_cmd_line", "test_version"),
    ("test_cmd_line", "test_parsing_error"),
    ("test_subprocess", "test_user"),
];
/// Many of these tests wait; a run that is not over by then hangs.
const PATIENCE: &str = "300";

/// How the tests of a topic ended.
struct Outcome {
    has_passed: bool,
    /// Names of cases, and of what prepares them.
    failed: BTreeSet<String>,
    text: String,
}

/// Runs the tests of a topic: all, or the cases of these names.
fn run(python: &Path, topic: &str, cases: &BTreeSet<String>) -> Outcome {
    let directory = Directory::new();
    let mut command = Command::new(python);
    command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", directory.path()).env("LANG", "C.UTF-8");
    command.args(["-m", "test", "-v", "--timeout", PATIENCE, "--tempdir"]).arg(directory.path());
    for (_, case) in LEFT_OUT.iter().filter(|(of, _)| *of == topic) {
        command.args(["-i", case]);
    }
    for case in cases {
        command.args(["-m", case]);
    }
    let output = command.arg(topic).current_dir(directory.path()).stdin(Stdio::null()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let failed = text.lines().filter_map(|line| line.strip_prefix("FAIL: ").or(line.strip_prefix("ERROR: ")));
    let failed = failed.filter_map(|case| case.split(' ').next()).map(str::to_owned).collect();
    Outcome { has_passed: output.status.success(), failed, text }
}

/// What fails under ours, twice, and not under the real one.
fn differences(ours: &Path, theirs: &Path, topic: &str) -> Option<String> {
    let first = run(ours, topic, &BTreeSet::new());
    if first.has_passed {
        return None;
    }
    let is_told = !first.failed.is_empty() && first.failed.iter().all(|name| name.starts_with("test"));
    let cases = if is_told { first.failed } else { BTreeSet::new() };
    // Some depend on what else the machine does.
    let again = run(ours, topic, &cases);
    if again.has_passed {
        return None;
    }
    let real = run(theirs, topic, &cases);
    let is_alike = !real.has_passed && !again.failed.is_empty() && again.failed.is_subset(&real.failed);
    (!is_alike).then(|| format!("*** {topic}: real {:?}, ours {}", real.failed, again.text))
}

#[test]
fn as_under_the_real_one() {
    let has_tests = Command::new(PYTHON).args(["-c", "import test.test_cmd_line"]).output().unwrap().status.success();
    assert!(has_tests, "{PYTHON} has no tests: in Debian they are the package libpython3.*-testsuite");
    let directory = Directory::new();
    let ours = install_as_python3(FCGI_PYTHON, &directory.path().join("ours"));
    let theirs = install_as_python3(PYTHON, &directory.path().join("theirs"));
    let (rest, found) = (Mutex::new(TOPICS.iter()), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let Some(topic) = rest.lock().unwrap().next() else { break };
                    found.lock().unwrap().extend(differences(&ours, &theirs, topic));
                }
            });
        }
    });
    let found = found.into_inner().unwrap();
    assert!(found.is_empty(), "{}", found.join("\n"));
}
