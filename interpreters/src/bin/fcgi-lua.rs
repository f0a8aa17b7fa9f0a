//! `fcgi-lua`: Lua scripts under FastCGI, as CGI, or like `lua`.
#![forbid(unsafe_code)]

use fcgi::lua;
use fcgi_interpreters::{Language, OwnOptions};

fn main() -> std::process::ExitCode {
    fcgi_interpreters::main(&Language {
        program: "fcgi-lua",
        name: "Lua",
        extension: "lua",
        interpreter: lua::interpreter,
        own: OwnOptions { valued: if cfg!(feature = "luajit") { "elj" } else { "el" }, ..OwnOptions::default() },
        options: &[],
        in_place_of_script: None,
        version: lua::version,
        start: |_| Ok(()),
        event_loop: |_, _| Ok(false),
        afresh: None,
        plain: lua::run_plain,
    })
}
