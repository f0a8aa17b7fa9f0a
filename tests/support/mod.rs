//! What all topics use: a directory of one's own, runners that are started and stopped, a client.

pub mod client;
#[cfg(all(feature = "python", feature = "rhai"))]
pub mod http;
pub mod logged;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The program under test.
pub const FCGI_LUA: &str = env!("CARGO_BIN_EXE_fcgi-lua");

/// The real interpreter of the version that the program has built in. Debian has none for Lua 5.5: there, the program itself
/// as a CGI program, where it runs Lua's own library.
#[cfg(feature = "lua51")]
pub const LUA: &str = "lua5.1";
#[cfg(feature = "lua52")]
pub const LUA: &str = "lua5.2";
#[cfg(feature = "lua53")]
pub const LUA: &str = "lua5.3";
#[cfg(feature = "lua54")]
pub const LUA: &str = "lua5.4";
#[cfg(feature = "lua55")]
pub const LUA: &str = FCGI_LUA;
#[cfg(feature = "luajit")]
pub const LUA: &str = "luajit";

#[cfg(feature = "rhai")]
pub const FCGI_RHAI: &str = env!("CARGO_BIN_EXE_fcgi-rhai");

/// The program for Python, and the interpreter that it was built with.
#[cfg(feature = "python")]
pub const FCGI_PYTHON: &str = env!("CARGO_BIN_EXE_fcgi-python");
#[cfg(feature = "python")]
pub const PYTHON: &str = env!("FCGI_PYTHON");

/// Whether the version is so new, which texts of tests may ask for.
pub const fn lua_is_at_least(minor: u8) -> bool {
    let built_in = if cfg!(feature = "lua55") {
        5
    } else if cfg!(feature = "lua54") {
        4
    } else if cfg!(feature = "lua53") {
        3
    } else if cfg!(feature = "lua52") {
        2
    } else {
        1
    };
    built_in >= minor
}

/// What two programs say, made comparable. Tracebacks of Lua 5.2 call a function `_G.require` as often as `require`. The
/// built-in LuaJIT is newer than the system's, has its own modules elsewhere, and shows the address of the program's main
/// function.
pub fn comparable(text: &[u8]) -> Vec<u8> {
    let replaced: &[(&[u8], &[u8])] = if cfg!(feature = "lua52") {
        &[(b"function '_G.", b"function '")]
    } else if cfg!(feature = "luajit") {
        &[(b"at 0x", b"at "), (b"/usr/local/share/luajit-2.1/", b"/usr/share/luajit-2.1.0-beta3/")]
    } else {
        &[]
    };
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(&byte) = rest.first() {
        if let Some((old, new)) = replaced.iter().find(|(old, _)| rest.starts_with(old)) {
            rest = &rest[old.len()..];
            out.extend(*new);
            if *new == b"at " {
                let digits = rest.iter().take_while(|b| b.is_ascii_hexdigit()).count();
                rest = &rest[digits..];
            }
        } else {
            out.push(byte);
            rest = &rest[1..];
        }
    }
    out
}

/// Where the repository's own files are.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A directory that goes when the test ends.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fcgi-test-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file and gives its path.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    /// A unix address in the directory.
    pub fn socket(&self, name: &str) -> String {
        format!("unix:{}", self.0.join(name).display())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A process that is ended when the test ends.
pub struct Running(pub Child);

impl Running {
    pub fn start(command: &mut Command) -> Self {
        Self(command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}")))
    }

    pub fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Waits for the end; gives the exit status, and what was written to a piped standard error.
    pub fn wait(&mut self, patience: Duration) -> (Option<i32>, String) {
        let end = Instant::now() + patience;
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                let mut text = String::new();
                if let Some(stderr) = &mut self.0.stderr {
                    stderr.read_to_string(&mut text).unwrap();
                }
                return (status.code(), text);
            }
            assert!(Instant::now() < end, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // Gracefully, so that children are ended too.
            self.signal("TERM");
            let end = Instant::now() + Duration::from_secs(10);
            while Instant::now() < end && matches!(self.0.try_wait(), Ok(None)) {
                std::thread::sleep(Duration::from_millis(5));
            }
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Takes out what changes interpreters.
pub fn plain_environment(command: &mut Command) {
    for name in ["PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV"] {
        command.env_remove(name);
    }
}

/// A runner that serves at an address; its log is thrown away.
pub fn serve(address: &str, arguments: &[&str]) -> Running {
    serve_with(FCGI_LUA, address, arguments)
}

/// As [`serve`], with a runner of any language.
pub fn serve_with(runner: &str, address: &str, arguments: &[&str]) -> Running {
    let mut command = Command::new(runner);
    plain_environment(&mut command);
    command
        .args(["--listen", address])
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let running = Running::start(&mut command);
    drop(client::connect(address));
    running
}
