//! The prompt.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int};
use std::io::{BufRead, IsTerminal, Write};
use std::ptr;

use super::ffi::{self, JIT, NUMBER, lua_State};
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Config, Editor};

use super::command_line::call;
use super::error::report;
use super::interrupts::catch_interrupts;

/// Says which Lua this is, as `lua -v` does.
///
/// # Safety
/// `l` is a Lua state of this thread, with its libraries open.
pub(super) unsafe fn print_version(l: *mut lua_State) {
    #[cfg(feature = "lua51")]
    let text = "Lua 5.1.5  Copyright (C) 1994-2012 Lua.org, PUC-Rio";
    #[cfg(feature = "lua52")]
    let text = "Lua 5.2.4  Copyright (C) 1994-2015 Lua.org, PUC-Rio";
    #[cfg(feature = "lua53")]
    let text = "Lua 5.3.6  Copyright (C) 1994-2020 Lua.org, PUC-Rio";
    #[cfg(feature = "lua54")]
    let text = "Lua 5.4.9  Copyright (C) 1994-2026 Lua.org, PUC-Rio";
    #[cfg(feature = "lua55")]
    let text = "Lua 5.5.1  Copyright (C) 1994-2026 Lua.org, PUC-Rio";
    #[cfg(feature = "luajit")]
    // SAFETY: the caller's promise.
    let text = unsafe {
        ffi::lua_getglobal(l, c"jit".as_ptr());
        ffi::lua_getfield(l, -1, c"version".as_ptr());
        let version = ffi::lua_tostring(l, -1);
        let version = if version.is_null() { "LuaJIT".into() } else { CStr::from_ptr(version).to_string_lossy() };
        let text = format!("{version} -- Copyright (C) 2005-2026 Mike Pall. https://luajit.org/");
        ffi::lua_pop(l, 2);
        text
    };
    #[cfg(not(feature = "luajit"))]
    let _ = l;
    // What was printed through C comes first.
    // SAFETY: all streams of the process may be flushed.
    unsafe { libc::fflush(ptr::null_mut()) };
    if cfg!(feature = "lua51") {
        eprintln!("{text}");
    } else {
        println!("{text}");
    }
}

/// Where lines come from: an editor with a history on a terminal, otherwise just lines.
enum Lines {
    Editor(Box<Editor<(), DefaultHistory>>),
    Plain,
}

impl Lines {
    fn new() -> Self {
        let config = Config::builder().auto_add_history(true).build();
        match Editor::with_config(config) {
            Ok(editor) if std::io::stdin().is_terminal() => Self::Editor(Box::new(editor)),
            _ => Self::Plain,
        }
    }

    /// The next line; `None` at the end.
    fn next(&mut self, prompt: &str) -> Option<Vec<u8>> {
        match self {
            Self::Editor(editor) => match editor.readline(prompt) {
                Ok(line) => Some(line.into_bytes()),
                Err(ReadlineError::Interrupted) => Some(Vec::new()),
                Err(_) => None,
            },
            Self::Plain => {
                let mut out = std::io::stdout().lock();
                let mut line = Vec::new();
                let count = std::io::stdin().lock().read_until(b'\n', &mut line).ok()?;
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                // What is typed into a pipe is shown, as the usual line editor shows it; LuaJIT has none.
                let shown = if count > 0 && !JIT { &[&line[..], b"\n"].concat()[..] } else { b"" };
                out.write_all(&[prompt.as_bytes(), shown].concat()).and_then(|()| out.flush()).ok()?;
                (count > 0).then_some(line)
            }
        }
    }
}

