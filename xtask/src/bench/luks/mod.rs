// SPDX-License-Identifier: Apache-2.0
//! What is slow about LUKS volumes, beside other programs: the ciphers of sectors, on one thread and in
//! memory, beside OpenSSL's libcrypto and, where the kernel gives it to programs, the kernel's
//! (`cryptsetup benchmark`); and the derivation of a key from a passphrase, beside cryptsetup.

mod passphrases;

use std::fmt::Write;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use super::{median, sections};
use crate::run;

/// Options of `cargo xtask bench luks`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Rounds of each row, and runs of each program; their median counts
    #[arg(long, default_value_t = 15)]
    runs: usize,
    /// Only print the tables
    #[arg(long)]
    no_write: bool,
}

/// Ciphers, the bits of their keys, those of the tweak included, and the bytes of sectors.
const ROWS: [(&str, u32, u32); 9] = [
    ("aes-xts-plain64", 512, 4096),
    ("aes-xts-plain64", 512, 512),
    ("aes-xts-plain64", 256, 4096),
    ("aes-xts-plain64", 256, 512),
    ("aes-cbc-plain64", 256, 4096),
    ("aes-cbc-plain64", 256, 512),
    ("aes-cbc-essiv:sha256", 256, 512),
    ("serpent-xts-plain64", 512, 4096),
    ("twofish-xts-plain64", 512, 4096),
];

/// What `cryptsetup benchmark` prints where the kernel keeps its ciphers to itself.
const NO_INTERFACE: &str = "Required kernel crypto interface not available";

/// Encryption and decryption, in MiB/s.
type Speed = (f64, f64);

/// A row's speeds, round by round.
#[derive(Default)]
struct Speeds {
    ours: Vec<Speed>,
    /// libcrypto's with the same sectors.
    sectors: Vec<Speed>,
    /// libcrypto's with units of 64 KiB.
    units: Vec<Speed>,
}

/// Measures and writes the section.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    let examples =
        ["build", "--release", "-p", "luks", "--example", "speed", "--example", "unlock"];
    run::run(&mut run::cargo(examples))?;
    let (ciphers, libcrypto) = ciphers(options.runs)?;
    let passphrases = passphrases::measure(options.runs.min(5))?;
    if !options.no_write {
        let version = |command: &mut Command| run::output(command).unwrap_or_default();
        let text = format!(
            "Measured with `cargo xtask bench luks`:\n\n\
             - {}\n- {libcrypto}\n- kernel: {}\n- commit: {}\n- processor: {}\n- processors: {}\n\n\
             {ciphers}\n{passphrases}",
            version(run::command("cryptsetup").arg("--version")).trim(),
            version(Command::new("uname").arg("-r")).trim(),
            sections::commit(),
            sections::processor(),
            std::thread::available_parallelism()?,
        );
        sections::replace("luks", &text)?;
        println!("written to BENCHMARKS.md");
    }
    Ok(ExitCode::SUCCESS)
}

/// The table of ciphers, and libcrypto's version.
fn ciphers(rounds: usize) -> Result<(String, String)> {
    let mut table = String::new();
    let mut libcrypto = String::new();
    let mut kernel_has_none = false;
    let head = "| cipher | key | sector | MiB/s | libcrypto, same sectors | times | libcrypto, \
                64 KiB | times | `cryptsetup benchmark` | times |";
    let line = "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |";
    println!("{head}");
    for (cipher, bits, sector) in ROWS {
        run::check_interrupt()?;
        let (version, speeds) = speeds(cipher, bits, sector, rounds)?;
        libcrypto = version;
        let mut kernel = Vec::new();
        while kernel.len() < rounds.min(5) && !kernel_has_none {
            match benchmark(cipher, bits)? {
                Some(speed) => kernel.push(speed),
                None => kernel_has_none = true,
            }
        }
        let mut row = format!("| {cipher} | {bits} | {sector} | {}", shown(&speeds.ours));
        for theirs in [&speeds.sectors, &speeds.units] {
            write!(row, " | {} | {}", shown(theirs), times(&speeds.ours, theirs))?;
        }
        let kernel_times = match kernel.is_empty() {
            true => "-".into(),
            false => times(&[medians(&speeds.ours)], &[medians(&kernel)]),
        };
        writeln!(row, " | {} | {kernel_times} |", shown(&kernel))?;
        print!("{row}");
        table += &row;
    }
    let kernel = match kernel_has_none {
        true => {
            format!("It is not there: this kernel gives programs no ciphers (\"{NO_INTERFACE}\").")
        }
        false => String::new(),
    };
    let words = format!(
        "MiB of encryption / decryption for each second of CPU time, on one thread, in memory. \
         libcrypto is measured in the same process, {rounds} rounds in turns; medians of the \
         speeds, and of the rounds' ratios. \"64 KiB\": with units of that length, as those of \
         `cryptsetup benchmark`. {kernel}"
    );
    let words = sections::wrap(&words);
    Ok((format!("### Ciphers\n\n{words}\n\n{head}\n{line}\n{table}"), libcrypto))
}

