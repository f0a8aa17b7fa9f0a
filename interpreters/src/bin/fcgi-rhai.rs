//! `fcgi-rhai`: Rhai scripts under FastCGI, as CGI, or on a terminal.
#![forbid(unsafe_code)]

use fcgi::rhai;
use fcgi_interpreters::{Language, OwnOptions};

/// It bounds what a script takes (`--memory-limit`).
#[global_allocator]
static ALLOCATOR: rhai::Allocator = rhai::Allocator;

fn main() -> std::process::ExitCode {
    fcgi_interpreters::main(&Language {
        program: "fcgi-rhai",
        name: "Rhai",
        interpreter: rhai::interpreter,
        compile: rhai::compile,
        own: OwnOptions {
            valued: "e",
            told: &[("-e CODE", "run this code; several are one program"), ("-", "run what standard input holds")],
            ..OwnOptions::default()
        },
        version: rhai::version,
        start: |_| Ok(()),
        event_loop: |_, _| Ok(false),
        outdated: || None,
        afresh: None,
        preload: None,
        plain: rhai::run_plain,
    })
}
