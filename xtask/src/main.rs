// SPDX-License-Identifier: Apache-2.0
//! What people do with the workspace: `cargo xtask demo | test | vm | bench | sim |
//! check | package | install`.
//!
//! Each subcommand is a module. All of them that need a kernel share `vm`, which boots the host's
//! own kernel in QEMU, or User-Mode Linux, with the host's files, and `install`, which knows the Debian package of
//! every program that is used.
#![allow(clippy::print_stdout, reason = "a command-line program talks to people")]

mod appliance;
mod bench;
mod check;
mod demo;
mod differential;
mod install;
mod package;
mod run;
mod sim;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// What people do with the workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Show the main job: a disk image becomes a disk of a real kernel.
    Demo(demo::Options),
    /// Run all tests: formatting, lints, documentation, unit tests, and a real kernel in a VM.
    Test(test::Options),
    /// Run a script as root in a VM with the host's kernel and files.
    Vm(vm::Options),
    /// Measure, side by side with the C daemons.
    Bench(bench::Options),
    /// Run the image formats in simulated worlds, with crashes at any moment, and judge what is found.
    Sim(sim::Options),
    /// Licences, fuzzing and model checking.
    Check(check::Options),
    /// Make Debian packages of the daemons, the library and its headers.
    Package(package::Options),
    /// Install the Debian packages that the other commands use, or print how to.
    Install,
}

fn main() -> ExitCode {
    let result = run::catch_signals().and_then(|()| match Cli::parse().command {
        Command::Demo(options) => demo::main(&options),
        Command::Test(options) => test::main(&options),
        Command::Vm(options) => vm::main(options),
        Command::Bench(options) => bench::main(&options),
        Command::Sim(options) => sim::main(&options),
        Command::Check(options) => check::main(&options),
        Command::Package(options) => package::main(&options),
        Command::Install => install::main(),
    });
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        if run::interrupted() { ExitCode::from(130) } else { ExitCode::FAILURE }
    })
}
