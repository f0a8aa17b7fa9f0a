//! Python, as its runner describes it.

use fcgi::python as binding;

use crate::{Language, OwnOptions, Preload};

/// What Python gives to its runner.
pub fn language() -> Language {
    Language {
        program: "fcgi-python",
        name: "Python",
        start: binding::start,
        interpreter: binding::interpreter,
        compile: binding::compile,
        own: OwnOptions {
            valued: "cmWXQ",
            last: "cm",
            long: &[
                ("--check-hash-based-pycs", true),
                ("--help-env", false),
                ("--help-xoptions", false),
                ("--help-all", false),
            ],
            help: Some("-h"),
            told: &[],
        },
        version: binding::version,
        event_loop: binding::serve_asgi,
        outdated: || None,
        afresh: None,
        preload: Some(Preload { load: binding::preload, around_fork: binding::around_fork }),
        plain: binding::run_plain,
    }
}
