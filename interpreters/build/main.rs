//! What the programs need of the linker.

#[cfg(feature = "python")]
mod python;

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build");
    if std::env::var_os("CARGO_FEATURE__LUA").is_some() {
        // Modules in .so files expect the program to export the Lua API (`require "cjson"`).
        export("fcgi-lua", "lua*;");
    }
    #[cfg(feature = "python")]
    python::link();
}

/// Has a program export symbols, and only these: to export everything would keep everything, and with it what is another
/// language's.
fn export(program: &str, symbols: &str) {
    println!("cargo::rustc-link-arg-bin={program}={}", exporting(program, symbols));
}

/// What has the linker export symbols.
fn exporting(program: &str, symbols: &str) -> String {
    let list = built(program);
    std::fs::write(&list, format!("{{ {symbols} }};\n")).expect("the build directory can be written to");
    format!("-Wl,--dynamic-list={}", list.display())
}

/// A file in the build directory.
fn built(name: &str) -> PathBuf {
    Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).join(name)
}
