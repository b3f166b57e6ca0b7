// SPDX-License-Identifier: Apache-2.0
//! Builds the library that is preloaded into User-Mode Linux; it becomes a constant.

use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/xstate.rs";
/// The rest of the library.
const ROOT: &str = "#![no_std]\nmod xstate;\n\
    #[panic_handler]\nfn panic(_: &core::panic::PanicInfo<'_>) -> ! {\n    loop {}\n}\n";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={SOURCE}");
    let variable = |name: &str| std::env::var(name).map_err(|e| format!("{name}: {e}"));
    let dir = PathBuf::from(variable("OUT_DIR")?);
    let (root, output) = (dir.join("xstate-lib.rs"), dir.join("xstate.so"));
    if variable("CARGO_CFG_TARGET_ARCH")? != "x86_64" {
        // User-Mode Linux is for x86 alone.
        std::fs::write(output, "")?;
        return Ok(());
    }
    std::fs::copy(SOURCE, dir.join("xstate.rs"))?;
    std::fs::write(&root, ROOT)?;
    let mut command = Command::new(variable("RUSTC")?);
    command
        .args(["--edition", "2024", "--crate-type", "cdylib", "--crate-name", "xstate"])
        .args(["--target", &variable("TARGET")?])
        .args(["-C", "opt-level=2", "-C", "panic=abort", "-C", "strip=symbols"])
        .arg("-o")
        .arg(output)
        .arg(root);
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}
