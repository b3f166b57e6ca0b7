// SPDX-License-Identifier: Apache-2.0
//! How long it takes to try a passphrase, beside `cryptsetup open --test-passphrase`, on volumes that
//! cryptsetup makes: the whole program, from start to end, by the clock.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};

use super::super::{median, sections};
use crate::run;

/// What is derived, and how `cryptsetup luksFormat` is told.
const ROWS: [(&str, &[&str]); 3] = [
    (
        "Argon2id, 1 GiB, 4 passes, 4 lanes",
        &[
            "--type=luks2",
            "--pbkdf=argon2id",
            "--pbkdf-memory=1048576",
            "--pbkdf-force-iterations=4",
            "--pbkdf-parallel=4",
        ],
    ),
    (
        "Argon2id, 1 GiB, 4 passes, 1 lane",
        &[
            "--type=luks2",
            "--pbkdf=argon2id",
            "--pbkdf-memory=1048576",
            "--pbkdf-force-iterations=4",
            "--pbkdf-parallel=1",
        ],
    ),
    (
        "PBKDF2, SHA-256, 2000000 rounds",
        &["--type=luks1", "--hash=sha256", "--pbkdf-force-iterations=2000000"],
    ),
];

/// The table.
pub(super) fn measure(runs: usize) -> Result<String> {
    let dir = tempfile::tempdir()?;
    let [key, volume] = ["key", "volume"].map(|name| dir.path().join(name));
    std::fs::write(&key, "correct horse")?;
    let unlock = run::target_dir()?.join("release/examples/unlock");
    let head = "| derivation | seconds | cryptsetup | share |";
    println!("{head}");
    let mut table = String::new();
    for (name, options) in ROWS {
        std::fs::File::create(&volume)?.set_len(20 << 20)?;
        let mut format = run::command("cryptsetup");
        format.args(["luksFormat", "--batch-mode"]).args(options).arg("--key-file");
        run::run(format.args([&key, &volume])).context("cryptsetup (package cryptsetup-bin)")?;
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..runs.max(1) {
            run::check_interrupt()?;
            ours.push(seconds(Command::new(&unlock).args([&key, &volume]))?);
            theirs.push(seconds(&mut cryptsetup(&key, &volume))?);
        }
        let share = median(ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect());
        let (ours, theirs) = (median(ours), median(theirs));
        let mut row = String::new();
        writeln!(row, "| {name} | {ours:.2} | {theirs:.2} | {:.0} % |", share * 100.0)?;
        print!("{row}");
        table += &row;
    }
    let words = format!(
        "Seconds until `unlock`, an example of the crate `luks`, and `cryptsetup open \
         --test-passphrase` have tried a passphrase that is right: start to end, by the clock, in \
         turns; medians of {runs} runs, and of the runs' ratios."
    );
    let words = sections::wrap(&words);
    Ok(format!("### Passphrases\n\n{words}\n\n{head}\n| --- | --- | --- | --- |\n{table}"))
}

fn cryptsetup(key: &Path, volume: &Path) -> Command {
    let mut command = run::command("cryptsetup");
    command.args(["open", "--test-passphrase", "--key-file"]).args([key, volume]);
    command
}

fn seconds(command: &mut Command) -> Result<f64> {
    let start = Instant::now();
    run::output(command)?;
    Ok(start.elapsed().as_secs_f64())
}
