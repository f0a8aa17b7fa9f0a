//! `fcgi-lua`: Lua scripts under FastCGI, as CGI, or like `lua`.
#![forbid(unsafe_code)]

use fcgi::lua;
use fcgi_interpreters::{Language, Setup};

fn options(setup: &Setup) -> lua::Options {
    lua::Options {
        program: setup.program.clone(),
        command_line: setup.command_line.clone(),
        own: setup.own.clone(),
        own_ended: setup.own_ended,
        script: setup.script.clone(),
        arguments: setup.arguments.clone(),
        display_errors: setup.display_errors,
        shared_process: setup.shared_process,
    }
}

fn main() -> std::process::ExitCode {
    fcgi_interpreters::main(&Language {
        program: "fcgi-lua",
        name: "Lua",
        extension: "lua",
        interpreter: |setup| Ok(Box::new(lua::Engine::new(options(setup))?)),
        valued: "el",
        plain: |setup| lua::run_plain(&options(setup)),
    })
}
