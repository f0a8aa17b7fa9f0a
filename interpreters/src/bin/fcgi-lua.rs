//! `fcgi-lua`: Lua scripts under FastCGI, as CGI, or like `lua`.
#![forbid(unsafe_code)]

use fcgi::lua;
use fcgi_interpreters::{Language, OwnOptions};

fn main() -> std::process::ExitCode {
    fcgi_interpreters::main(&Language {
        program: "fcgi-lua",
        name: "Lua",
        interpreter: lua::interpreter,
        compile: lua::compile,
        own: OwnOptions {
            valued: if cfg!(feature = "luajit") { "elj" } else { "el" },
            told: OPTIONS,
            ..OwnOptions::default()
        },
        version: lua::version,
        start: |_| Ok(()),
        event_loop: |_, _| Ok(false),
        outdated: || None,
        afresh: None,
        preload: None,
        plain: lua::run_plain,
    })
}

const OPTIONS: &[(&str, &str)] = &[
    ("-e CODE", "run this code"),
    ("-l NAME", "require this module"),
    ("-i", "a prompt, after the script"),
    ("-v", "tell the version"),
    #[cfg(not(feature = "lua51"))]
    ("-E", "leave variables of the environment aside"),
    #[cfg(any(feature = "lua54", feature = "lua55"))]
    ("-W", "show warnings"),
    #[cfg(feature = "luajit")]
    ("-j COMMAND", "tell the compiler something, or run one of its modules"),
    #[cfg(feature = "luajit")]
    ("-O...", "how the compiler optimizes"),
    #[cfg(feature = "luajit")]
    ("-b...", "compile to a file"),
    ("-", "run what standard input holds"),
];
