//! Compiles the launcher, and puts it where maturin looks for files of the wheel.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=launcher.rs");
    println!("cargo::rerun-if-changed=data/scripts/fcgi-python");
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("cargo sets {name}"));
    let program = Path::new(&variable("CARGO_MANIFEST_DIR")).join("data/scripts/fcgi-python");
    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition", "2024", "--crate-name", "fcgi_python", "--crate-type", "bin", "launcher.rs"]);
    rustc.args(["-C", "opt-level=s", "-C", "panic=abort", "-C", "strip=symbols", "--target", &variable("TARGET")]);
    if let Ok(linker) = std::env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    rustc.arg("-o").arg(program);
    let status = rustc.status().expect("rustc can be started");
    assert!(status.success(), "the launcher was not compiled");
}
