//! `fcgi-python`: Python scripts and applications under FastCGI, as CGI, or like `python3`.
#![forbid(unsafe_code)]

use fcgi::python;
use fcgi_interpreters::{Language, LanguageOption, OwnOptions};

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
        options: &[
            LanguageOption {
                long: "app",
                value_name: Some("MODULE:NAME"),
                help: "Serve this application: module:name, module:factory(), or a module that has 'application' or 'app'",
            },
            LanguageOption {
                long: "interface",
                value_name: Some("wsgi|asgi"),
                help: "How the application is called [default: by what it is]",
            },
        ],
        in_place_of_script: Some("app"),
        version: python::version,
        plain: python::run_plain,
    })
}
