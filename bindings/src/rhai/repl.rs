//! The prompt.

use fcgi_core::cgi;
use rhai::{Dynamic, ParseErrorType, Scope};
use rustyline::error::ReadlineError;

use super::context;
use super::engine::Engine;
use super::plain::version;
use super::{error, functions};

/// Reads code at a terminal, runs it, and shows what it gives; gives the exit status.
///
/// # Errors
/// When the terminal fails.
pub(super) fn run(engine: &Engine) -> anyhow::Result<u8> {
    let mut lines = rustyline::DefaultEditor::new()?;
    println!("{}; Ctrl-D or exit() leaves", version());
    context::with(|context| {
        context.interactive.set(true);
        context.begin(cgi::request());
    });
    engine.enter_directory();
    let mut scope = Scope::new();
    let mut functions = rhai::AST::empty();
    let mut text = String::new();
    loop {
        match lines.readline(if text.is_empty() { "> " } else { ">> " }) {
            Ok(line) => text += &(line + "\n"),
            Err(ReadlineError::Interrupted) => {
                text.clear();
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(0),
            Err(e) => return Err(e.into()),
        }
        let ast = match engine.rhai.compile_with_scope(&scope, &text) {
            Ok(ast) => ast,
            // What is not complete goes on in the next line.
            Err(e) if wants_more(e.err_type()) => continue,
            Err(e) => {
                eprint!("{}", error::describe_parse(&e, "prompt", &text));
                text.clear();
                continue;
            }
        };
        lines.add_history_entry(text.trim_end())?;
        let result: Result<Dynamic, _> = engine.rhai.eval_ast_with_scope(&mut scope, &functions.merge(&ast));
        match result {
            Ok(value) if value.is_unit() => {}
            Ok(value) => println!("=> {value:?}"),
            Err(e) => match functions::exit_status(&e) {
                Some(status) => return Ok(status as u8),
                None => eprint!("{}", error::describe(&e, "prompt", Some(&text))),
            },
        }
        functions = functions.merge(&ast.clone_functions_only());
        text.clear();
    }
}

fn wants_more(error: &ParseErrorType) -> bool {
    use rhai::LexError;
    match error {
        ParseErrorType::UnexpectedEOF | ParseErrorType::BadInput(LexError::UnterminatedString) => true,
        ParseErrorType::MissingToken(_, what) => {
            what.contains("end") || what.contains("block") || what.contains("terminate")
        }
        _ => false,
    }
}
