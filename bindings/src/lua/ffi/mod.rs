//! Lua's C API as it is in Lua 5.4, whichever version is built in: what a version lacks is made up here, and what the
//! versions do differently has one name here.
// Not every version needs all of it.
#![allow(dead_code)]

use std::ffi::CStr;

mod calls;
mod collector;
mod errors;
mod restore;

pub(super) use calls::*;
// There is one of this name in the binding, too.
#[cfg(feature = "luajit")]
pub(super) use calls::luaL_traceback;
pub(super) use collector::*;
pub(super) use errors::*;
pub(super) use mlua::ffi::*;
pub(super) use mlua::lua_CFunction;
pub(super) use restore::*;

/// The version's number; LuaJIT counts as the Lua 5.1 that it is compatible with.
pub(super) const NUMBER: u32 = if cfg!(any(feature = "lua51", feature = "luajit")) {
    501
} else if cfg!(feature = "lua52") {
    502
} else if cfg!(feature = "lua53") {
    503
} else if cfg!(feature = "lua54") {
    504
} else {
    505
};
/// Whether this is LuaJIT.
pub(super) const JIT: bool = cfg!(feature = "luajit");

/// How the version is called in the names of directories and variables.
#[cfg(any(feature = "lua51", feature = "luajit"))]
pub(super) const VERSION: &str = "5.1";
#[cfg(feature = "lua52")]
pub(super) const VERSION: &str = "5.2";
#[cfg(feature = "lua53")]
pub(super) const VERSION: &str = "5.3";
#[cfg(feature = "lua54")]
pub(super) const VERSION: &str = "5.4";
#[cfg(feature = "lua55")]
pub(super) const VERSION: &str = "5.5";

/// Globals that hold library tables, `_G` first.
#[cfg(feature = "lua51")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package"];
#[cfg(feature = "luajit")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package", c"bit", c"jit"];
#[cfg(feature = "lua52")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package", c"bit32"];
#[cfg(feature = "lua53")]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"debug", c"package", c"utf8", c"bit32"];
#[cfg(any(feature = "lua54", feature = "lua55"))]
pub(super) const LIBRARIES: &[&CStr] =
    &[c"_G", c"string", c"table", c"math", c"io", c"os", c"coroutine", c"utf8", c"debug", c"package"];

/// Where `package` keeps the functions that find modules.
pub(super) const SEARCHERS: &CStr =
    if cfg!(any(feature = "lua51", feature = "luajit")) { c"loaders" } else { c"searchers" };
/// How the message of a text that ends too early ends.
pub(super) const AT_END: &[u8] = if HAS_ENVIRONMENTS { b"'<eof>'" } else { b"<eof>" };
/// Whether functions have environments, and globals are one.
pub(super) const HAS_ENVIRONMENTS: bool = cfg!(any(feature = "lua51", feature = "luajit"));
/// Whether `print` sends what it prints.
pub(super) const PRINT_FLUSHES: bool = !HAS_ENVIRONMENTS;
/// Whether `print` calls the global `tostring`, whatever that is.
pub(super) const PRINT_CALLS_TOSTRING: bool = !cfg!(any(feature = "lua54", feature = "lua55"));
/// Whether there are warnings.
pub(super) const HAS_WARNINGS: bool = cfg!(any(feature = "lua54", feature = "lua55"));
/// Whether the allocator is told what a block is for.
pub(super) const ALLOCATIONS_HAVE_TYPES: bool = !HAS_ENVIRONMENTS;
/// Whether tables can have finalizers.
pub(super) const TABLES_HAVE_FINALIZERS: bool = !HAS_ENVIRONMENTS;
/// Whether `math.random` starts anew in each process as in the one before.
pub(super) const RANDOM_IS_REPEATED: bool = !cfg!(any(feature = "lua54", feature = "lua55"));

/// The version of the interpreter.
pub fn version() -> String {
    if JIT { "LuaJIT 2.1".to_owned() } else { format!("Lua {VERSION}") }
}
