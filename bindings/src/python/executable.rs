//! The `python3` whose place the program takes. Scripts find it as `sys.executable`, which they can start; and from where it
//! lies CPython finds its library and the environment's packages.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Which `python3` the program was built with and what that was then, and the file that it was called by: perhaps a link to it.
static BUILT_WITH: OnceLock<(&str, Option<&str>)> = OnceLock::new();
static CALLED: OnceLock<PathBuf> = OnceLock::new();

/// Says which `python3` the program was built with. If the program holds a copy of it: its length in bytes and the time when
/// it was last changed, in seconds since 1970, with a space between. To be called before the working directory is changed:
/// what the program was called by may lie below it.
pub fn built_with(executable: &'static str, stamp: Option<&'static str>) {
    let _ = BUILT_WITH.set((executable, stamp));
    let Some(name) = std::env::args_os().next().filter(|name| !name.is_empty()).map(PathBuf::from) else { return };
    let called = if name.as_os_str().as_bytes().contains(&b'/') {
        std::path::absolute(name).ok()
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).map(|directory| directory.join(&name)).find(|file| file.is_file())
    };
    if let Some(called) = called {
        let _ = CALLED.set(called);
    }
}

/// Says so when the `python3` that the program holds a copy of has been updated since: the copy has not, but the library
/// that it uses.
pub fn outdated() -> Option<String> {
    let &(executable, stamp) = BUILT_WITH.get()?;
    is_changed(Path::new(executable), stamp?).then(|| {
        format!("{executable} has been updated, and this program contains it as it was before: build the program again")
    })
}

/// Whether a file is there and not what its stamp says.
fn is_changed(file: &Path, stamp: &str) -> bool {
    std::fs::metadata(file).is_ok_and(|now| stamp != format!("{} {}", now.len(), now.mtime()))
}

/// Why the one that the program was built with is not found, unless `PYTHONHOME` says where its library is.
pub(super) fn why_missing() -> Option<String> {
    let (executable, _) = BUILT_WITH.get()?;
    let error = std::fs::metadata(executable).err().filter(|_| std::env::var_os("PYTHONHOME").is_none())?;
    Some(format!("{executable}, which this program was built with and whose library it needs, cannot be used: {error}"))
}

/// Finds it: the program itself, where it is the `python3` of an installation; of the virtual environment that it lies in,
/// else of the one that is active, else the one that it was built with. `version` is CPython's ("Python 3.11.2").
pub(super) fn find(version: &str) -> Option<PathBuf> {
    let own = std::env::current_exe().ok();
    // A name is only what the caller says.
    let is_own =
        |called: &&PathBuf| own.as_ref().is_none_or(|own| called.canonicalize().is_ok_and(|file| file == *own));
    let called = CALLED.get();
    let is_python = |program: &&PathBuf| is_named_python(program);
    let itself = called.filter(is_python).filter(is_own).or_else(|| own.as_ref().filter(is_python));
    if let Some(itself) = itself
        && [Some(itself), own.as_ref()].into_iter().flatten().any(|program| is_installed(program, version))
    {
        return Some(itself.clone());
    }
    let linked = || called.filter(|called| is_in_environment(called)).filter(is_own);
    let lies_in = linked().or_else(|| own.as_ref().filter(|own| is_in_environment(own)));
    let active = || std::env::var_os("VIRTUAL_ENV").filter(|v| !v.is_empty()).map(PathBuf::from);
    lies_in
        .and_then(|program| python_of(program.parent()?))
        .or_else(|| active().filter(|v| v.join(CONFIGURATION).is_file()).and_then(|v| python_of(&v.join("bin"))))
        .or_else(|| BUILT_WITH.get().map(|(python, _)| PathBuf::from(python)).filter(|python| python.is_file()))
}

/// What makes a directory a virtual environment.
const CONFIGURATION: &str = "pyvenv.cfg";

/// Whether a program lies in a virtual environment: where CPython looks for it.
fn is_in_environment(program: &Path) -> bool {
    program.ancestors().skip(1).take(2).any(|directory| directory.join(CONFIGURATION).is_file())
}

fn python_of(bin: &Path) -> Option<PathBuf> {
    let python = bin.join("python3");
    python.is_file().then_some(python)
}

fn is_named_python(program: &Path) -> bool {
    program.file_name().is_some_and(|name| name.as_bytes().starts_with(b"python"))
}

/// Whether the library of this version lies beside the program's directory, as CPython is installed.
fn is_installed(program: &Path, version: &str) -> bool {
    let version = version.trim_start_matches("Python ");
    let minor = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let library = program.ancestors().nth(2).map(|prefix| prefix.join("lib"));
    library.is_some_and(|library| {
        // The free-threaded build has a library of its own.
        ["", "t"].iter().any(|build| library.join(format!("python{minor}{build}/os.py")).is_file())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_update_is_noticed() {
        let file = std::env::current_exe().unwrap();
        let metadata = std::fs::metadata(&file).unwrap();
        let stamp = |length: u64, time: i64| format!("{length} {time}");
        assert!(!is_changed(&file, &stamp(metadata.len(), metadata.mtime())));
        assert!(is_changed(&file, &stamp(metadata.len() + 1, metadata.mtime())));
        assert!(is_changed(&file, &stamp(metadata.len(), metadata.mtime() - 1)));
        assert!(!is_changed(Path::new("/no/such/python3"), "1 1"));
    }
}
