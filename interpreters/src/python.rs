//! Python, as its runner describes it.

use fcgi::python as binding;

use crate::{Language, LanguageOption, OwnOptions};

/// What Python gives to its runner.
pub fn language() -> Language {
    Language {
        program: "fcgi-python",
        name: "Python",
        extension: "py",
        start: binding::start,
        interpreter: binding::interpreter,
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
        options: &[
            LanguageOption {
                long: "reload",
                value_name: None,
                help: "Load modules beside the script or application, or below, anew when their files change",
                heading: "What is served",
            },
            LanguageOption {
                long: "app",
                value_name: Some("MODULE:NAME"),
                help: "Serve this application: module:name, module:factory(), or a module that has 'application' or 'app'",
                heading: "Applications",
            },
            LanguageOption {
                long: "interface",
                value_name: Some("wsgi|asgi|asgi:asyncio|asgi:uvloop"),
                help: "How the application is called [default: by what it is]",
                heading: "Applications",
            },
            LanguageOption {
                long: "flup",
                value_name: None,
                help: "Serve a script made for flup (dispatch.fcgi): let it find flup.server.fcgi, fcgi_fork and fcgi_single",
                heading: "Applications",
            },
        ],
        in_place_of_script: Some("app"),
        version: binding::version,
        event_loop: binding::serve_asgi,
        afresh: None,
        plain: binding::run_plain,
    }
}
