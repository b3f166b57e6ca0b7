// SPDX-License-Identifier: Apache-2.0
//! The ciphers of LUKS volumes on one thread, beside `cryptsetup benchmark`, which has the kernel
//! encrypt where it gives programs that interface, and beside `openssl speed`, which does what we do: a
//! processor's instructions, used by a program. All encrypt 1 MiB in memory in one go; ours does so by
//! sectors, each a unit of its own, as a volume needs it. The programs run in turns; ours and OpenSSL's
//! count CPU time.

use std::fmt::Write;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::{median, sections};
use crate::run;

/// Options of `cargo xtask bench luks`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Runs of each program in each row; their median counts
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Only print the table
    #[arg(long)]
    no_write: bool,
}

/// Bits of the keys, those of the tweak included.
const KEYS: [u32; 2] = [512, 256];
/// Lengths of sectors in bytes.
const SECTORS: [u32; 2] = [512, 4096];

/// Encryption and decryption, in MiB/s.
type Speed = (f64, f64);

/// Measures and writes the section.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    run::run(&mut run::cargo(["build", "--release", "-p", "luks", "--example", "speed"]))?;
    let mut table = String::from(
        "| cipher | key | sector | MiB/s | cryptsetup benchmark | times | openssl speed | times |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for bits in KEYS {
        let (mut kernel, mut openssl_speeds) = (Vec::new(), Vec::new());
        let mut ours = SECTORS.map(|_| Vec::new());
        for _ in 0..options.runs.max(1) {
            run::check_interrupt()?;
            kernel.extend(cryptsetup(bits)?);
            openssl_speeds.push(openssl(bits)?);
            for (sector, all) in SECTORS.iter().zip(&mut ours) {
                all.push(speed(bits, *sector)?);
            }
        }
        for (sector, all) in SECTORS.iter().zip(&ours) {
            let mut line = format!("| aes-xts-plain64 | {bits} | {sector} | {}", shown(all));
            for theirs in [&kernel, &openssl_speeds] {
                write!(line, " | {} | {}", shown(theirs), times(all, theirs))?;
            }
            println!("{line} |");
            writeln!(table, "{line} |")?;
        }
    }
    if !options.no_write {
        let version = |command: &mut Command| run::output(command).unwrap_or_default();
        let text = format!(
            "Measured with `cargo xtask bench luks`, encryption / decryption, on one thread:\n\n\
             - {}\n- {}\n- kernel: {}\n- commit: {}\n- processor: {}\n- medians of {} runs in \
             turns\n\n{table}",
            version(Command::new("cryptsetup").arg("--version")).trim(),
            version(Command::new("openssl").arg("version")).trim(),
            version(Command::new("uname").arg("-r")).trim(),
            sections::commit(),
            sections::processor(),
            options.runs,
        );
        sections::replace("luks", &text)?;
        println!("written to BENCHMARKS.md");
    }
    Ok(ExitCode::SUCCESS)
}

fn medians(all: &[Speed]) -> Speed {
    let of = |pick: fn(&Speed) -> f64| median(all.iter().map(pick).collect());
    (of(|speed| speed.0), of(|speed| speed.1))
}

fn shown(all: &[Speed]) -> String {
    if all.is_empty() {
        return "not available".into();
    }
    let (encryption, decryption) = medians(all);
    format!("{encryption:.0} / {decryption:.0}")
}

fn times(ours: &[Speed], theirs: &[Speed]) -> String {
    if theirs.is_empty() {
        return "-".into();
    }
    let (ours, theirs) = (medians(ours), medians(theirs));
    format!("{:.2} / {:.2}", ours.0 / theirs.0, ours.1 / theirs.1)
}

fn speed(bits: u32, sector: u32) -> Result<Speed> {
    let program = run::target_dir()?.join("release/examples/speed");
    let args = ["aes-xts-plain64".into(), bits.to_string(), sector.to_string()];
    let text = run::output(Command::new(program).args(args))?;
    parse(text.split_whitespace()).with_context(|| format!("the program printed {text}"))
}

/// The kernel's, through its interface for programs; `None`: it has none.
fn cryptsetup(bits: u32) -> Result<Option<Speed>> {
    let mut command = Command::new("cryptsetup");
    command.args(["benchmark", "--cipher", "aes-xts", "--key-size", &bits.to_string()]);
    let output = command.output().context("cryptsetup (package cryptsetup-bin)")?;
    let text = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Ok(None);
    }
    let line = text.lines().find(|line| line.contains("aes-xts")).unwrap_or_default();
    // aes-xts 512b 1234.5 MiB/s 1234.5 MiB/s
    let words = line.split_whitespace().skip(2).filter(|word| *word != "MiB/s");
    let speed = parse(words).with_context(|| format!("cryptsetup benchmark printed {text}"))?;
    Ok(Some(speed))
}

/// OpenSSL's, whose key length is that of one of the two halves.
fn openssl(bits: u32) -> Result<Speed> {
    let one = |way: &[&str]| {
        let mut command = Command::new("openssl");
        command.args(["speed", "-mr", "-seconds", "1", "-bytes", "1048576"]);
        command.args(way).args(["-evp", &format!("aes-{}-xts", bits / 2)]);
        let text = run::output(&mut command).context("openssl (package openssl)")?;
        // +F:22:AES-256-XTS:4123456789.00, in bytes per second
        let line = text.lines().find(|line| line.starts_with("+F:")).unwrap_or_default();
        let rate = line.rsplit(':').next().and_then(|rate| rate.parse::<f64>().ok());
        let rate = rate.with_context(|| format!("openssl speed printed {text}"))?;
        Ok::<_, anyhow::Error>(rate / f64::from(1 << 20))
    };
    Ok((one(&[])?, one(&["-decrypt"])?))
}

fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<Speed> {
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}
