//! Lets C modules find Lua's functions in the program that loads them.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE__LUA").is_some() {
        // Modules in .so files expect the program to export the Lua API (`require "cjson"`).
        println!("cargo::rustc-link-arg-bin=fcgi-lua=-rdynamic");
    }
}
