//! The interpreter of one thread: scripts for one request after the other.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::rc::Rc;

use fcgi_core::Request;
use fcgi_core::interpreter::{Interpreter, Isolation, Loop, Requests, Setup};
use fcgi_core::script::Cache;
use rhai::{AST, Dynamic, LexError, ParseError, Scope, Token};

use super::memory::{self, Limit};
use super::modules::Modules;
use super::timeout::{self, Timeout};
use super::{application, bounded, context, error, files, forked, forms, functions, module, slow, stdio, time, web};

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
    /// The memory that a script may have.
    memory: Option<Limit>,
}

/// Makes an interpreter that serves, in this thread.
///
/// # Errors
/// As for [`Engine::new`], and when an option is for a command line only.
pub fn interpreter(setup: Setup) -> anyhow::Result<Box<dyn Interpreter>> {
    if let Some(option) = setup.own.first() {
        anyhow::bail!("{} is for a command line: requests are for scripts", option.display());
    }
    match setup.isolation {
        Isolation::Fork => forked::interpreter(&setup),
        _ => Ok(Box::new(Engine::new(setup)?)),
    }
}

/// Compiles a file without running it.
///
/// # Errors
/// What is wrong with it.
pub fn compile(setup: &Setup, path: &Path) -> anyhow::Result<()> {
    let read = Engine::new(setup.clone())?.read(path);
    read.map(drop).map_err(|wrong| anyhow::anyhow!("{}", wrong.describe().trim_end()))
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
        if let Some(count) = setup.option("max-operations") {
            let count = count.to_str().and_then(|count| count.parse().ok());
            rhai.set_max_operations(count.ok_or_else(|| anyhow::anyhow!("--max-operations takes a number"))?);
        }
        let memory = setup.memory_limit.map(Limit::new).transpose();
        let memory = memory.map_err(|e| anyhow::anyhow!("no stack for scripts of this size: {e} (--memory-limit)"))?;
        context::with(|context| context.timeout.replace(Timeout::new(&setup)));
        watch(&mut rhai);
        stdio::add_to(&mut rhai);
        functions::add_to(&mut rhai);
        module::add_to(&mut rhai);
        forms::add_to(&mut rhai);
        time::add_to(&mut rhai);
        web::add_to(&mut rhai);
        application::add_to(&mut rhai);
        timeout::add_to(&mut rhai);
        slow::add_to(&mut rhai, &setup);
        if memory.is_some() {
            bounded::add_to(&mut rhai);
        }
        if let Some(root) = setup.option("fs-root") {
            let shown = Path::new(root).display();
            files::add_to(&mut rhai, Path::new(root)).map_err(|e| anyhow::anyhow!("{shown}: {e} (--fs-root)"))?;
        }
        context::with(|context| context.arguments.replace(setup.arguments.clone()));
        Ok(Self { rhai, setup, code: Cache::default(), modules, memory })
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
        let result = if script.is_application {
            application::answer(&self.rhai, script, scope)
        } else {
            self.rhai.run_ast_with_scope(scope, &script.ast)
        };
        let wanted = context::with(|context| context.status.get());
        match result {
            // What wanted too much was its last operation.
            Ok(()) if memory::is_exceeded() => (1, Some(format!("{}: {}\n", script.source, memory::TOO_MUCH))),
            Ok(()) => (wanted, None),
            Err(e) => match functions::exit_status(&e) {
                Some(status) => (status, None),
                None => (1, Some(error::describe(&e, &script.source, Some(&script.text)))),
            },
        }
    }

    /// Does something with the engine within the limits of a script. Gives the exit status, and what went wrong.
    pub(super) fn within_limits(&mut self, f: impl FnOnce(&mut Self) -> (u32, Option<String>)) -> (u32, String) {
        let mut memory = self.memory.take();
        let run = || catch_unwind(AssertUnwindSafe(|| f(self)));
        let ended = match &mut memory {
            Some(limit) => limit.run(run),
            None => run(),
        };
        self.memory = memory;
        // The panic itself has been told in the log.
        let (status, said) = ended.unwrap_or_else(|_| (1, Some("the interpreter failed\n".to_owned())));
        let said = said.unwrap_or_default();
        stdio::write_error(&said);
        (status, said)
    }

    /// Runs a script's file; what goes wrong is said on the error stream.
    fn run_file(&mut self, path: &Path) -> (u32, String) {
        self.modules.enter(path.parent().unwrap_or(Path::new("/")));
        self.within_limits(|this| {
            let mut code = std::mem::take(&mut this.code);
            let ended = match code.get(path, |path| this.read(path)) {
                Ok(script) => this.run(script, &mut Scope::new()),
                Err(e) => (1, Some(e.describe())),
            };
            this.code = code;
            ended
        })
    }

    /// Compiles a script's file, unless that is done. What is wrong with it is said when it runs.
    pub(super) fn prepare(&mut self, path: &Path) {
        let mut code = std::mem::take(&mut self.code);
        let _ = code.get(path, |path| self.read(path));
        self.code = code;
    }

    /// Reads and compiles a script's file.
    fn read(&self, path: &Path) -> Result<Compiled, NotCompiled> {
        let unreadable = |why: &str| NotCompiled::Unreadable(format!("{}: {why}", path.display()));
        let size = std::fs::metadata(path).map_or(0, |file| file.len());
        if size > memory::room() as u64 {
            return Err(unreadable(memory::TOO_MUCH));
        }
        let text = std::fs::read(path).map_err(|e| unreadable(&e.to_string()))?;
        let text = String::from_utf8(text).map_err(|_| unreadable("Rhai scripts are text in UTF-8"))?;
        self.compile(path, text)
    }

    fn answer(&mut self, script: &Path) {
        let (status, said) = self.run_file(script);
        let details = if self.setup.display_errors { &*said } else { "" };
        context::with(|context| {
            context.finish(status, !said.is_empty(), details);
            context.reset();
        });
    }

    /// Runs a script's file for a request of the process's own; gives the exit status.
    pub(super) fn answer_once(&mut self, script: &Path, request: Request) -> u8 {
        context::with(|context| context.begin(request));
        let (status, said) = self.run_file(script);
        let details = if self.setup.display_errors { &*said } else { "" };
        context::with(|context| context.finish(status, !said.is_empty(), details));
        status as u8
    }

    /// Makes ready for code that lies in no file; modules are looked for in the working directory.
    pub(super) fn enter_directory(&self) {
        self.modules.enter(&std::env::current_dir().unwrap_or_default());
    }
}

