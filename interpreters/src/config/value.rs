//! A value of the file as the command line would have it.

use std::ffi::{OsStr, OsString};
use std::path::Path;

use clap::{Arg, ValueHint};
use fcgi_core::Address;
use toml::Spanned;
use toml::de::DeValue;

/// A word, and the byte of the file that its value begins at.
pub(crate) type Word = (OsString, usize);

/// Words such as `--key=value` for an option; none for a switch that is off.
///
/// # Errors
/// What kind of value the option takes.
pub(crate) fn words(option: &Arg, value: &Spanned<DeValue<'_>>, directory: &Path) -> Result<Vec<Word>, String> {
    let (at, value) = (value.span().start, value.get_ref());
    let name = format!("--{}", option.get_long().unwrap_or_default());
    if !option.get_action().takes_values() {
        return match value.as_bool() {
            Some(on) => Ok(on.then(|| (name.into(), at)).into_iter().collect()),
            None => Err(format!("a switch is true or false, not {}", kind(value))),
        };
    }
    let repeatable = matches!(option.get_action(), clap::ArgAction::Append);
    let texts = match value {
        DeValue::Array(values) if repeatable => {
            let one = |value: &Spanned<DeValue<'_>>| Ok((text(option, value.get_ref())?, value.span().start));
            values.iter().map(one).collect::<Result<Vec<_>, String>>()?
        }
        DeValue::Table(values) if repeatable && is_named(option) => values
            .iter()
            .map(|(key, value)| {
                let text = match value.get_ref() {
                    DeValue::Boolean(true) if value_name(option).contains('[') => key.get_ref().to_string(),
                    value => format!("{}={}", key.get_ref(), text(option, value)?),
                };
                Ok((text, value.span().start))
            })
            .collect::<Result<Vec<_>, String>>()?,
        DeValue::Array(_) => return Err("it takes one value, not an array".to_owned()),
        value => vec![(text(option, value)?, at)],
    };
    let word = |(text, at): (String, usize)| {
        let mut word = OsString::from(&name);
        word.push("=");
        word.push(from_directory(option, text, directory));
        (word, at)
    };
    Ok(texts.into_iter().map(word).collect())
}

/// Texts of `script`, `arguments`, `interpreter-options`.
///
/// # Errors
/// When they are no strings.
pub(crate) fn texts(value: &DeValue<'_>, many: bool) -> Result<Vec<OsString>, String> {
    let one = |value: &DeValue<'_>| {
        value.as_str().map(OsString::from).ok_or_else(|| format!("a string is wanted, not {}", kind(value)))
    };
    match value {
        DeValue::Array(values) if many => values.iter().map(|value| one(value.get_ref())).collect(),
        value if many => Err(format!("an array of strings is wanted, not {}", kind(value))),
        value => one(value).map(|text| vec![text]),
    }
}

fn text(option: &Arg, value: &DeValue<'_>) -> Result<String, String> {
    let is_octal = value_name(option) == "OCTAL";
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => {
            let number_text = number.as_str().replace('_', "");
            let value = i64::from_str_radix(&number_text, number.radix()).map_err(|e| e.to_string())?;
            match (is_octal, number.radix()) {
                (true, 8) => Ok(format!("{value:o}")),
                (true, _) => Err(format!("write it as an octal number, 0o{value}, or as a string, \"{value}\"")),
                (false, _) => Ok(value.to_string()),
            }
        }
        DeValue::Float(number) => Ok(number.as_str().replace('_', "")),
        other => Err(format!("{} is wanted, not {}", wanted(option), kind(other))),
    }
}

fn wanted(option: &Arg) -> String {
    format!("a string or a number ({})", value_name(option))
}

fn value_name(option: &Arg) -> &str {
    option.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str())
}

/// Whether its values are names with values, which a table says as well as an array.
fn is_named(option: &Arg) -> bool {
    value_name(option).starts_with("NAME=") || value_name(option).starts_with("NAME[=")
}

/// What an error calls a value.
pub(crate) fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) | DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// Paths are relative to the file, and so are unix sockets.
fn from_directory(option: &Arg, text: String, directory: &Path) -> OsString {
    let parser = option.get_value_parser().type_id();
    if parser == std::any::TypeId::of::<Address>() {
        return match text.parse() {
            Ok(Address::Unix(path)) if path.is_relative() => {
                let mut address = OsString::from("unix:");
                address.push(path_from(directory, &path));
                address
            }
            _ => text.into(),
        };
    }
    if let ("PATTERN=SCRIPT", Some((pattern, script))) = (value_name(option), text.split_once('=')) {
        let mut word = OsString::from(format!("{pattern}="));
        word.push(path_from(directory, script));
        return word;
    }
    let is_path = matches!(option.get_value_hint(), ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath);
    let is_word = super::WORDS_IN_PLACE_OF_PATHS.contains(&&*text);
    if is_path && !is_word { path_from(directory, Path::new(&text)) } else { text.into() }
}

/// A path seen from the file's directory.
pub(crate) fn path_from(directory: &Path, path: impl AsRef<OsStr>) -> OsString {
    let path = Path::new(path.as_ref());
    if path.is_absolute() { path.into() } else { directory.join(path.strip_prefix(".").unwrap_or(path)).into() }
}
