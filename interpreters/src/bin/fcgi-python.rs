//! `fcgi-python`: Python scripts and applications under FastCGI, as CGI, or like `python3`.
#![forbid(unsafe_code)]

use fcgi::python;
use fcgi_interpreters::{Language, OwnOptions};

fn main() -> std::process::ExitCode {
    if let Some(executable) = option_env!("FCGI_PYTHON") {
        python::built_with(executable);
    }
    fcgi_interpreters::main(&Language {
        program: "fcgi-python",
        name: "Python",
        extension: "py",
        start: python::start,
        interpreter: |setup| Ok(Box::new(python::Engine::new(setup)?)),
        own: OwnOptions {
            valued: "cmWXQ",
            last: "cm",
            long: &[
                ("--check-hash-based-pycs", true),
                ("--help-env", false),
                ("--help-xoptions", false),
                ("--help-all", false),
            ],
        },
        version: python::version,
        plain: python::run_plain,
    })
}