/// Reads, evaluates and prints until the end of input.
///
/// # Safety
/// `l` is a Lua state of this thread; called in a C function's frame.
pub(super) unsafe fn run(l: *mut lua_State) {
    let mut lines = Lines::new();
    #[cfg(feature = "luajit")]
    {
        // SAFETY: the caller's promise. What the script wrote through C comes first.
        let status = unsafe {
            libc::fflush(ptr::null_mut());
            super::luajit::jit_status(l)
        };
        println!("{status}");
    }
    // SAFETY: the caller's promise; chunks run in protected mode.
    unsafe {
        ffi::lua_settop(l, 0);
        loop {
            // What the program wrote through C comes before what we write.
            libc::fflush(ptr::null_mut());
            let Some(status) = load_line(l, &mut lines) else { break };
            let status = if status == ffi::LUA_OK {
                catch_interrupts();
                call(l, 0, ffi::LUA_MULTRET)
            } else {
                status
            };
            if report(l, status, None) {
                print_results(l);
            }
            ffi::lua_settop(l, 0);
        }
    }
    println!();
}

/// Reads a line, and further ones while they are not a whole chunk, and leaves the function on the stack, or the message.
/// `None` at the end of input.
unsafe fn load_line(l: *mut lua_State, lines: &mut Lines) -> Option<c_int> {
    // SAFETY: plain stack operations.
    unsafe {
        let mut text = lines.next(&prompt(l, true))?;
        if let Some(expression) = text.strip_prefix(b"=") {
            text = [b"return ", expression].concat();
        }
        // An expression is evaluated; what is none is tried as a statement.
        if NUMBER >= 503 {
            if load(l, &[b"return ", &text[..]].concat()) == ffi::LUA_OK {
                return Some(ffi::LUA_OK);
            }
            ffi::lua_pop(l, 1);
        }
        loop {
            let status = load(l, &text);
            if status != ffi::LUA_ERRSYNTAX || !is_incomplete(l) {
                return Some(status);
            }
            let Some(more) = lines.next(&prompt(l, false)) else { return (NUMBER >= 503).then_some(status) };
            ffi::lua_pop(l, 1);
            text.push(b'\n');
            text.extend_from_slice(&more);
        }
    }
}

unsafe fn load(l: *mut lua_State, text: &[u8]) -> c_int {
    // SAFETY: loading does not raise errors.
    unsafe { ffi::luaL_loadbufferx(l, text.as_ptr().cast(), text.len(), c"=stdin".as_ptr(), ptr::null()) }
}

/// Whether the message on the stack complains about the end of the text.
unsafe fn is_incomplete(l: *mut lua_State) -> bool {
    // SAFETY: a syntax error's message is a string.
    unsafe { CStr::from_ptr(ffi::lua_tostring(l, -1)).to_bytes().ends_with(ffi::AT_END) }
}

/// The globals `_PROMPT` and `_PROMPT2`, if they are set.
unsafe fn prompt(l: *mut lua_State, first: bool) -> String {
    // SAFETY: the text is copied before it leaves the stack.
    unsafe {
        let top = ffi::lua_gettop(l);
        let name = if first { c"_PROMPT" } else { c"_PROMPT2" };
        let prompt = if ffi::lua_getglobal(l, name.as_ptr()) == ffi::LUA_TNIL {
            if first { "> " } else { ">> " }.to_owned()
        } else {
            CStr::from_ptr(ffi::luaL_tolstring(l, -1, ptr::null_mut())).to_string_lossy().into_owned()
        };
        ffi::lua_settop(l, top);
        prompt
    }
}

/// Has `print` print what is on the stack.
unsafe fn print_results(l: *mut lua_State) {
    // SAFETY: plain stack operations.
    unsafe {
        let count = ffi::lua_gettop(l);
        if count == 0 {
            return;
        }
        ffi::luaL_checkstack(l, ffi::LUA_MINSTACK, c"too many results to print".as_ptr());
        ffi::lua_getglobal(l, c"print".as_ptr());
        ffi::lua_insert(l, 1);
        if ffi::lua_pcall(l, count, 0, 0) != ffi::LUA_OK {
            let text = ffi::lua_tostring(l, -1);
            let why = if text.is_null() { "".into() } else { CStr::from_ptr(text).to_string_lossy() };
            eprintln!("error calling 'print' ({why})");
        }
    }
}
