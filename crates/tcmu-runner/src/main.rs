// SPDX-License-Identifier: Apache-2.0
//! The program: reads the command line; the library does the rest.
use std::process::ExitCode;

use clap::Parser;
use tcmu_runner::cli::{Cli, Command};
use tcmu_runner::daemon;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(message) => {
            // Help and version, too, come this way.
            let _ = message.print();
            return if message.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    match &cli.command {
        Some(Command::Check) => tcmu_runner::check::run(&cli),
        Some(Command::Status { json }) => tcmu_runner::status::command::run(*json),
        Some(Command::PluginProcess { file }) => tcmu_runner::plugins::run_process(file),
        None => daemon::run(&cli),
    }
}
