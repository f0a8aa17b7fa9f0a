//! The configuration file: what can be said on the command line, by the same names, in TOML.
//!
//! There is no second table of options: a key is a long option, and a value becomes the word that the command line would have
//! for it, so that ranges, defaults and errors are the same. Top-level keys hold for all pools, `[pool.NAME]` for one.
//!
//! source -> settings of sections -> words of a command line

mod check;
mod source;
mod value;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use clap::Command;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::languages::Known;
use crate::line::Line;

pub(crate) use check::explain;
use source::did_you_mean;
pub(crate) use source::{Mistake, Place, Source, TEXT};
use value::Word;

/// Values of options for paths that are none.
const WORDS_IN_PLACE_OF_PATHS: [&str; 2] = ["stderr", "journald"];
/// Keys that are no options.
const SCRIPT: &str = "script";
const ARGUMENTS: &str = "arguments";
const INTERPRETER_OPTIONS: &str = "interpreter-options";
const LANGUAGE: &str = "language";
const POOL: &str = "pool";
const OTHERS: [&str; 4] = [SCRIPT, ARGUMENTS, INTERPRETER_OPTIONS, LANGUAGE];
/// Options that make no sense in a file.
const NO_KEYS: [&str; 9] =
    ["help", "version", "config", "check", "check-config", "print-config", "pool", "called-by", "daemonize"];
/// Options that two pools cannot share.
const OF_A_POOL: [&str; 3] = ["listen", "http", "status-listen"];
/// Options that are the parent's, which all pools share.
const OF_THE_PARENT: [&str; 3] = ["pid-file", "log-to", "log-format"];

/// What one key says.
#[derive(Clone, Debug)]
struct Setting {
    words: Vec<OsString>,
    at: Place,
}

type Settings = BTreeMap<String, Setting>;

/// A configuration file, read and found right key by key.
#[derive(Debug)]
pub(crate) struct Config {
    source: Source,
    defaults: Settings,
    pools: Vec<PoolSection>,
}

#[derive(Debug)]
struct PoolSection {
    name: String,
    settings: Settings,
}

/// The command line that a section stands for.
#[derive(Debug)]
pub(crate) struct Effective {
    /// The pool's name; `None` when the file has no pools.
    pub(crate) pool: Option<String>,
    pub(crate) language: &'static Known,
    pub(crate) words: Vec<OsString>,
}

impl Config {
    /// Reads a file; `own` is the runner's language.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub(crate) fn read(path: &Path, own: &'static Known) -> Result<Self, Vec<Mistake>> {
        let source = Source::read(path).map_err(|mistake| vec![mistake])?;
        let (document, errors) = DeTable::parse_recoverable(&source.text);
        if !errors.is_empty() {
            let at = |e: &toml::de::Error| e.span().map_or(0, |span| span.start);
            return Err(errors.iter().map(|e| source.mistake(at(e), e.message().to_owned())).collect());
        }
        let mut reader = Reader { source: &source, own, mistakes: Vec::new() };
        let (defaults, pools) = reader.document(document.get_ref());
        let mut mistakes = reader.mistakes;
        mistakes.sort_by_key(|mistake| mistake.at);
        if mistakes.is_empty() { Ok(Self { source, defaults, pools }) } else { Err(mistakes) }
    }

    /// The command lines of all pools, or of the one that is named, or of the file without pools. What has been typed on the
    /// command line goes before what the file says.
    ///
    /// # Errors
    /// When there is no such pool, or a pool's language is not known.
    pub(crate) fn lines(
        &self,
        own: &'static Known,
        wanted: Option<&str>,
        typed: &Line,
        is_typed: impl Fn(&str) -> bool,
    ) -> Result<Vec<Effective>, Mistake> {
        let empty = Settings::new();
        let all: Vec<(Option<&str>, &Settings)> = match wanted {
            None if self.pools.is_empty() => vec![(None, &empty)],
            _ => self.pools.iter().map(|pool| (Some(&*pool.name), &pool.settings)).collect(),
        };
        let chosen: Vec<_> = all.into_iter().filter(|(name, _)| wanted.is_none() || *name == wanted).collect();
        if let (true, Some(wanted)) = (chosen.is_empty(), wanted) {
            let question = did_you_mean(wanted, self.pools.iter().map(|pool| &*pool.name));
            let text = format!("there is no pool \"{wanted}\" (--pool){question}");
            return Err(self.source.wrong(Place { line: 1, column: 1 }, text));
        }
        Ok(chosen
            .into_iter()
            .map(|(name, settings)| {
                let mut merged = self.defaults.clone();
                merged.extend(settings.clone());
                let language = language_of(&merged).unwrap_or(own);
                merged.retain(|key, _| !belongs_to_another(key, language));
                let words = words(&merged, typed, &is_typed);
                Effective { pool: name.map(str::to_owned), language, words }
            })
            .collect())
    }

    /// What others are told of the file, if it can be told in a variable.
    pub(crate) fn passed_on(&self) -> Option<String> {
        self.source.passed_on()
    }

    /// The keys that hold for a pool.
    pub(crate) fn keys(&self, pool: Option<&str>) -> impl Iterator<Item = &str> {
        let section = self.pools.iter().find(|section| Some(&*section.name) == pool);
        section.into_iter().flat_map(|section| section.settings.keys()).chain(self.defaults.keys()).map(|key| &**key)
    }

    /// What is wrong with the language that a pool wants.
    pub(crate) fn wrong_language(&self, pool: Option<&str>, text: &str) -> Mistake {
        let section = self.pools.iter().find(|section| Some(&*section.name) == pool);
        let at = self.setting(section, LANGUAGE).map_or(Place { line: 1, column: 1 }, |setting| setting.at);
        self.source.wrong(at, format!("{LANGUAGE}: {text}"))
    }

    /// Where the file says what an error is about: the first option that the error names and the file has, or the section.
    pub(crate) fn mistake(&self, pool: Option<&str>, text: String) -> Mistake {
        let section = self.pools.iter().find(|section| Some(&*section.name) == pool);
        let at = text
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter_map(|word| word.strip_prefix("--"))
            .find_map(|key| self.setting(section, key))
            .or_else(|| self.setting(section, SCRIPT).filter(|_| !text.contains("--")))
            .map(|setting| setting.at);
        let text = match (pool, at) {
            (Some(pool), None) => format!("pool \"{pool}\": {text}"),
            _ => text,
        };
        self.source.wrong(at.unwrap_or(Place { line: 1, column: 1 }), text)
    }

    fn setting<'a>(&'a self, section: Option<&'a PoolSection>, key: &str) -> Option<&'a Setting> {
        section.and_then(|section| section.settings.get(key)).or_else(|| self.defaults.get(key))
    }
}

