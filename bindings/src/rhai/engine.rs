//! The interpreter of one thread: scripts for one request after the other.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fcgi_core::Request;
use fcgi_core::interpreter::{Interpreter, Isolation, Requests, Setup};
use fcgi_core::script::Cache;
use fcgi_core::watchdog::Watched;
use rhai::{AST, Dynamic, ParseError, Scope};

use super::context::{self, Accept};
use super::modules::Modules;
use super::{accept, application, error, files, functions, stdio, web};

/// Values that one level of memory is taken for, in bytes: how `--memory-limit` becomes limits of arrays and maps.
const VALUE: usize = 64;
/// Functions that may be inside one another; each takes some of the thread's stack.
const CALLS: usize = 64;
/// Expressions that may be inside one another, outside of functions and inside.
const DEPTHS: (usize, usize) = (128, 64);

/// Runs scripts, one request after the other, in one thread.
pub struct Engine {
    pub(super) rhai: rhai::Engine,
    setup: Setup,
    code: Cache<Compiled>,
    modules: Modules,
    /// The request that runs has taken too long.
    late: Arc<AtomicBool>,
    watched: Option<Watched>,
}

/// A script, ready to run.
pub(super) struct Compiled {
    pub(super) ast: AST,
    pub(super) source: String,
    pub(super) text: String,
    is_application: bool,
}

/// Why a script cannot be run.
pub(super) enum NotCompiled {
    Unreadable(String),
    Wrong(Box<ParseError>, String, String),
}

impl NotCompiled {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Unreadable(why) => format!("{why}\n"),
            Self::Wrong(error, source, text) => error::describe_parse(error, source, text),
        }
    }
}

impl Engine {
    /// Makes ready to serve, in this thread.
    ///
    /// # Errors
    /// When an option is not for Rhai, or its value is none.
    pub fn new(setup: Setup) -> anyhow::Result<Self> {
        if setup.isolation == Isolation::State {
            anyhow::bail!("--isolation state is for Lua: nothing of a Rhai script stays in any case");
        }
        let mut rhai = rhai::Engine::new();
        let modules = Modules::default();
        rhai.set_module_resolver(modules.clone());
        rhai.set_max_call_levels(CALLS).set_max_expr_depths(DEPTHS.0, DEPTHS.1);
        if let Some(limit) = setup.memory_limit {
            rhai.set_max_string_size(limit).set_max_array_size(limit / VALUE).set_max_map_size(limit / VALUE);
        }
        if let Some(count) = setup.option("max-operations") {
            let count = count.to_str().and_then(|count| count.parse().ok());
            rhai.set_max_operations(count.ok_or_else(|| anyhow::anyhow!("--max-operations takes a number"))?);
        }
        let late = Arc::new(AtomicBool::new(false));
        let watched = setup.watchdog.as_ref().map(|watchdog| {
            let told = late.clone();
            watchdog.watch(move || told.store(true, Relaxed))
        });
        let seen = late.clone();
        rhai.on_progress(move |_| {
            seen.load(Relaxed).then(|| Dynamic::from("the request takes too long (--request-timeout)"))
        });
        stdio::add_to(&mut rhai);
        functions::add_to(&mut rhai);
        accept::add_to(&mut rhai);
        web::add_to(&mut rhai);
        application::add_to(&mut rhai);
        if let Some(root) = setup.option("fs-root") {
            let shown = Path::new(root).display();
            files::add_to(&mut rhai, Path::new(root)).map_err(|e| anyhow::anyhow!("{shown}: {e} (--fs-root)"))?;
        }
        context::with(|context| context.arguments.replace(setup.arguments.clone()));
        Ok(Self { rhai, setup, code: Cache::default(), modules, late, watched })
    }

    /// Compiles text that came from a file.
    pub(super) fn compile(&self, path: &Path, text: String) -> Result<Compiled, NotCompiled> {
        let source = path.to_string_lossy().into_owned();
        // The kernel's word to start the program.
        let code = text.strip_prefix("#!").map(|rest| format!("//{rest}"));
        match self.rhai.compile(code.as_ref().unwrap_or(&text)) {
            Ok(mut ast) => {
                ast.set_source(source.as_str());
                let is_application = ast.iter_functions().any(|f| f.name == "handle" && f.params.len() == 1);
                Ok(Compiled { ast, source, text, is_application })
            }
            Err(e) => Err(NotCompiled::Wrong(Box::new(e), source, text)),
        }
    }

    /// Runs a script for the request of this thread; gives the exit status, and what went wrong.
    pub(super) fn run(&self, script: &Compiled, scope: &mut Scope<'static>) -> (u32, Option<String>) {
        accept::begin();
        let result = if script.is_application {
            application::answer(&self.rhai, script, scope)
        } else {
            self.rhai.run_ast_with_scope(scope, &script.ast)
        };
        let wanted = context::with(|context| context.status.get());
        match result {
            Ok(()) => (wanted, None),
            Err(e) => match functions::exit_status(&e) {
                Some(status) => (status, None),
                None => (1, Some(error::describe(&e, &script.source, Some(&script.text)))),
            },
        }
    }

    /// Runs a script's file; what goes wrong is said on the error stream.
    pub(super) fn run_file(&mut self, path: &Path) -> (u32, String) {
        self.modules.enter(path.parent().unwrap_or(Path::new("/")));
        let mut code = std::mem::take(&mut self.code);
        let compile = |path: &Path| {
            let text = std::fs::read(path).map_err(|e| NotCompiled::Unreadable(format!("{}: {e}", path.display())))?;
            let text = String::from_utf8(text)
                .map_err(|_| NotCompiled::Unreadable(format!("{}: Rhai scripts are text in UTF-8", path.display())))?;
            self.compile(path, text)
        };
        let (status, said) = match code.get(path, compile) {
            Ok(script) => {
                if let Some(watched) = &self.watched {
                    self.late.store(false, Relaxed);
                    watched.begin();
                }
                let ended = self.run(script, &mut Scope::new());
                if let Some(watched) = &self.watched {
                    watched.end();
                }
                ended
            }
            Err(e) => (1, Some(e.describe())),
        };
        self.code = code;
        let said = said.unwrap_or_default();
        stdio::write_error(&said);
        (status, said)
    }

    fn answer(&mut self, script: &Path) {
        let (status, said) = self.run_file(script);
        let late = self.late.swap(false, Relaxed) && !said.is_empty();
        let details = if self.setup.display_errors { &*said } else { "" };
        context::with(|context| {
            context.finish(status, late, details);
            context.accept.take();
        });
    }

    /// Runs a script's file for a request of the process's own; gives the exit status.
    pub(super) fn answer_once(&mut self, script: &Path, request: Request, interactive: bool) -> u8 {
        context::with(|context| {
            context.interactive.set(interactive);
            context.begin(request);
        });
        let (status, said) = self.run_file(script);
        let details = if self.setup.display_errors { &*said } else { "" };
        context::with(|context| context.finish(status, false, details));
        status as u8
    }

    /// Makes ready for code that lies in no file; modules are looked for in the working directory.
    pub(super) fn enter_directory(&self) {
        self.modules.enter(&std::env::current_dir().unwrap_or_default());
    }
}

impl Interpreter for Engine {
    fn serve(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        context::with(|context| {
            context.begin(request);
            let accept = Accept { script: script.to_owned(), watch: None, requests: more.clone() };
            context.accept.replace(Some(accept));
        });
        self.answer(script);
    }
}
