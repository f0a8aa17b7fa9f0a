//! How `fcgi-python` gets its interpreter.
//!
//! Where the Python that it is built with has its library as an archive, the program consists of it, as `python3` itself
//! mostly does: at fixed addresses, Python runs about a seventh faster than from a shared library (Debian 12, CPython 3.11).
//! Otherwise, or with `FCGI_PYTHON_LINK=shared`, it uses the shared library.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use pyo3_build_config::InterpreterConfig;

/// What extension modules expect the program to export.
const EXPORTED: &str = "Py*; _Py*;";

/// What decides it: `static`, `shared`, or neither for what is there.
const CHOICE: &str = "FCGI_PYTHON_LINK";

/// The C program that tries out an archive.
const TRIAL: &str = "int Py_BytesMain(int, char **);
int main(int count, char **words) { return Py_BytesMain(count, words); }
";

/// Prints which Python this is, and uses modules that are part of it.
const WHO: &str = "import sys, math, time, zlib, _io; print(sys.version, sys.prefix, sys.builtin_module_names)";

/// Prints where the archive lies, a line, and what it needs.
const WHERE: &str = "import os, sysconfig as s
print(os.path.join(s.get_config_var('LIBPL') or '', s.get_config_var('LIBRARY') or ''))
print(*(s.get_config_var(name) or '' for name in ('LIBS', 'MODLIBS', 'SYSLIBS')))";

/// Tells cargo.
pub(super) fn link() {
    println!("cargo::rerun-if-env-changed={CHOICE}");
    let python = pyo3_build_config::get();
    if let Some(executable) = python.executable() {
        println!("cargo::rustc-env=FCGI_PYTHON={executable}");
        println!("cargo::rerun-if-changed={executable}");
    }
    if !python.shared() {
        // The archive is linked already.
        super::export("fcgi-python", EXPORTED);
        return;
    }
    if let Some(directory) = python.lib_dir() {
        // The library is found where it lies now. Some linkers ask for it even when it is not needed.
        argument(&format!("-Wl,-rpath,{directory}"));
    }
    let choice = std::env::var(CHOICE).unwrap_or_default();
    let archive = if choice == "shared" { None } else { archive(python) };
    assert!(choice != "static" || archive.is_some(), "{CHOICE}=static: this Python has no archive to link with");
    if let Some(arguments) = archive {
        for word in &arguments {
            argument(word);
        }
        if let Some(stamp) = python.executable().and_then(stamp) {
            println!("cargo::rustc-env=FCGI_PYTHON_STAMP={stamp}");
        }
    }
}

fn argument(word: &str) {
    println!("cargo::rustc-link-arg-bin=fcgi-python={word}");
}

/// What changes when a Python is updated: its length, and when it was made. The program, which then is as old as before,
/// compares it.
fn stamp(executable: &str) -> Option<String> {
    let metadata = std::fs::metadata(executable).ok()?;
    Some(format!("{} {}", metadata.len(), metadata.mtime()))
}

/// What links a program with the archive of this Python; `None` when it has none, or one that does not make this Python.
fn archive(python: &InterpreterConfig) -> Option<Vec<String>> {
    let (host, target) = (std::env::var("HOST").ok()?, std::env::var("TARGET").ok()?);
    if host != target || !target.contains("linux") {
        return None;
    }
    let executable = python.executable()?;
    let answer = output(Command::new(executable).args(["-I", "-c", WHERE]))?;
    let (archive, libraries) = answer.split_once('\n')?;
    if !Path::new(archive).is_file() {
        return None;
    }
    println!("cargo::rerun-if-changed={archive}");
    let exporting = super::exporting("fcgi-python", EXPORTED);
    let mut arguments: Vec<String> =
        ["-no-pie", &exporting, "-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"].map(String::from).into();
    for library in libraries.split_whitespace().filter(|word| word.starts_with("-l") || word.starts_with("-L")) {
        if !arguments.iter().any(|argument| argument == library) {
            arguments.push(library.to_owned());
        }
    }
    let trial = trial(&arguments)?;
    let who = |program: &Path| output(Command::new(program).arg0(executable).args(["-I", "-c", WHO]));
    (who(&trial)? == who(Path::new(executable))?).then_some(arguments)
}

/// A program that is linked like this.
fn trial(arguments: &[String]) -> Option<PathBuf> {
    let (source, program) = (super::built("trial.c"), super::built("trial"));
    std::fs::write(&source, TRIAL).ok()?;
    let linker = std::env::var_os("RUSTC_LINKER").unwrap_or_else(|| "cc".into());
    output(Command::new(linker).arg(&source).arg("-o").arg(&program).args(arguments))?;
    Some(program)
}

/// What a program prints, unless it fails.
fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8(output.stdout).ok())?
}