/// What the program prints: libcrypto's version, and the speeds of each round.
fn speeds(cipher: &str, bits: u32, sector: u32, rounds: usize) -> Result<(String, Speeds)> {
    let program = run::target_dir()?.join("release/examples/speed");
    let args = [cipher.into(), bits.to_string(), sector.to_string(), rounds.max(1).to_string()];
    let text = run::output(Command::new(program).args(args))?;
    let (version, lines) = text.split_once('\n').context("the program printed no version")?;
    let mut speeds = Speeds::default();
    for line in lines.lines() {
        let words: Vec<f64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        match words[..] {
            [e, d] => speeds.ours.push((e, d)),
            [e, d, by_sector_e, by_sector_d, unit_e, unit_d] => {
                speeds.ours.push((e, d));
                speeds.sectors.push((by_sector_e, by_sector_d));
                speeds.units.push((unit_e, unit_d));
            }
            _ => bail!("the program printed {line}"),
        }
    }
    Ok((version.into(), speeds))
}

/// The kernel's speed; `None`: it gives programs no ciphers.
fn benchmark(cipher: &str, bits: u32) -> Result<Option<Speed>> {
    let name = cipher.rsplit_once('-').map_or(cipher, |(name, _)| name);
    let mut command = run::command("cryptsetup");
    command.args(["benchmark", "--cipher", name, "--key-size", &bits.to_string()]);
    let output = command.output().context("cryptsetup (package cryptsetup-bin)")?;
    let [out, err] = [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    if err.contains(NO_INTERFACE) || out.contains(NO_INTERFACE) {
        return Ok(None);
    }
    // aes-xts 512b 1234.5 MiB/s 1234.5 MiB/s
    let line = out.lines().rfind(|line| line.contains(name)).unwrap_or_default();
    let words = line.split_whitespace().filter_map(|word| word.parse().ok());
    match words.collect::<Vec<_>>()[..] {
        [encryption, decryption] => Ok(Some((encryption, decryption))),
        _ => bail!("cryptsetup benchmark: {}{out}{err}", output.status),
    }
}

fn both(all: impl Iterator<Item = Speed> + Clone) -> Speed {
    (median(all.clone().map(|speed| speed.0).collect()), median(all.map(|speed| speed.1).collect()))
}

fn medians(all: &[Speed]) -> Speed {
    both(all.iter().copied())
}

fn shown(all: &[Speed]) -> String {
    if all.is_empty() {
        return "-".into();
    }
    let (encryption, decryption) = medians(all);
    format!("{encryption:.0} / {decryption:.0}")
}

fn times(ours: &[Speed], theirs: &[Speed]) -> String {
    if theirs.is_empty() {
        return "-".into();
    }
    let ratios =
        ours.iter().zip(theirs).map(|(ours, theirs)| (ours.0 / theirs.0, ours.1 / theirs.1));
    let (encryption, decryption) = both(ratios);
    format!("{encryption:.2} / {decryption:.2}")
}
