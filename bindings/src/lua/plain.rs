//! The interpreter without requests: on a terminal and under CGI, where `lua` itself is what a script expects.
#![allow(unsafe_code)]

use std::ffi::{CString, c_int};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

use mlua::ffi;

use super::engine::{self, Options};

/// Runs a script as `lua` does: on the process's own streams and environment, which `os.exit` ends. Gives the exit status.
///
/// # Errors
/// When the interpreter cannot be started.
pub fn run(script: &Path, options: &Options) -> anyhow::Result<u8> {
    let (lua, l) = engine::new_state()?;
    let name = CString::new(script.as_os_str().as_bytes()).unwrap_or_default();
    // SAFETY: the functions are called as for requests, on a fresh state that is used by this thread only.
    let message = unsafe {
        ffi::lua_gc(l, ffi::LUA_GCGEN, 0 as c_int, 0 as c_int);
        super::module::install(l);
        engine::set_arguments(l, options, script);
        ffi::lua_pushcfunction(l, engine::call_script);
        if ffi::luaL_loadfilex(l, name.as_ptr(), ptr::null()) == ffi::LUA_OK {
            for argument in &options.arguments {
                ffi::lua_pushlstring(l, argument.as_bytes().as_ptr().cast(), argument.len());
            }
            ffi::lua_pcall(l, 1 + options.arguments.len() as c_int, 1, 0);
        }
        engine::take_message(l)
    };
    if let Some(message) = &message {
        let program = options.program.as_bytes();
        std::io::stderr().write_all(&[program, b": ", message, b"\n"].concat())?;
    }
    // Closing the state runs finalizers, which may still print.
    drop(lua);
    Ok(u8::from(message.is_some()))
}
