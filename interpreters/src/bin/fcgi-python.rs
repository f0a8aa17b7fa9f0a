//! `fcgi-python`: Python scripts and applications under FastCGI, as CGI, or like `python3`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    if let Some(executable) = option_env!("FCGI_PYTHON") {
        fcgi::python::built_with(executable);
    }
    fcgi_interpreters::main(&fcgi_interpreters::python())
}