/// Whether only another language has this option: as a default it then says nothing.
fn belongs_to_another(key: &str, language: &Known) -> bool {
    let has = |known: &Known| known.options.iter().any(|option| option.long == key);
    crate::languages::KNOWN.iter().any(has) && !has(language)
}

fn language_of(settings: &Settings) -> Option<&'static Known> {
    let word = settings.get(LANGUAGE)?.words.first()?;
    crate::languages::KNOWN.iter().find(|known| *word == *known.key)
}

/// The whole command line: what was typed, and what the file says where nothing was typed.
fn words(settings: &Settings, typed: &Line, is_typed: impl Fn(&str) -> bool) -> Vec<OsString> {
    let of = |key| settings.get(key).map(|setting| setting.words.clone()).unwrap_or_default();
    let mut words: Vec<OsString> = typed.runner.first().cloned().into_iter().collect();
    words.extend(of(INTERPRETER_OPTIONS));
    let options = settings.iter().filter(|(key, _)| !OTHERS.contains(&&***key) && !is_typed(key));
    words.extend(options.flat_map(|(_, setting)| setting.words.clone()));
    words.extend(typed.options());
    words.extend(typed.ended.then(|| OsString::from("--")));
    if typed.script.is_some() {
        words.extend(typed.script.clone());
        words.extend(typed.arguments.clone());
    } else {
        words.extend(of(SCRIPT));
        words.extend(of(ARGUMENTS));
    }
    words
}

/// Collects settings, and all that is wrong.
struct Reader<'a> {
    source: &'a Source,
    own: &'static Known,
    mistakes: Vec<Mistake>,
}

