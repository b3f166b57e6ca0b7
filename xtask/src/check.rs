// SPDX-License-Identifier: Apache-2.0
//! Checks beside the tests: the project's own files, licences and origin of what we depend on,
//! fuzzing, model checking.

pub(crate) mod sources;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::test::{Checks, cargo_test};

/// What an input may take: seconds, memory of the process (half a GiB of which are the sanitizer's
/// and the corpus), and the largest allocation, which is the window of zstd (128 MiB).
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=768", "-malloc_limit_mb=160"];

/// Options of `cargo xtask check`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Fuzz each target for so long
    #[arg(long, default_value_t = 30, value_name = "S")]
    fuzz_seconds: u32,
    /// Only this check: sources, deny, fuzz or loom
    #[arg(value_parser = ["sources", "deny", "fuzz", "loom"])]
    only: Option<String>,
}

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let wanted = |name: &str| options.only.as_deref().is_none_or(|only| only == name);
    let mut total = Checks::default();
    if wanted("sources") {
        println!("== the project's own files");
        total.add(sources::main()?);
    }
    if wanted("deny") {
        println!("== licences, bans and origin of dependencies");
        total.add(deny()?);
    }
    if wanted("loom") {
        println!("== model checks");
        total.add(loom()?);
    }
    if wanted("fuzz") {
        println!("== fuzzing");
        total.add(fuzz(options.fuzz_seconds)?);
    }
    Ok(total.conclude())
}

fn deny() -> Result<Checks> {
    need("cargo-deny")?;
    let status = run::status(&mut run::cargo(["deny", "check", "licenses", "bans", "sources"]))?;
    println!(
        "note: the advisory database (RustSec) was not asked, since it has to be fetched; ask it \
         with `cargo deny check advisories`"
    );
    Ok(Checks::of("deny", status.success()))
}

/// The model checks of the crate `tcmu`, which `--cfg loom` builds on the atomics of loom.
pub(crate) fn loom() -> Result<Checks> {
    let dir = run::target_dir()?.join("loom");
    let mut test = run::cargo(["test", "--release", "-p", "tcmu", "--test", "loom"]);
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    cargo_test(test.env("RUSTFLAGS", format!("{flags} --cfg loom")).env("CARGO_TARGET_DIR", dir))
}

/// Runs each fuzz target for some seconds, from its seeds and what earlier runs found.
fn fuzz(seconds: u32) -> Result<Checks> {
    let fuzz = run::root().join("fuzz");
    let dir = fuzz.join("fuzz_targets");
    let mut targets: Vec<String> = std::fs::read_dir(&dir)
        .with_context(|| format!("no fuzz targets in {}", dir.display()))?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_suffix(".rs")?.to_owned()))
        .collect();
    targets.sort();
    if targets.is_empty() {
        bail!("no fuzz targets in {}", dir.display());
    }
    need("cargo-fuzz")?;
    let mut checks = Checks::default();
    for target in targets {
        println!("-- {target}, {seconds} s");
        let mut command = run::cargo(["fuzz", "run", &target]);
        let (corpus, seeds) = (fuzz.join("corpus").join(&target), fuzz.join("seeds").join(&target));
        if seeds.is_dir() {
            // New inputs go to the first directory.
            std::fs::create_dir_all(&corpus)?;
            command.args([corpus, seeds]);
        }
        command.arg("--");
        command.arg(format!("-max_total_time={seconds}")).args(LIMITS);
        command.args(["-verbosity=0", "-print_final_stats=1"]);
        // The sanitizer's flag is one of the nightly compiler's; the stable one has it, too.
        command.env("RUSTC_BOOTSTRAP", "1");
        let good = run::status(&mut command)?.success();
        if !good {
            println!("FAIL {target}: the input is in fuzz/artifacts/{target}");
        }
        checks.add(Checks::of(format!("fuzz: {target}"), good));
    }
    Ok(checks)
}

/// Makes sure that a cargo subcommand is there.
fn need(tool: &str) -> Result<()> {
    let bin = std::env::home_dir().unwrap_or_default().join(".cargo/bin").join(tool);
    if run::find_program(tool).is_some() || bin.is_file() {
        return Ok(());
    }
    println!("installing {tool}");
    let mut install = run::cargo(["install", "--locked", "--quiet", tool]);
    // Not into our own target directory: its profile and flags are not ours.
    run::run(install.env_remove("CARGO_TARGET_DIR").env_remove("RUSTFLAGS"))
}
