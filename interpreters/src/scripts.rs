//! Which scripts are served: the one of the command line, those that requests name, or an application in place of a script.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use fcgi_core::cgi;
use fcgi_core::script::{Named, Scripts};

use crate::languages::Known;
use crate::line::Line;
use crate::options::Level;
use crate::{Options, system};

/// What all requests are for when an application stands in place of a script; it is no file that one could ask for.
const NO_FILE: &str = ".application";

/// The scripts that requests may be for: those of the front's roles as well.
///
/// # Errors
/// What the user must mend.
pub(crate) fn served(language: &Known, options: &Options, line: &Line) -> anyhow::Result<Scripts> {
    let rest = answering(language, options, line)?;
    if !options.roles.are_given() {
        return Ok(rest);
    }
    if needs_none(language, line) {
        bail!("--authorizer, --filter and --logger are scripts beside another one: give a script, or --root");
    }
    let named = options.roles.of_front()?.scripts().map(Path::to_owned).collect();
    Ok(Scripts::Besides { rest: Box::new(rest), named })
}

/// What is served. Files and directories must be there; with `--chroot`, paths are those inside.
///
/// # Errors
/// What the user must mend.
fn answering(language: &Known, options: &Options, line: &Line) -> anyhow::Result<Scripts> {
    let system = &options.system;
    let seen = |path: &Path| -> anyhow::Result<(PathBuf, PathBuf)> {
        let inside = system::inside(system, path)?;
        Ok((system::outside(system, &inside), inside))
    };
    let mut root = options.serving.root.clone();
    if let Some(path) = &options.serving.root {
        let (outside, inside) = seen(path)?;
        if !outside.is_dir() {
            bail!("{} is not a directory (--root)", path.display());
        }
        root = Some(if system.chroot.is_some() { inside } else { path.clone() });
    }
    if needs_none(language, line) {
        if options.serving.isolation == Level::Auto {
            bail!(
                "--isolation auto is for scripts: an application keeps what it has from one request to the next; choose globals \
                 or fork"
            );
        }
        return Ok(Scripts::One(std::path::absolute(NO_FILE)?));
    }
    let Some(script) = &line.script else { return Ok(named(options, root, language.extension)) };
    let shown = Path::new(script).display();
    let (outside, inside) = seen(Path::new(script))?;
    File::open(&outside).with_context(|| format!("cannot open {shown}"))?;
    if outside.is_dir() {
        bail!("{shown} is a directory: give it as --root, or give a script");
    }
    Ok(Scripts::One(inside))
}

/// Whether an option names a program in place of a script.
pub(crate) fn needs_none(language: &Known, line: &Line) -> bool {
    language.in_place_of_script.is_some_and(|name| line.language.iter().any(|(known, _)| *known == name))
}

/// The script of a CGI program that a web server calls as a handler.
///
/// # Errors
/// When the variables name none.
pub(crate) fn of_cgi(options: &Options) -> anyhow::Result<PathBuf> {
    let mut params = cgi::request_variables();
    named(options, options.serving.root.clone(), "").locate(&mut params).context("as a CGI program")
}

fn named(options: &Options, root: Option<PathBuf>, extension: &str) -> Scripts {
    let list = options.serving.extensions.as_deref().unwrap_or(extension);
    let extensions = list.split(',').map(str::trim).filter(|e| !e.is_empty()).map(OsString::from).collect();
    Scripts::Named(Named::new(root, extensions))
}
