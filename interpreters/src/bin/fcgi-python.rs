//! `fcgi-python`: Python scripts and applications under FastCGI, as CGI, or like `python3`.
#![forbid(unsafe_code)]

use fcgi_interpreters::Language;

fn main() -> std::process::ExitCode {
    if let Some(executable) = option_env!("FCGI_PYTHON") {
        fcgi::python::built_with(executable, option_env!("FCGI_PYTHON_STAMP"));
    }
    fcgi_interpreters::main(&Language { outdated: fcgi::python::outdated, ..fcgi_interpreters::python() })
}