/// Ends a script that goes beyond its limits, with the next operation, or the next word of a text that is compiled.
fn watch(rhai: &mut rhai::Engine) {
    let (is_late, gone) = context::with(|context| (context.timeout.borrow().question(), context.gone.clone()));
    let seen = context::with(|context| context.timeout.borrow().question());
    rhai.on_progress(move |_| {
        if is_late() {
            Some(Dynamic::from(timeout::TOO_LONG))
        } else if memory::is_exceeded() {
            Some(Dynamic::from(memory::TOO_MUCH))
        } else {
            gone.get().then(functions::client_gone)
        }
    });
    #[expect(deprecated, reason = "not deprecated but subject to change")]
    rhai.on_parse_token(move |token, _, _| {
        let why = match () {
            () if seen() => timeout::TOO_LONG,
            () if memory::is_exceeded() => memory::TOO_MUCH,
            () => return token,
        };
        Token::LexError(LexError::Runtime(why.to_owned()).into())
    });
}

impl Interpreter for Engine {
    fn serve(&mut self, script: &Path, request: Request, more: &Rc<RefCell<Requests>>) {
        context::with(|context| {
            context.begin(request);
            context.accept.replace(Some(Loop::new(script.into(), more.clone())));
        });
        self.answer(script);
    }
}
