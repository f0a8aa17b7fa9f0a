//! `--watch`: which files reload the server when they change, and whether they can be taken as they are then.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fcgi_core::supervisor::{Tree, Watched};

use crate::languages::Known;
use crate::line::Line;
use crate::{Options, scripts, system};

/// What is watched, if that is wanted: the script and its directory, `--root`, the directory of the application, the
/// configuration file, and what is named besides.
///
/// # Errors
/// When nothing says where sources lie, or what is named is not there.
pub(crate) fn watched(language: &Known, options: &Options, line: &Line) -> anyhow::Result<Option<Watched>> {
    if !options.serving.watch {
        return Ok(None);
    }
    let system = &options.system;
    let outside =
        |path: &Path| -> anyhow::Result<PathBuf> { Ok(system::outside(system, &system::inside(system, path)?)) };
    let mut watched = Watched::default();
    let mut tree = |root: PathBuf, extensions: Vec<OsString>| {
        let tree = Tree { root, extensions };
        if !watched.trees.contains(&tree) {
            watched.trees.push(tree);
        }
    };
    let mut files = Vec::new();
    if scripts::needs_none(language, line) {
        let directory = system.chdir.as_deref().unwrap_or(Path::new("."));
        tree(real(&outside(directory)?)?, sources(language, options));
    } else if let Some(script) = &line.script {
        let script = outside(Path::new(script))?;
        // Where it is a symbolic link, both ends of it.
        for file in [in_real_directory(&script)?, real(&script)?] {
            tree(file.parent().unwrap_or(Path::new("/")).to_owned(), sources(language, options));
            files.push(file);
        }
    }
    if let Some(root) = &options.serving.root {
        tree(real(&outside(root)?)?, sources(language, options));
    }
    for path in &options.serving.watch_also {
        let path = real(path).context("--watch-also")?;
        if path.is_dir() {
            tree(path, Vec::new());
        } else {
            files.push(path);
        }
    }
    if watched.trees.is_empty() && files.is_empty() {
        bail!("--watch does not know where sources lie: give a script, --root or --watch-also");
    }
    let roles = options.roles.of_front()?;
    for file in roles.scripts().chain(options.configuration.config.as_deref()) {
        files.push(in_real_directory(file)?);
    }
    watched.files = files;
    Ok(Some(watched))
}

/// A path without dots and links: sources are known by their paths.
fn real(path: &Path) -> anyhow::Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot watch {}", path.display()))
}

/// A file that may be a link itself, by its directory.
fn in_real_directory(file: &Path) -> anyhow::Result<PathBuf> {
    let file = std::path::absolute(file)?;
    let directory = real(file.parent().unwrap_or(Path::new("/")))?;
    Ok(file.file_name().map_or_else(|| directory.clone(), |name| directory.join(name)))
}

/// Extensions of sources.
fn sources(language: &Known, options: &Options) -> Vec<OsString> {
    let list = options.serving.extensions.as_deref().unwrap_or_default();
    let others = list.split(',').map(str::trim).filter(|extension| !extension.is_empty());
    std::iter::once(language.extension).chain(others).map(OsString::from).collect()
}

/// Those of the files that are sources of the language and still there, as they are found inside of `--chroot`.
pub(crate) fn to_compile(language: &Known, options: &Options, line: &Line, changed: &[PathBuf]) -> Vec<PathBuf> {
    let script = line.script.as_ref().and_then(|script| in_real_directory(Path::new(script)).ok());
    let is_source = |file: &&PathBuf| {
        file.extension().is_some_and(|extension| extension == language.extension) || script.as_ref() == Some(*file)
    };
    let there = changed.iter().filter(is_source).filter(|file| file.is_file());
    there.filter_map(|file| system::inside(&options.system, file).ok()).collect()
}
