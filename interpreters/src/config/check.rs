//! What clap says of a word, in words that fit a file.

use std::error::Error as _;
use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};

/// Whether an option is a key of the file.
pub(super) fn is_key(option: &Arg) -> bool {
    option.get_long().is_some_and(|long| !super::NO_KEYS.contains(&long))
}

/// What is wrong with the value of a word such as `--key=value`, looked at alone.
pub(super) fn value(command: &Command, word: &OsString) -> Option<String> {
    let key = word.to_str().and_then(|word| word.strip_prefix("--")).and_then(|word| word.split('=').next())?;
    let option = command.get_arguments().find(|option| option.get_long() == Some(key))?;
    let error = command.clone().try_get_matches_from([&OsString::from("x"), word]).err()?;
    // What it needs beside it, it may have in another place.
    let is_alone = matches!(error.kind(), ErrorKind::MissingRequiredArgument | ErrorKind::ArgumentConflict);
    let reason = explain(&error);
    (!is_alone).then(|| format!("{key}: {reason}{}", help(option, &reason)))
}

/// The reason of an error, without what only a terminal needs.
pub(crate) fn explain(error: &clap::Error) -> String {
    let shown = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) => Some(texts.join(", ")),
        _ => None,
    };
    if let (ErrorKind::MissingRequiredArgument, Some(needed)) = (error.kind(), shown(ContextKind::InvalidArg)) {
        return format!("it needs {needed}");
    }
    if let Some(accepted) = shown(ContextKind::ValidValue).filter(|accepted| !accepted.is_empty()) {
        let value = shown(ContextKind::InvalidValue).unwrap_or_default();
        let question = shown(ContextKind::SuggestedValue).map(|meant| format!(": did you mean \"{meant}\"?"));
        return format!("'{value}' is not among {accepted}{}", question.unwrap_or_default());
    }
    if let Some(source) = error.source() {
        let value = shown(ContextKind::InvalidValue).map(|value| format!("'{value}': ")).unwrap_or_default();
        let source = source.to_string();
        return if source.contains(value.trim_end_matches([':', ' '])) { source } else { format!("{value}{source}") };
    }
    let text = error.render().to_string();
    let mut lines =
        text.lines().map(|line| line.trim().trim_start_matches("error: ")).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |text, line| format!("{text} {line}"))
}

/// What the option is for, when the reason says only what the value is not.
fn help(option: &Arg, reason: &str) -> String {
    let is_bare = ["invalid digit", "invalid float", "empty string", "too large to fit", "too small to fit"];
    match option.get_help() {
        Some(help) if is_bare.iter().any(|text| reason.contains(text)) => {
            format!(" ({}: {help})", option.get_value_names().unwrap_or_default().join(" "))
        }
        _ => String::new(),
    }
}
