// SPDX-License-Identifier: Apache-2.0
//! The process of a plugin, as tests start it.
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let exported = tcmu_abi::keep() + tcmu_plugin::keep();
    let file = std::env::args_os().next_back().unwrap_or_default();
    if let Err(why) = tcmu_plugin::isolation::process::run(Path::new(&file)) {
        writeln!(io::stderr(), "{exported} functions exported; {why}").ok();
    }
    ExitCode::FAILURE
}
