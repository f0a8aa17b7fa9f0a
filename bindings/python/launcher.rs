//! The wheel's command `fcgi-python`. On a terminal it becomes the environment's Python at once, without starting one first to
//! find out what is asked for. With options of the runner, under CGI and with sockets it becomes the script beside it, which
//! runs the package `fcgi`; `pip` has written into that script's first lines which Python the environment has.
//!
//! The build compiles this file alone (`build.rs`): it has nothing but the standard library, and starts without its runtime.
#![no_main]

use std::convert::Infallible;
use std::ffi::{CStr, CString, OsString, c_char, c_int, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// What stands beside this program.
const COMMAND: &str = "fcgi-python-serve";
/// Variables of CGI, of systemd's sockets, and of a parent of ours: with one of them there may be more to do than `python3` does.
const VARIABLES: [&str; 4] = ["GATEWAY_INTERFACE", "REQUEST_METHOD", "LISTEN_FDS", "FCGI_WORKER_FDS"];
/// CPython's long options, and whether they take a value. All others are the runner's.
const LONG: [(&[u8], bool); 4] =
    [(b"--check-hash-based-pycs", true), (b"--help-env", false), (b"--help-xoptions", false), (b"--help-all", false)];
/// Letters of CPython's short options that take a value, and of those that end the options.
const VALUED: &[u8] = b"cmWXQ";
const LAST: &[u8] = b"cm";

// SAFETY: as the C library declares them.
unsafe extern "C" {
    fn execv(path: *const c_char, arguments: *const *const c_char) -> c_int;
    fn getsockopt(fd: c_int, level: c_int, name: c_int, value: *mut c_void, length: *mut u32) -> c_int;
}

/// The program begins here.
///
/// # Safety
/// The C library calls it with a command line.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn main(count: c_int, words: *const *const c_char) -> c_int {
    let count = usize::try_from(count).unwrap_or_default();
    // SAFETY: as the C library promises, there are so many words, which live as long as the process.
    let words: Vec<&CStr> = (0..count).map(|at| unsafe { CStr::from_ptr(*words.add(at)) }).collect();
    match run(words.get(1..).unwrap_or_default()) {
        Ok(never) => match never {},
        Err(e) => {
            // Nobody is left to be told when that fails.
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("fcgi-python: {e}\n"));
            2
        }
    }
}

fn run(words: &[&CStr]) -> Result<Infallible, String> {
    let own = std::env::current_exe().map_err(|e| format!("/proc/self/exe: {e}"))?;
    let command = own.with_file_name(COMMAND);
    let is_plain = VARIABLES.iter().all(|name| std::env::var_os(name).is_none()) && is_plain(words) && !has_socket();
    let program = if is_plain { interpreter(&command)? } else { command };
    let program = CString::new(program.into_os_string().into_vec()).map_err(|e| e.to_string())?;
    let mut arguments: Vec<*const c_char> = vec![program.as_ptr()];
    arguments.extend(words.iter().map(|word| word.as_ptr()));
    arguments.push(std::ptr::null());
    // SAFETY: the path and each of the arguments end with NUL, and a null pointer ends the list.
    unsafe { execv(program.as_ptr(), arguments.as_ptr()) };
    Err(format!("cannot start {}: {}", program.to_string_lossy(), std::io::Error::last_os_error()))
}

/// Whether a command line has none of the runner's options.
fn is_plain(words: &[&CStr]) -> bool {
    let mut words = words.iter().map(|word| word.to_bytes());
    while let Some(word) = words.next() {
        match word {
            b"--" => return true,
            [b'-', b'-', third, ..] if *third != b'-' => match LONG.iter().find(|(name, _)| *name == word) {
                Some((_, true)) => _ = words.next(),
                Some((_, false)) => {}
                None => return false,
            },
            [b'-', letters @ ..] if !letters.is_empty() => {
                let Some(at) = letters.iter().position(|letter| VALUED.contains(letter)) else { continue };
                if LAST.contains(&letters[at]) {
                    return true;
                }
                if at + 1 == letters.len() {
                    words.next();
                }
            }
            _ => return true,
        }
    }
    true
}

/// Whether standard input is a socket that listens, as spawn-fcgi and others pass it.
fn has_socket() -> bool {
    const SOL_SOCKET: c_int = 1;
    const SO_ACCEPTCONN: c_int = 30;
    let (mut listens, mut length): (c_int, u32) = (0, 4);
    // SAFETY: the value is an int, as its length says.
    let result = unsafe { getsockopt(0, SOL_SOCKET, SO_ACCEPTCONN, (&raw mut listens).cast(), &raw mut length) };
    result == 0 && listens != 0
}

/// The Python that a script of the environment is run by: named in its first line, or, where that has no room for it, in the
/// second one, which a shell runs (`'''exec' "/a path/python" "$0" "$@"`).
fn interpreter(script: &Path) -> Result<PathBuf, String> {
    let text = std::fs::read(script).map_err(|e| format!("{}: {e}", script.display()))?;
    let mut lines = text.split(|byte| *byte == b'\n');
    let named = lines.next().and_then(|line| line.strip_prefix(b"#!")).map(<[u8]>::trim_ascii);
    let named = match named {
        Some(b"/bin/sh") => {
            let rest = lines.next().and_then(|line| line.strip_prefix(b"'''exec' ")).map(<[u8]>::trim_ascii_start);
            rest.and_then(|rest| match rest {
                [b'"', rest @ ..] => rest.split(|byte| *byte == b'"').next(),
                _ => rest.split(|byte| *byte == b' ').next(),
            })
        }
        // Options of the shebang would be the interpreter's.
        other => other.filter(|named| !named.contains(&b' ')),
    };
    let named = named.filter(|named| named.starts_with(b"/"));
    let named = named.ok_or_else(|| format!("{} does not say which Python runs it", script.display()))?;
    Ok(OsString::from_vec(named.to_vec()).into())
}
