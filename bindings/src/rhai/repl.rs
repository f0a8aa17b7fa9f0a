//! The prompt, as `rhai-repl` has it: code is run when it is complete, `\` at the end of a line goes on in the next one, and a
//! few words are commands. Besides, what is open (a bracket, a block, a text in backticks) goes on as well, Ctrl-C interrupts
//! what runs, and the history is one for all directories.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use fcgi_core::cgi;
use rhai::{AST, Dynamic, LexError, ParseError, ParseErrorType, Scope};
use rustyline::error::ReadlineError;
use rustyline::{Config, DefaultEditor};

use super::engine::Engine;
use super::plain::version;
use super::{context, error, functions, memory};

/// Names the file of the history; without it, it lies in the home directory. Empty: there is none.
const HISTORY: &str = "FCGI_RHAI_HISTORY";

const HELP: &str = "\
help        this help
quit, exit  leave, as Ctrl-D does; exit(n) leaves with a status
scope       the variables that there are
functions   the functions that have been defined here
history     the lines before; the arrows and Ctrl-R find them, too
!!  !n  !text  !?text   again: the last one, the one of this number, the last that begins with, or has, the text
strict      variables must be there when a line is compiled: on or off

What is open goes on in the next line, and so does a line that ends with \\. Ctrl-C forgets it, and interrupts what runs.";

/// Reads code at a terminal, runs it, and shows what it gives; gives the exit status.
///
/// # Errors
/// When the terminal fails.
pub(super) fn run(engine: &mut Engine) -> anyhow::Result<u8> {
    let interrupted = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, interrupted.clone())?;
    let seen = interrupted.clone();
    engine.rhai.on_progress(move |_| {
        if seen.load(Relaxed) {
            Some(Dynamic::from("interrupted"))
        } else {
            memory::is_exceeded().then(|| Dynamic::from(memory::TOO_MUCH))
        }
    });
    println!("{} (help tells what there is, quit leaves)", version());
    context::with(|context| {
        context.interactive.set(true);
        context.begin(cgi::request());
    });
    engine.enter_directory();
    let mut prompt = Prompt::new()?;
    let status = prompt.run(engine, &interrupted);
    prompt.save();
    status
}

struct Prompt {
    lines: DefaultEditor,
    history: Option<PathBuf>,
    scope: Scope<'static>,
    functions: AST,
}

impl Prompt {
    fn new() -> anyhow::Result<Self> {
        let config = Config::builder().tab_stop(4).indent_size(4).bracketed_paste(true).build();
        let mut lines = DefaultEditor::with_config(config)?;
        let history = match std::env::var_os(HISTORY) {
            Some(name) => (!name.is_empty()).then(|| name.into()),
            None => std::env::home_dir().map(|home| home.join(".fcgi-rhai-history")),
        };
        if let Some(file) = &history {
            // The first time there is none.
            let _ = lines.load_history(file);
        }
        Ok(Self { lines, history, scope: Scope::new(), functions: AST::empty() })
    }

    fn save(&mut self) {
        if let Some(file) = &self.history
            && let Err(e) = self.lines.append_history(file)
        {
            eprintln!("{}: {e}", file.display());
        }
    }

    /// Reads and runs until the end; gives the exit status.
    fn run(&mut self, engine: &mut Engine, interrupted: &AtomicBool) -> anyhow::Result<u8> {
        let mut text = String::new();
        loop {
            match self.lines.readline(if text.is_empty() { "repl> " } else { "    > " }) {
                Ok(line) => text += &line,
                Err(ReadlineError::Interrupted) => {
                    text.clear();
                    continue;
                }
                Err(ReadlineError::Eof) => return Ok(0),
                Err(e) => return Err(e.into()),
            }
            if text.ends_with('\\') {
                text.pop();
                text.push('\n');
                continue;
            }
            let again = text.strip_prefix('!').map(|which| self.line_before(which));
            match again {
                Some(Some(line)) => {
                    println!("{line}");
                    text = line;
                }
                Some(None) => {
                    println!("no such line: {text}");
                    text.clear();
                    continue;
                }
                None => {}
            }
            match text.trim() {
                "" => {}
                "quit" | "exit" => return Ok(0),
                command if self.command(engine, command) => {}
                _ => {
                    let compiled = engine.rhai.compile_with_scope(&self.scope, &text);
                    if compiled.as_ref().is_err_and(|e| is_open(e, &text)) {
                        text.push('\n');
                        continue;
                    }
                    interrupted.store(false, Relaxed);
                    self.lines.add_history_entry(text.trim_end())?;
                    if let Some(status) = self.evaluate(engine, compiled, &text) {
                        return Ok(status);
                    }
                }
            }
            text.clear();
        }
    }

    /// The line that `!` asks for.
    fn line_before(&self, which: &str) -> Option<String> {
        let lines = self.lines.history();
        let found = if which == "!" {
            lines.iter().last()
        } else if let Ok(number) = which.parse::<usize>() {
            lines.iter().nth(number.checked_sub(1)?)
        } else if let Some(part) = which.strip_prefix('?') {
            lines.iter().rev().find(|line| line.contains(part))
        } else {
            lines.iter().rev().find(|line| line.starts_with(which))
        };
        found.cloned()
    }

    /// Does what a word asks for; whether it is one.
    fn command(&mut self, engine: &mut Engine, word: &str) -> bool {
        match word {
            "help" => println!("{HELP}"),
            "scope" => print!("{}", self.scope),
            "functions" => self.functions.iter_functions().for_each(|function| println!("{function}")),
            "history" => {
                for (number, line) in self.lines.history().iter().enumerate() {
                    println!("[{}] {}", number + 1, line.replace('\n', "\n    "));
                }
            }
            "strict" => {
                let strict = !engine.rhai.strict_variables();
                engine.rhai.set_strict_variables(strict);
                println!("strict variables are {}", if strict { "on" } else { "off" });
            }
            _ => return false,
        }
        true
    }

    /// Runs what was compiled, and shows what it gives. Gives the exit status when that was the end.
    fn evaluate(&mut self, engine: &mut Engine, compiled: Result<AST, ParseError>, text: &str) -> Option<u8> {
        let ast = match compiled {
            Ok(ast) => ast,
            Err(e) => {
                eprint!("{}", error::describe_parse(&e, "prompt", text));
                return None;
            }
        };
        // Variables that a failed line has made stay, as those of other lines do.
        let (mut end, scope, functions) = (None, &mut self.scope, &self.functions);
        engine.within_limits(|engine| {
            match engine.rhai.eval_ast_with_scope::<Dynamic>(scope, &functions.merge(&ast)) {
                Ok(value) if value.is_unit() => {}
                Ok(value) => println!("=> {value:?}"),
                Err(e) => match functions::exit_status(&e) {
                    Some(status) => end = Some(status as u8),
                    None => return (1, Some(error::describe(&e, "prompt", Some(text)))),
                },
            }
            (0, None)
        });
        self.functions = self.functions.merge(&ast.clone_functions_only());
        end
    }
}

/// Whether what is wrong with a text is that it is not complete: the error lies at its end, or at a text in backticks that does
/// not end.
fn is_open(error: &ParseError, text: &str) -> bool {
    let text = text.trim_end();
    let (Some(line), Some(column)) = (error.position().line(), error.position().position()) else { return false };
    if let ParseErrorType::BadInput(LexError::UnterminatedString) = error.err_type() {
        return text.lines().nth(line - 1).and_then(|line| line.chars().nth(column - 1)) == Some('`');
    }
    let last = text.lines().last().unwrap_or_default();
    line == text.lines().count() && column == last.chars().count() + 1
}
