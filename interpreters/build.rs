//! What the programs need of the linker.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE__LUA").is_some() {
        // Modules in .so files expect the program to export the Lua API (`require "cjson"`). Only that: to export everything
        // would keep everything, and with it what is another language's.
        let list = Path::new(&std::env::var_os("OUT_DIR").expect("cargo sets it")).join("exported");
        std::fs::write(&list, "{ lua*; };\n").expect("the build directory can be written to");
        println!("cargo::rustc-link-arg-bin=fcgi-lua=-Wl,--dynamic-list={}", list.display());
    }
    #[cfg(feature = "python")]
    python();
}

/// The library of the Python that it is built with is found where it lies now; and so are that Python's own modules.
#[cfg(feature = "python")]
fn python() {
    let python = pyo3_build_config::get();
    if let (true, Some(directory)) = (python.shared(), python.lib_dir()) {
        println!("cargo::rustc-link-arg-bin=fcgi-python=-Wl,-rpath,{directory}");
    }
    if !python.shared() {
        // Extension modules expect the program to export the interpreter.
        println!("cargo::rustc-link-arg-bin=fcgi-python=-rdynamic");
    }
    if let Some(executable) = python.executable() {
        println!("cargo::rustc-env=FCGI_PYTHON={executable}");
    }
}
