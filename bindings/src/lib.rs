//! The FastCGI core wrapped for script languages.
//!
//! Each language is a module behind a feature of its name, and implements [`fcgi_core::Interpreter`]. The modules have
//! the same files with the same duties:
//!
//! | file | duty |
//! | --- | --- |
//! | `mod` | what an unmodified script can rely on |
//! | `engine` | run a script, or its application, for a request |
//! | `state` | one interpreter with what serving needs: streams, limits, how it was at first |
//! | `application` | scripts that give something to be called for each request |
//! | `context` | what the interpreter's functions reach of the request that runs |
//! | `stdio` | the standard streams of the request |
//! | `devices` | the standard streams under their names as files |
//! | `process` | environment and child processes |
//! | `error` | errors of scripts, in the words of the language |
//! | `originals`, `functions` | library functions that must know about requests |
//! | `ends` | how a script ends itself |
//! | `module` | the module `fcgi` that scripts can require |
//! | `isolation` | put back what a script changed |
//! | `pristine` | whether there is anything to put back |
//! | `modules` | what stays loaded, and what that means for the next request |
//! | `memory`, `timeout` | what one request may take |
//! | `ffi` | the interpreter's C interface, and what its versions do differently |
//! | `command_line`, `repl` | the interpreter's own options, its prompt |
//! | `interrupts` | SIGINT on a terminal |
//! | `plain` | the interpreter as it is without requests: on a terminal, under CGI |
//!
//! Python, whose interpreter is one for the process, has some beside these: `descriptors` (0, 1 and 2), `request` (the class),
//! `wsgi` with its `flusher` and `asgi` (the interfaces of applications), `accept` (loops), `extension` (the wheel's place of
//! `plain`). What is a matter of Python's own library is written in Python, in the package `fcgi`.

#[cfg(feature = "_lua")]
pub mod lua;
#[cfg(feature = "_python")]
pub mod python;
#[cfg(feature = "rhai")]
pub mod rhai;
