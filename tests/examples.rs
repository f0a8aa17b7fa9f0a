//! What the README and `examples/` promise.

use std::process::Command;

use crate::support::client::call;
use crate::support::{Directory, FCGI_LUA, repository, serve};

#[test]
fn the_counter_counts_while_the_process_lives() {
    let script = repository().join("examples/counter.lua").display().to_string();
    let directory = Directory::new();
    let address = directory.socket("s");
    let _runner = serve(&address, &[&script]);
    for number in 1..=3 {
        let text = call(&address, &[], b"").text();
        assert_eq!(text, format!("Content-Type: text/html\n\nHello world!<br>Request number {number}.\n"));
    }
    for environment in [Some(("GATEWAY_INTERFACE", "CGI/1.1")), None] {
        let output = Command::new(FCGI_LUA).arg(&script).envs(environment).output().unwrap();
        assert!(output.stdout.ends_with(b"Request number 1.\n"));
    }
}

#[test]
fn the_program_links_no_other_language() {
    let output = Command::new("ldd").arg(FCGI_LUA).output().expect("ldd");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("libc.so"), "{text}");
    for other in ["python", "liblua", "perl", "ruby"] {
        assert!(!text.contains(other), "{text}");
    }
}
