//! The languages have one shape: the same files with the same duties, and the same options with the same words.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::support::{FCGI_LUA, FCGI_PYTHON, FCGI_RHAI, repository};

/// The files of a language, without their extension; a folder counts as its file.
fn files(language: &str) -> BTreeSet<String> {
    let directory = std::fs::read_dir(repository().join("bindings/src").join(language)).unwrap();
    let names = directory.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.contains('.') || name.ends_with(".rs")).map(|name| name.replace(".rs", "")).collect()
}

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn the_table_of_files_is_true() {
    let page = std::fs::read_to_string(repository().join("bindings/README.md")).unwrap();
    let chapter = page.split("## The files").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = chapter
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 15);
    // Behind the table: files that only one language has.
    let text: String = chapter.lines().filter(|line| !line.starts_with('|')).collect::<Vec<_>>().join(" ");
    let own: BTreeSet<&str> = quoted(&text).collect();
    let mut told: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for row in &rows {
        let file = quoted(row[0]).next().unwrap();
        for (language, cell) in ["lua", "python", "rhai"].into_iter().zip(&row[2..]) {
            let is_there = files(language).contains(file);
            match *cell {
                "x" => assert!(is_there, "{language} has no {file}"),
                other => {
                    assert!(!is_there, "{language} has {file}, and the table says '{other}'");
                    // Another file has the duty.
                    for elsewhere in quoted(other) {
                        assert!(files(language).contains(elsewhere), "{language} has no {elsewhere}");
                        told.entry(language).or_default().insert(elsewhere);
                    }
                }
            }
            told.entry(language).or_default().insert(file);
        }
    }
    for (language, told) in told {
        for file in files(language) {
            assert!(told.contains(&*file) || own.contains(&*file), "the page does not tell of {language}/{file}");
        }
    }
    let all: BTreeSet<String> = ["lua", "python", "rhai"].into_iter().flat_map(files).collect();
    for file in own.iter().filter(|word| !word.contains(['/', ' ', '3'])) {
        assert!(all.contains(*file) || *file == "fcgi", "no language has {file}, of which the page tells");
    }
}

/// What `--help` says of each long option, under which heading.
fn options(runner: &str) -> BTreeMap<String, String> {
    let output = Command::new(runner).arg("--help").env("COLUMNS", "100").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (mut heading, mut options, mut current) = (String::new(), BTreeMap::new(), None);
    for line in text.lines() {
        if let Some(name) = line.trim_start().strip_prefix("--").filter(|_| line.starts_with("      --")) {
            let name = name.split(' ').next().unwrap().to_owned();
            options.insert(name.clone(), format!("{heading} {line}"));
            current = Some(name);
        } else if line.starts_with("How it was started") {
            break;
        } else if let (Some(name), true) = (&current, line.starts_with("          ") || line.is_empty()) {
            *options.get_mut(name).unwrap() += line;
        } else if !line.is_empty() {
            (heading, current) = (line.to_owned(), None);
        }
    }
    options
}

#[test]
fn the_same_options_have_the_same_words() {
    let [lua, python, rhai] = [FCGI_LUA, FCGI_PYTHON, FCGI_RHAI].map(options);
    let common: BTreeSet<_> =
        lua.keys().filter(|name| python.contains_key(*name) && rhai.contains_key(*name)).collect();
    assert!(common.len() > 25, "{common:?}");
    for name in &common {
        // What files are scripts depends on the language.
        assert_eq!(lua[*name], python[*name], "--{name}");
        assert_eq!(lua[*name], rhai[*name], "--{name}");
    }
    // Those that are one language's own are no more than these.
    let own = |all: &BTreeMap<String, String>| -> Vec<String> {
        all.keys().filter(|name| !common.contains(name)).cloned().collect()
    };
    println!("Lua: {:?}, Python: {:?}, Rhai: {:?}", own(&lua), own(&python), own(&rhai));
    assert_eq!(own(&rhai), ["fs-root", "max-operations"]);
    // An option that two have is everybody's, or is meant to be.
    assert!(own(&python).iter().all(|name| !lua.contains_key(name) && !rhai.contains_key(name)));
}

/// The options of each interpreter's own are told as well.
#[test]
fn short_options_are_explained() {
    for (runner, options) in
        [(FCGI_LUA, &["-e ", "-l ", "-i ", "-v "][..]), (FCGI_PYTHON, &["-c ", "-m ", "-O "]), (FCGI_RHAI, &["-e "])]
    {
        let output = Command::new(runner).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        for option in options {
            assert!(text.lines().any(|line| line.trim_start().starts_with(option)), "{runner} {option}: {text}");
        }
    }
}

/// The versions that the programs tell are those that are built in.
#[test]
fn versions_are_told() {
    let lock = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    let rhai = lock.split("name = \"rhai\"\nversion = \"").nth(1).unwrap().split('"').next().unwrap();
    for (runner, version) in [
        (FCGI_LUA, "Lua".to_owned()),
        (FCGI_PYTHON, "Python 3".to_owned()),
        (FCGI_RHAI, format!("Rhai {}", rhai.rsplit_once('.').unwrap().0)),
    ] {
        let output = Command::new(runner).arg("--version").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains(&version), "{version}: {text}");
    }
}
