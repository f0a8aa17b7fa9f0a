//! The options of `lua` itself: `-e -l -i -v`, `-E` since 5.2, `-W` since 5.4, `-j -O -b` of LuaJIT, and the chunks that run before a script.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, OsString, c_int};
use std::os::unix::ffi::OsStrExt;

use super::ffi::{self, JIT, NUMBER, lua_State};

use super::error::describe_error;

/// What the options ask for.
#[derive(Debug, Default)]
pub(super) struct CommandLine {
    /// `-v`, and `-i`, which implies it.
    pub(super) version: bool,
    /// `-i`.
    pub(super) interactive: bool,
    /// `-E`: `LUA_INIT`, `LUA_PATH` and `LUA_CPATH` mean nothing.
    pub(super) ignore_environment: bool,
    /// Whether a chunk was given by `-e`.
    pub(super) executes: bool,
    /// What runs before the script, in order.
    pub(super) prelude: Vec<Step>,
    /// Whether the first of these is from `LUA_INIT`.
    pub(super) initializes: bool,
    /// `-b`: arguments for LuaJIT's tool that saves compiled code.
    #[cfg(feature = "luajit")]
    pub(super) bytecode: Option<Vec<OsString>>,
}

/// Something that runs before the script.
#[derive(Debug)]
pub(super) enum Step {
    /// A chunk, and what it is called in messages.
    Chunk(CString, &'static CStr),
    /// The file that `LUA_INIT` names.
    File(CString),
    /// `-l`: the global, unless the module sets its own, and the module for it.
    Library(Option<CString>, CString),
    /// `-j`: a command for the compiler, or a module of its tools.
    #[cfg(feature = "luajit")]
    Control(CString),
    /// `-O`: how the compiler is to optimize.
    #[cfg(feature = "luajit")]
    Optimize(CString),
    /// `-W`.
    Warnings,
}

impl CommandLine {
    /// Reads the options, each with its value attached or behind it.
    ///
    /// # Errors
    /// What is wrong, as `lua` words it.
    pub(super) fn parse(options: &[OsString]) -> Result<Self, String> {
        let mut line = Self::default();
        let mut steps = Vec::new();
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let bytes = option.as_bytes();
            match bytes {
                b"-i" => (line.interactive, line.version) = (true, true),
                b"-v" => line.version = true,
                b"-E" if NUMBER >= 502 || JIT => line.ignore_environment = true,
                b"-W" if ffi::HAS_WARNINGS => steps.push(Step::Warnings),
                #[cfg(feature = "luajit")]
                [b'-', b'b', attached @ ..] if steps.is_empty() && line.is_untouched() => {
                    use std::os::unix::ffi::OsStringExt;
                    let attached = (!attached.is_empty()).then(|| OsString::from_vec([&b"-"[..], attached].concat()));
                    line.bytecode = Some(attached.into_iter().chain(options.by_ref().cloned()).collect());
                }
                #[cfg(feature = "luajit")]
                [b'-', b'O', level @ ..] => steps.push(Step::Optimize(text(level)?)),
                [b'-', kind @ (b'e' | b'l' | b'j'), attached @ ..] if *kind != b'j' || JIT => {
                    let next = if attached.is_empty() { options.next().map(|o| o.as_bytes()) } else { Some(attached) };
                    let is_value = |v: &&[u8]| !attached.is_empty() || NUMBER == 501 || !v.starts_with(b"-");
                    let value = next.filter(is_value);
                    let value = value.ok_or_else(|| format!("'-{}' needs argument", *kind as char))?;
                    steps.push(step(*kind, value)?);
                    line.executes |= *kind == b'e';
                }
                _ => return Err(format!("unrecognized option '{}'", option.display())),
            }
        }
        if !line.ignore_environment {
            line.prelude.extend(init());
            line.initializes = !line.prelude.is_empty();
        }
        line.prelude.append(&mut steps);
        Ok(line)
    }
}

#[cfg(feature = "luajit")]
impl CommandLine {
    fn is_untouched(&self) -> bool {
        !self.version && !self.interactive && !self.ignore_environment
    }
}

fn text(bytes: &[u8]) -> Result<CString, String> {
    CString::new(bytes).map_err(|e| e.to_string())
}

fn step(kind: u8, value: &[u8]) -> Result<Step, String> {
    match kind {
        b'e' => return Ok(Step::Chunk(text(value)?, c"=(command line)")),
        #[cfg(feature = "luajit")]
        b'j' => return Ok(Step::Control(text(value)?)),
        _ => {}
    }
    if NUMBER < 504 {
        // Modules of 5.1 set their own globals.
        let global = if NUMBER == 501 { None } else { Some(text(value)?) };
        return Ok(Step::Library(global, text(value)?));
    }
    if let Some(at) = value.iter().position(|&b| b == b'=') {
        return Ok(Step::Library(Some(text(&value[..at])?), text(&value[at + 1..])?));
    }
    // What follows a hyphen tells versions of a C module apart; it is no part of the global's name.
    let global = value.split(|&b| b == b'-').next().unwrap_or_default();
    Ok(Step::Library(Some(text(global)?), text(value)?))
}

