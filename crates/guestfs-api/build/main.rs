// SPDX-License-Identifier: Apache-2.0
//! Generates Rust from the table of procedures: see `generate`.

// A build script talks to cargo on standard output.
#![allow(clippy::print_stdout)]

#[path = "../src/spec.rs"]
#[allow(dead_code, unreachable_pub)]
mod spec;

#[allow(unreachable_pub)]
mod generate;

use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=guestfs.api");
    let spec = spec::parse(spec::TEXT)?;
    let out = std::env::var("OUT_DIR")?;
    for (file, text) in [
        ("structs.rs", generate::structs(&spec)),
        ("args.rs", generate::args(&spec)),
        ("options.rs", generate::options(&spec)),
        ("table.rs", generate::table(&spec)),
    ] {
        std::fs::write(Path::new(&out).join(file), text)?;
    }
    Ok(())
}
