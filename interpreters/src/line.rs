//! Whose is which part of the command line: long options are the runner's, short ones the interpreter's, and what follows the
//! script is the script's.

use std::ffi::{OsStr, OsString};

use clap::{Arg, Command};

/// The options of a language's own interpreter.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnOptions {
    /// Letters of those that take a value. Letters can be written together, the last of them with its value behind it.
    pub valued: &'static str,
    /// Letters of those that end the options: what follows their value is the program's.
    pub last: &'static str,
    /// Long ones, and whether they take a value. All other long options are the runner's.
    pub long: &'static [(&'static str, bool)],
    /// The one that makes the interpreter explain its options, which `--help` then does, too.
    pub help: Option<&'static str>,
    /// What `--help` says of them where there is no such option: each with its value, and what it does.
    pub told: &'static [(&'static str, &'static str)],
}

/// The parts of a command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Line {
    /// The program's name and the runner's options.
    pub(crate) runner: Vec<OsString>,
    /// The interpreter's options, with their values.
    pub(crate) own: Vec<OsString>,
    /// The option that ended the options: what it names runs in place of a script.
    pub(crate) last: Option<OsString>,
    /// Whether `--` ended the options.
    pub(crate) ended: bool,
    /// The script; `-` is standard input.
    pub(crate) script: Option<OsString>,
    /// The script's arguments.
    pub(crate) arguments: Vec<OsString>,
    /// All of it.
    pub(crate) whole: Vec<OsString>,
    /// Values of the options that only this language has.
    pub(crate) language: Vec<(&'static str, OsString)>,
}

impl Line {
    /// Splits a command line. Which of the runner's options take a value, `command` knows.
    pub(crate) fn split(whole: Vec<OsString>, own: &OwnOptions, command: &Command) -> Self {
        let mut line = Self { whole: whole.clone(), ..Self::default() };
        let mut words = whole.into_iter();
        line.runner.extend(words.next());
        while let Some(word) = words.next() {
            match word.as_encoded_bytes() {
                b"--" => {
                    line.ended = true;
                    line.script = words.next();
                    break;
                }
                bytes @ [b'-', b'-', third, ..] if *third != b'-' => {
                    if let Some((_, takes_value)) = own.long.iter().find(|(name, _)| *name == word) {
                        line.own.push(word);
                        line.own.extend(takes_value.then(|| words.next()).flatten());
                        continue;
                    }
                    let wants_value = !bytes.contains(&b'=') && takes_value(command, &word);
                    line.runner.push(word);
                    line.runner.extend(wants_value.then(|| words.next()).flatten());
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    let at = letters.iter().position(|letter| own.valued.as_bytes().contains(letter));
                    let is_last = at.is_some_and(|at| own.last.as_bytes().contains(&letters[at]));
                    let wants_value = at.is_some_and(|at| at + 1 == letters.len());
                    line.last = is_last.then(|| word.clone());
                    line.own.push(word);
                    line.own.extend(wants_value.then(|| words.next()).flatten());
                    if is_last {
                        break;
                    }
                }
                _ => {
                    line.script = Some(word);
                    break;
                }
            }
        }
        line.arguments.extend(words);
        line
    }

    /// The command line without the program's name and the interpreter's options.
    pub(crate) fn without_own(&self) -> Vec<OsString> {
        let end = self.ended.then(|| OsString::from("--"));
        self.runner[1..].iter().cloned().chain(end).chain(self.script.clone()).chain(self.arguments.clone()).collect()
    }
}

impl Line {
    /// The runner's and the interpreter's options.
    pub(crate) fn options(&self) -> impl Iterator<Item = OsString> + '_ {
        self.runner[1..].iter().chain(&self.own).cloned()
    }
}

fn takes_value(command: &Command, word: &OsStr) -> bool {
    let name = word.to_str().and_then(|w| w.strip_prefix("--"));
    let option: Option<&Arg> = command.get_arguments().find(|a| a.get_long().is_some() && a.get_long() == name);
    option.is_some_and(|o| o.get_action().takes_values())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    const OWN: OwnOptions = OwnOptions {
        valued: "elc",
        last: "c",
        long: &[("--check", true), ("--help-env", false)],
        help: None,
        told: &[],
    };

    fn split(words: &[&str]) -> [String; 4] {
        let whole = words.iter().map(OsString::from).collect();
        let line = Line::split(whole, &OWN, &crate::Options::command());
        let joined = |words: &[OsString]| words.join(OsStr::new(" ")).into_string().unwrap();
        [
            joined(&line.runner),
            joined(&line.own),
            line.script.unwrap_or_default().into_string().unwrap(),
            joined(&line.arguments),
        ]
    }

    #[test]
    fn without_the_interpreters_own() {
        for (words, rest) in [
            (&["p", "-e", "x", "--listen", "unix:x", "-lfoo", "s", "-e"][..], &["--listen", "unix:x", "s", "-e"][..]),
            (&["p", "-i", "--", "-s", "a"], &["--", "-s", "a"]),
            (&["p"], &[]),
        ] {
            let line = Line::split(words.iter().map(OsString::from).collect(), &OWN, &crate::Options::command());
            assert_eq!(line.without_own(), rest, "{words:?}");
        }
    }

    #[test]
    fn parts() {
        for (words, parts) in [
            (&["p"][..], ["p", "", "", ""]),
            (&["p", "s.lua", "-e", "--listen"], ["p", "", "s.lua", "-e --listen"]),
            (
                &["p", "--listen", "unix:x", "--display-errors", "s.lua"],
                ["p --listen unix:x --display-errors", "", "s.lua", ""],
            ),
            (&["p", "-e", "x = 1", "--workers=2", "-lfoo", "-i", "s"], ["p --workers=2", "-e x = 1 -lfoo -i", "s", ""]),
            (&["p", "--", "--strange", "a"], ["p", "", "--strange", "a"]),
            (&["p", "-", "a"], ["p", "", "-", "a"]),
            (&["p", "--no-such", "s"], ["p --no-such", "", "s", ""]),
            (&["p", "-e"], ["p", "-e", "", ""]),
            (&["p", "-ic", "x", "-e", "--listen"], ["p", "-ic x", "", "-e --listen"]),
            (&["p", "-cx", "a"], ["p", "-cx", "", "a"]),
            (&["p", "--check", "x", "--help-env", "s"], ["p", "--check x --help-env", "s", ""]),
            (&["p", "---"], ["p", "---", "", ""]),
        ] {
            assert_eq!(split(words), parts, "{words:?}");
        }
    }
}