/// `LUA_INIT`, or better the one for this version.
fn init() -> Option<Step> {
    let versioned = [
        (c"=LUA_INIT_5_2", "LUA_INIT_5_2"),
        (c"=LUA_INIT_5_3", "LUA_INIT_5_3"),
        (c"=LUA_INIT_5_4", "LUA_INIT_5_4"),
        (c"=LUA_INIT_5_5", "LUA_INIT_5_5"),
    ];
    // Versions before 5.2 know the general one only.
    let own = versioned.into_iter().find(|(_, name)| name.ends_with(&ffi::VERSION.replace('.', "_")));
    let (name, text) = own
        .into_iter()
        .chain([(c"=LUA_INIT", "LUA_INIT")])
        .find_map(|(shown, name)| std::env::var_os(name).map(|text| (shown, text)))?;
    let bytes = OsStr::as_bytes(&text);
    Some(match bytes.strip_prefix(b"@") {
        Some(file) => Step::File(CString::new(file).ok()?),
        None => Step::Chunk(CString::new(bytes).ok()?, name),
    })
}

impl Step {
    /// Runs the step; on an error, its message is on the stack.
    ///
    /// # Safety
    /// `l` is a Lua state of this thread; called in a C function's frame, which tracebacks then end with.
    pub(super) unsafe fn run(&self, l: *mut lua_State) -> c_int {
        // SAFETY: the caller's promise; plain stack operations.
        unsafe {
            match self {
                Self::Warnings => {
                    ffi::warning(l, c"@on");
                    ffi::LUA_OK
                }
                Self::Chunk(text, name) => {
                    let bytes = text.as_bytes();
                    let status =
                        ffi::luaL_loadbufferx(l, bytes.as_ptr().cast(), bytes.len(), name.as_ptr(), std::ptr::null());
                    if status == ffi::LUA_OK { call(l, 0, 0) } else { status }
                }
                Self::File(name) => {
                    let status = ffi::load_file(l, name.as_ptr());
                    if status == ffi::LUA_OK { call(l, 0, 0) } else { status }
                }
                Self::Library(global, module) => {
                    ffi::lua_getglobal(l, c"require".as_ptr());
                    ffi::lua_pushstring(l, module.as_ptr());
                    let status = call(l, 1, 1);
                    match global {
                        Some(global) if status == ffi::LUA_OK => ffi::lua_setglobal(l, global.as_ptr()),
                        None if status == ffi::LUA_OK => ffi::lua_pop(l, 1),
                        _ => {}
                    }
                    status
                }
                #[cfg(feature = "luajit")]
                Self::Control(command) => super::luajit::control(l, command),
                #[cfg(feature = "luajit")]
                Self::Optimize(level) => super::luajit::optimize(l, level),
            }
        }
    }
}

/// Calls what is on the stack with so many arguments, as `lua` does: an error gets a traceback.
///
/// # Safety
/// As for [`Step::run`].
pub(super) unsafe fn call(l: *mut lua_State, arguments: c_int, results: c_int) -> c_int {
    // SAFETY: the handler goes below the function.
    unsafe {
        let base = ffi::lua_gettop(l) - arguments;
        ffi::lua_pushcfunction(l, describe_error);
        ffi::lua_insert(l, base);
        let status = ffi::lua_pcall(l, arguments, results, base);
        ffi::lua_remove(l, base);
        if NUMBER == 501 && status != ffi::LUA_OK {
            // What is finalized then may print, before the error is told.
            ffi::gc(l, ffi::LUA_GCCOLLECT);
        }
        status
    }
}

// Older versions lack some of these.
#[cfg(all(test, any(feature = "lua54", feature = "lua55")))]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<CommandLine, String> {
        CommandLine::parse(&options.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options() {
        let line = parse(&["-e", "x = 1", "-lsocket-v2", "-l", "g=mod", "-i"]).unwrap();
        assert!(line.interactive && line.version && line.executes && !line.ignore_environment);
        let shown: Vec<String> = line.prelude.iter().map(|step| format!("{step:?}")).collect();
        let libraries = match NUMBER {
            501 => ["Library(None, \"socket-v2\")", "Library(None, \"g=mod\")"],
            502 | 503 => ["Library(Some(\"socket-v2\"), \"socket-v2\")", "Library(Some(\"g=mod\"), \"g=mod\")"],
            _ => ["Library(Some(\"socket\"), \"socket-v2\")", "Library(Some(\"g\"), \"mod\")"],
        };
        assert_eq!(shown, ["Chunk(\"x = 1\", \"=(command line)\")", libraries[0], libraries[1]]);
        for (wrong, says) in [
            (&["-e"][..], "'-e' needs argument"),
            (&["-x"], "unrecognized option '-x'"),
            (&["-vi"], "unrecognized option '-vi'"),
        ] {
            assert_eq!(parse(wrong).unwrap_err(), says);
        }
    }

    #[test]
    fn options_of_some_versions() {
        for (option, since) in [("-E", NUMBER >= 502 || JIT), ("-W", NUMBER >= 504), ("-Ofold", JIT), ("-joff", JIT)] {
            assert_eq!(parse(&[option]).is_ok(), since, "{option}");
        }
    }
}
