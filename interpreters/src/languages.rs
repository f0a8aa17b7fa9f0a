//! What a runner knows of the languages: which options only one of them has, and how its runner is called. A runner has one
//! language built in, and knows of the others what a configuration file with pools of several languages needs.

use std::path::{Path, PathBuf};

use crate::LanguageOption;

/// One of the languages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// As a configuration file calls it.
    pub(crate) key: &'static str,
    /// Its runner.
    pub(crate) program: &'static str,
    /// Extension of its scripts, without the dot.
    pub(crate) extension: &'static str,
    pub(crate) options: &'static [LanguageOption],
    /// Which of them names a program to be served in place of a script.
    pub(crate) in_place_of_script: Option<&'static str>,
}

impl Known {
    /// Where its runner is: beside this program, or in the path.
    pub(crate) fn find_program(&self) -> Option<PathBuf> {
        let beside = std::env::current_exe().ok().and_then(|this| this.parent().map(Path::to_owned));
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = beside.into_iter().chain(std::env::split_paths(&path));
        directories.map(|directory| directory.join(self.program)).find(|file| file.is_file())
    }
}

/// All of them.
pub(crate) static KNOWN: [Known; 3] = [
    Known { key: "lua", program: "fcgi-lua", extension: "lua", options: &[], in_place_of_script: None },
    Known { key: "python", program: "fcgi-python", extension: "py", options: PYTHON, in_place_of_script: Some("app") },
    Known { key: "rhai", program: "fcgi-rhai", extension: "rhai", options: RHAI, in_place_of_script: None },
];

/// Options that only `fcgi-python` has.
const PYTHON: &[LanguageOption] = &[
    LanguageOption {
        long: "reload",
        value_name: None,
        help: "Load modules beside the script or application, or below, anew when their files change: looked at when requests come, in processes that live on; --watch replaces the processes",
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
];

/// Options that only `fcgi-rhai` has.
const RHAI: &[LanguageOption] = &[
    LanguageOption {
        long: "max-operations",
        value_name: Some("N"),
        help: "End a script after so many operations [default: no limit]",
        heading: "Limits",
    },
    LanguageOption {
        long: "fs-root",
        value_name: Some("DIR"),
        help: "Let scripts use the files of this directory and below it [default: no files]",
        heading: "What is served",
    },
];
