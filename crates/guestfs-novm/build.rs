//! Builds the library that is preloaded into User-Mode Linux; it becomes a part of the program.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/uml/xstate.rs";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| std::env::var(name).map_err(|e| format!("{name}: {e}"));
    let output = PathBuf::from(variable("OUT_DIR")?).join("xstate.so");
    if variable("CARGO_CFG_TARGET_ARCH")? != "x86_64" {
        // User-Mode Linux is for x86 alone.
        std::fs::write(output, "")?;
        return Ok(());
    }
    let mut command = Command::new(variable("RUSTC")?);
    command
        .args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "xstate"])
        .args(["--target", &variable("TARGET")?])
        .args(["-C", "opt-level=2", "-C", "panic=abort", "-C", "strip=symbols"])
        .arg("-o")
        .arg(output)
        .arg(SOURCE);
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
