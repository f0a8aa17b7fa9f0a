//! What is said of a script that failed: the place, the message, the line with a caret below it, and the calls that led there.

use std::fmt::Display;

use rhai::{Dynamic, EvalAltResult, ParseError, Position};

/// How Rhai wants the errors of functions.
pub(super) type Failed = Box<EvalAltResult>;

/// An error that a script can catch.
#[expect(clippy::unnecessary_box_returns, reason = "it is how Rhai wants them")]
pub(super) fn failed(why: impl Display) -> Failed {
    why.to_string().into()
}

/// The end of a script, which it cannot catch.
#[expect(clippy::unnecessary_box_returns, reason = "it is how Rhai wants them")]
pub(super) fn ended(why: impl Into<Dynamic>) -> Failed {
    EvalAltResult::ErrorTerminated(why.into(), Position::NONE).into()
}

/// An error, taken apart.
struct Failure<'a> {
    error: &'a EvalAltResult,
    /// The file it is in.
    source: String,
    /// Functions and modules around it, the innermost first, each with where it was called.
    calls: Vec<(String, String, Position)>,
}

fn take_apart<'a>(error: &'a EvalAltResult, source: &str) -> Failure<'a> {
    let (mut error, mut source) = (error, source.to_owned());
    let mut calls = Vec::new();
    loop {
        match error {
            EvalAltResult::ErrorInFunctionCall(name, file, inner, position) => {
                calls.push((format!("in function '{name}'"), source.clone(), *position));
                if !file.is_empty() {
                    source.clone_from(file);
                }
                error = inner;
            }
            EvalAltResult::ErrorInModule(name, inner, position) => {
                calls.push((format!("in module '{name}'"), source.clone(), *position));
                source.clone_from(name);
                error = inner;
            }
            _ => break,
        }
    }
    calls.reverse();
    Failure { error, source, calls }
}

/// Describes an error of a script; `text` is what the script's file holds, if it is at hand.
pub(super) fn describe(error: &EvalAltResult, source: &str, text: Option<&str>) -> String {
    let Failure { error, source: file, calls } = take_apart(error, source);
    let position = error.position();
    let mut plain = match error {
        EvalAltResult::ErrorTerminated(why, _) => why.to_string(),
        _ => error.to_string(),
    };
    if let Some(at) = plain.rfind(&format!(" ({position})")).filter(|_| !position.is_none()) {
        plain.truncate(at);
    }
    let mut said = format!("{}: {plain}\n", place(&file, position));
    let own = (file == source).then(|| text.map(str::to_owned)).flatten();
    if let Some(text) = own.or_else(|| std::fs::read_to_string(&file).ok()) {
        said += &excerpt(&text, position);
    }
    for (what, file, position) in calls {
        said.extend(["  ", &*what, ", called at ", &*place(&file, position), "\n"]);
    }
    said
}

/// Describes an error in the text of a script.
pub(super) fn describe_parse(error: &ParseError, source: &str, text: &str) -> String {
    let position = error.position();
    format!("{}: {}\n{}", place(source, position), error.err_type(), excerpt(text, position))
}

pub(super) fn place(source: &str, position: Position) -> String {
    match (position.line(), position.position()) {
        (Some(line), Some(column)) => format!("{source}:{line}:{column}"),
        (Some(line), None) => format!("{source}:{line}"),
        _ => source.to_owned(),
    }
}

/// The line of the text, with a caret below the column.
fn excerpt(text: &str, position: Position) -> String {
    let Some(line) = position.line().and_then(|number| text.lines().nth(number - 1)) else { return String::new() };
    let number = position.line().unwrap_or(0).to_string();
    let margin = " ".repeat(number.len());
    let indent: String = line
        .chars()
        .take(position.position().unwrap_or(1).saturating_sub(1))
        .map(|c| if c == '\t' { '\t' } else { ' ' })
        .collect();
    format!(" {number} | {line}\n {margin} | {indent}^\n")
}
