use super::*;
use crate::command_line::command_of;
use crate::languages::KNOWN;
use crate::options::Options;
use clap::FromArgMatches;

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/fcgi.toml");

/// The lines of the example that say something, or would without the `#`: keys with their values.
fn examples() -> Vec<(String, String)> {
    let text = std::fs::read_to_string(EXAMPLE).unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix('#').unwrap_or(line).split_once(" = "))
        .filter(|(key, _)| !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '-'))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn language_with(key: &str) -> &'static Known {
    KNOWN.iter().find(|known| known.options.iter().any(|option| option.long == key)).unwrap_or(&KNOWN[0])
}

/// All that a command line says, made comparable.
fn meaning(language: &Known, words: &[OsString]) -> String {
    let line = Line::split(words.to_vec(), &crate::OwnOptions::default(), &command_of(&[language]));
    let matches = command_of(&[language]).try_get_matches_from(line.runner).unwrap();
    let own: Vec<_> = language.options.iter().filter_map(|option| option.value(&matches)).collect();
    let options = Options::from_arg_matches(&matches).unwrap();
    format!("{options:?} {own:?} {:?} {:?} {:?}", line.own, line.script, line.arguments)
}

fn from_file(text: &str, language: &'static Known) -> Result<Vec<OsString>, Vec<Mistake>> {
    static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("fcgi-config-{}-{number}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let config = Config::read(&path, language);
    std::fs::remove_file(&path).unwrap();
    let typed = Line { runner: vec!["program".into()], ..Line::default() };
    let mut lines = config?.lines(language, None, &typed, |_| false).map_err(|mistake| vec![mistake])?;
    Ok(lines.pop().unwrap().words)
}

#[test]
fn the_example_names_every_key_and_no_other() {
    let languages: Vec<&Known> = KNOWN.iter().collect();
    let command = command_of(&languages);
    let mut keys: Vec<&str> =
        command.get_arguments().filter(|o| check::is_key(o)).filter_map(|o| o.get_long()).collect();
    keys.extend(OTHERS);
    keys.sort_unstable();
    let mut named: Vec<String> = examples().into_iter().map(|(key, _)| key).collect();
    named.sort_unstable();
    named.dedup();
    assert_eq!(named, keys, "examples/fcgi.toml");
}

#[test]
fn every_key_is_the_option_of_its_name() {
    for (key, value) in examples() {
        let language = language_with(&key);
        let needs = match key.as_str() {
            "static" | "answer-timeout" | "authorizer" | "logger" => "http = \"1\"\n",
            "watch-also" => "watch = true\n",
            "status-listen" => "status = \"/status\"\n",
            "ping-response" => "ping = \"/ping\"\n",
            "slow-after" => "slow-log = \"/tmp/log\"\n",
            "access-format" => "access-log = \"/tmp/log\"\n",
            "preload" | "max-requests" | "kill-after" | "max-memory" => "workers = 4\n",
            "filter" => "http = \"1\"\nstatic = \"/\"\n",
            _ => "",
        };
        let words = from_file(&format!("{needs}{key} = {value}"), language)
            .unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
        let typed = typed_as(&key, &value);
        let needed = needs
            .lines()
            .map(|line| format!("--{}", line.replace(" = ", "=").replace("=true", "").replace('"', "")).into());
        let base: Vec<OsString> = std::iter::once("program".into()).chain(needed).collect();
        let with_it: Vec<OsString> = base.iter().cloned().chain(typed).collect();
        assert_eq!(meaning(language, &words), meaning(language, &with_it), "{key} = {value}");
        if key != "language" {
            assert_ne!(meaning(language, &words), meaning(language, &base), "{key} = {value} changes nothing");
        }
    }
}

/// What one would type for a line of the example.
fn typed_as(key: &str, value: &str) -> Vec<OsString> {
    let values: Vec<String> = value
        .trim_matches(['[', ']'])
        .split(", ")
        .map(|one| one.trim_matches('"').trim_start_matches("0o").to_owned())
        .collect();
    // Strings with a comma in them are no arrays.
    let values = if value.starts_with('[') { values } else { vec![values.join(", ")] };
    let directory = std::env::temp_dir();
    match (key, value) {
        ("language", _) => Vec::new(),
        ("script", _) => vec![directory.join(&values[0]).into()],
        ("listen", "\"unix:fcgi.sock\"") => vec![format!("--listen=unix:{}/fcgi.sock", directory.display()).into()],
        ("arguments" | "interpreter-options", _) => values.into_iter().map(OsString::from).collect(),
        (_, "true") => vec![format!("--{key}").into()],
        _ => values.into_iter().map(|value| format!("--{key}={value}").into()).collect(),
    }
}

#[test]
fn values() {
    for (text, words) in [
        ("workers = 0x10", "--workers=16"),
        ("workers = 1_0", "--workers=10"),
        ("request-timeout = 0.5", "--request-timeout=0.5"),
        ("request-timeout = \"0.5\"", "--request-timeout=0.5"),
        ("display-errors = false", ""),
        ("listen = \"127.0.0.1:1\"", "--listen=127.0.0.1:1"),
        ("socket-mode = 0o640", "--socket-mode=640"),
        ("socket-mode = \"0640\"", "--socket-mode=0640"),
        ("env = { A = \"x y\", HOME = true, N = 1 }", "--env=A=x y --env=HOME --env=N=1"),
        ("rlimit.nofile = 10", "--rlimit=nofile=10"),
        ("root = \"/srv\"", "--root=/srv"),
    ] {
        let found = from_file(text, &KNOWN[0]).unwrap_or_else(|mistakes| panic!("{}", mistakes[0]));
        let found: Vec<_> = found[1..].iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(found.join(" "), words, "{text}");
    }
}
