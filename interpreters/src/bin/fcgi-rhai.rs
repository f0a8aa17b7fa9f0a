//! `fcgi-rhai`: Rhai scripts under FastCGI, as CGI, or on a terminal.
#![forbid(unsafe_code)]

use fcgi::rhai;
use fcgi_interpreters::{Language, LanguageOption, OwnOptions};

/// It bounds what a script takes (`--memory-limit`).
#[global_allocator]
static ALLOCATOR: rhai::Allocator = rhai::Allocator;

fn main() -> std::process::ExitCode {
    fcgi_interpreters::main(&Language {
        program: "fcgi-rhai",
        name: "Rhai",
        extension: "rhai",
        interpreter: rhai::interpreter,
        own: OwnOptions {
            valued: "e",
            told: &[("-e CODE", "run this code; several are one program"), ("-", "run what standard input holds")],
            ..OwnOptions::default()
        },
        options: &[
            LanguageOption {
                long: "max-operations",
                value_name: Some("N"),
                help: "End a script after so many operations [default: no limit]",
                heading: "Limits",
            },
            LanguageOption {
                long: "fs-root",
                value_name: Some("DIR"),
                help: "Let scripts use the files of this directory and below it [default: no files]",
                heading: "What is served",
            },
        ],
        in_place_of_script: None,
        version: rhai::version,
        start: |_| Ok(()),
        event_loop: |_, _| Ok(false),
        afresh: None,
        plain: rhai::run_plain,
    })
}