impl Reader<'_> {
    fn document(&mut self, document: &DeTable<'_>) -> (Settings, Vec<PoolSection>) {
        let pools = document.iter().find(|(key, _)| key.get_ref() == POOL);
        let mut languages: Vec<&'static Known> = Vec::new();
        let mut tables = Vec::new();
        match pools.map(|(key, value)| (key, value.get_ref())) {
            Some((_, DeValue::Table(table))) => {
                for (name, value) in table {
                    if let Some(pool) = self.pool(name.get_ref(), name.span().start, value.get_ref()) {
                        tables.push((name, pool));
                    }
                }
            }
            Some((key, _)) => self.wrong(key.span().start, "write a table for each pool, [pool.NAME]".to_owned()),
            None => {}
        }
        let top_language = self.language(document);
        languages
            .extend(tables.iter().map(|(_, table)| self.language(table).unwrap_or(top_language.unwrap_or(self.own))));
        let has_pools = !tables.is_empty();
        let sections = tables
            .iter()
            .zip(&languages)
            .map(|((name, table), language)| {
                let settings = self.section(table, &[language], Some(name.get_ref()), true);
                PoolSection { name: name.get_ref().to_string(), settings }
            })
            .collect();
        if !has_pools {
            languages = vec![top_language.unwrap_or(self.own)];
        }
        let defaults = self.section(document, &languages, None, has_pools);
        (defaults, sections)
    }

    fn pool<'a>(&mut self, name: &str, at: usize, value: &'a DeValue<'a>) -> Option<&'a DeTable<'a>> {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
        if name.is_empty() || !name.chars().all(is_plain) {
            let text = "a pool's name is made of letters, digits, '_', '-' and '.'".to_owned();
            self.wrong(at, text);
        }
        let table = value.as_table();
        if table.is_none() {
            self.wrong(at, format!("pool \"{name}\" is {}: write [pool.{name}] and its keys", value::kind(value)));
        }
        table
    }

    fn language(&mut self, table: &DeTable<'_>) -> Option<&'static Known> {
        let (_, value) = table.iter().find(|(key, _)| key.get_ref() == LANGUAGE)?;
        let known = &crate::languages::KNOWN;
        let found = value.get_ref().as_str().and_then(|name| known.iter().find(|known| known.key == name));
        if found.is_none() {
            let name = value.get_ref().as_str().unwrap_or_default();
            let question = did_you_mean(name, known.iter().map(|known| known.key));
            let keys = known.map(|known| known.key).join(", ");
            self.wrong(value.span().start, format!("language: accepted are {keys}{question}"));
        }
        found
    }

    fn section(
        &mut self,
        table: &DeTable<'_>,
        languages: &[&'static Known],
        pool: Option<&str>,
        has_pools: bool,
    ) -> Settings {
        let command = crate::command_of(languages);
        let mut settings = Settings::new();
        for (key, value) in table.iter().filter(|(key, _)| pool.is_some() || key.get_ref() != POOL) {
            let name: &str = key.get_ref();
            let at = key.span().start;
            let is_known =
                command.get_arguments().any(|option| check::is_key(option) && option.get_long() == Some(name));
            let complaint = if has_pools && pool.is_none() && OF_A_POOL.contains(&name) {
                Some("each pool listens at addresses of its own: write it into the tables of the pools".to_owned())
            } else if pool.is_some() && OF_THE_PARENT.contains(&name) {
                Some(format!("{name} holds for all pools: write it above the first table"))
            } else {
                (!is_known && !OTHERS.contains(&name)).then(|| unknown(&command, name))
            };
            if let Some(complaint) = complaint {
                self.wrong(at, complaint);
                continue;
            }
            match self.words(&command, name, value) {
                Ok(words) => {
                    for (word, at) in &words {
                        if let Some(why) = check::value(&command, word) {
                            self.wrong(*at, why);
                        }
                    }
                    let words = words.into_iter().map(|(word, _)| word).collect();
                    settings.insert(name.to_owned(), Setting { words, at: self.source.place(at) });
                }
                Err(text) => self.wrong(value.span().start, format!("{name}: {text}")),
            }
        }
        settings
    }

    /// The words for one key.
    fn words(&self, command: &Command, key: &str, value: &Spanned<DeValue<'_>>) -> Result<Vec<Word>, String> {
        let directory = self.source.directory();
        let at = value.span().start;
        let texts = |many| value::texts(value.get_ref(), many);
        let placed = |texts: Vec<OsString>| texts.into_iter().map(|text| (text, at)).collect();
        match key {
            SCRIPT => texts(false).map(|texts| placed(texts.iter().map(|s| value::path_from(&directory, s)).collect())),
            ARGUMENTS | INTERPRETER_OPTIONS => texts(true).map(placed),
            // Looked at by `language`.
            LANGUAGE => Ok(placed(value.get_ref().as_str().map(OsString::from).into_iter().collect())),
            _ => {
                let mut options = command.get_arguments().filter(|option| check::is_key(option));
                let option = options.find(|option| option.get_long() == Some(key));
                option.map_or(Ok(Vec::new()), |option| value::words(option, value, &directory))
            }
        }
    }

    fn wrong(&mut self, at: usize, text: String) {
        self.mistakes.push(self.source.mistake(at, text));
    }
}

fn unknown(command: &Command, key: &str) -> String {
    if let Some(known) = crate::languages::KNOWN.iter().find(|known| known.options.iter().any(|o| o.long == key)) {
        return format!("{key} is an option of {} only (language = \"{}\")", known.program, known.key);
    }
    if NO_KEYS.contains(&key) {
        return format!("{key} is for the command line only");
    }
    let keys = command.get_arguments().filter(|option| check::is_key(option)).filter_map(|option| option.get_long());
    format!("unknown key \"{key}\"{}", did_you_mean(&key.replace('_', "-"), keys.chain(OTHERS).chain([POOL])))
}

#[cfg(test)]
mod tests;
