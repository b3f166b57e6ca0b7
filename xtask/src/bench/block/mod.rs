// SPDX-License-Identifier: Apache-2.0
//! The qcow2 engine alone, without the kernel's target, beside `qemu-img bench`: the same image, the
//! same operations, run in turns; of QEMU's ways of doing I/O the one that is fastest in the row.
//! With `--instructions`: what a command costs by itself, see [`instructions`].

mod instructions;

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::{median, sections};
use crate::run;

/// Options of `cargo xtask bench block`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Where the images are made (2 GiB): its file system is part of what is measured
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
    /// Runs of each program in each row; their median counts
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Count instructions and system calls of commands instead; needs no quiet machine
    #[arg(long)]
    instructions: bool,
    /// Only print the table
    #[arg(long)]
    no_write: bool,
}

/// What a row's operations are done to.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// All of it is allocated.
    Full,
    /// Nothing is, at the beginning of each run.
    Empty,
    Deflate,
    Zstd,
}

struct Row {
    name: &'static str,
    kind: Kind,
    write: bool,
    count: u64,
    depth: u32,
    len: u64,
    step: u64,
    /// What is wanted, as times of QEMU's speed.
    wanted: &'static str,
}

/// Size of the images, in bytes.
const SIZE: u64 = 1 << 30;
/// Steps that scatter operations over an image and come back to none soon.
const SCATTERED: u64 = 412_319_744;
const SCATTERED_CLUSTERS: u64 = 6291 * 65536;

#[rustfmt::skip]
const ROWS: [Row; 10] = [
    Row { name: "4k scattered read", kind: Kind::Full, write: false, count: 300_000, depth: 1, len: 4096, step: SCATTERED, wanted: "" },
    Row { name: "4k scattered read", kind: Kind::Full, write: false, count: 300_000, depth: 32, len: 4096, step: SCATTERED, wanted: "1.5" },
    Row { name: "4k scattered write, allocated", kind: Kind::Full, write: true, count: 200_000, depth: 1, len: 4096, step: SCATTERED, wanted: "" },
    Row { name: "4k scattered write, allocated", kind: Kind::Full, write: true, count: 200_000, depth: 32, len: 4096, step: SCATTERED, wanted: "1.5" },
    Row { name: "4k scattered write that allocates", kind: Kind::Empty, write: true, count: 16_000, depth: 32, len: 4096, step: SCATTERED_CLUSTERS, wanted: "2" },
    Row { name: "64k sequential read", kind: Kind::Full, write: false, count: 16_000, depth: 1, len: 65536, step: 65536, wanted: "" },
    Row { name: "64k sequential write", kind: Kind::Full, write: true, count: 16_000, depth: 1, len: 65536, step: 65536, wanted: "" },
    Row { name: "64k sequential read, deflate", kind: Kind::Deflate, write: false, count: 2_000, depth: 1, len: 65536, step: 65536, wanted: "1" },
    Row { name: "64k sequential read, deflate", kind: Kind::Deflate, write: false, count: 4_000, depth: 8, len: 65536, step: 65536, wanted: "1" },
    Row { name: "64k sequential read, zstd", kind: Kind::Zstd, write: false, count: 4_000, depth: 8, len: 65536, step: 65536, wanted: "1" },
];

/// QEMU's ways: its name for the reader, and the options. `-i native` needs O_DIRECT.
const WAYS: [(&str, &[&str]); 3] = [
    ("threads", &["-t", "writeback", "-i", "threads"]),
    ("io_uring", &["-t", "writeback", "-i", "io_uring"]),
    ("native", &["-t", "none", "-i", "native"]),
];

/// The images, which go when it does.
struct Images {
    dir: tempfile::TempDir,
}

impl Images {
    fn make(dir: &Path) -> Result<Self> {
        let images = Images { dir: tempfile::tempdir_in(dir)? };
        // What compresses by half: words that come again among noise.
        let mut state = 1u64;
        let mut block = Vec::with_capacity(1 << 20);
        let (_, file) = images.over("raw", "metadata")?;
        let mut raw = std::fs::File::options().write(true).open(&file)?;
        for _ in 0..SIZE >> 20 {
            block.clear();
            while block.len() < 1 << 20 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                block.extend_from_slice(&state.to_be_bytes()[..4]);
                block.extend_from_slice(
                    [b" and", b" the", b"some", b"more"][(state >> 62) as usize],
                );
            }
            std::io::Write::write_all(&mut raw, &block)?;
        }
        for (name, options) in [
            ("full", &[][..]),
            ("deflate", &["-c"][..]),
            ("zstd", &["-c", "-o", "compression_type=zstd"][..]),
        ] {
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-f", "raw", "-O", "qcow2"]).args(options);
            run::run(convert.args([&file, &images.path(name)]))?;
        }
        Ok(images)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A raw file, and a qcow2 image whose external data file it is: the same pages, so that where
    /// the host put them counts for both. The image comes first.
    fn over(&self, name: &str, preallocation: &str) -> Result<(PathBuf, PathBuf)> {
        let (over, raw) = (self.path(&format!("over-{name}")), self.path(name));
        let options =
            format!("data_file={},data_file_raw=on,preallocation={preallocation}", raw.display());
        let mut create = Command::new("qemu-img");
        create.args(["create", "-q", "-f", "qcow2", "-o", &options]).arg(&over);
        run::output(create.arg(SIZE.to_string()))?;
        Ok((over, raw))
    }

    /// The qcow2 image and the raw file below it that are compared with each other. Where nothing is
    /// allocated the file is one of holes, whose pages the file system gives when they are written.
    fn pair(&self, kind: Kind) -> Result<Option<(PathBuf, PathBuf)>> {
        Ok(match kind {
            Kind::Full => Some((self.path("over-raw"), self.path("raw"))),
            Kind::Empty => Some(self.over("holes", "off")?),
            Kind::Deflate | Kind::Zstd => None,
        })
    }

    /// The image for a run of a row.
    fn ready(&self, kind: Kind) -> Result<PathBuf> {
        Ok(match kind {
            Kind::Full => self.path("full"),
            Kind::Deflate => self.path("deflate"),
            Kind::Zstd => self.path("zstd"),
            Kind::Empty => {
                let path = self.path("empty");
                let mut create = Command::new("qemu-img");
                create.args(["create", "-q", "-f", "qcow2"]).arg(&path).arg(SIZE.to_string());
                run::output(&mut create)?;
                path
            }
        })
    }
}

/// What one run took, in seconds.
#[derive(Clone, Copy)]
struct Took {
    /// By the clock, without opening and closing.
    time: f64,
    /// Of CPU, with these and of all threads: this repeats on a busy machine.
    cpu: f64,
}

/// The CPU time of all children that have ended, in seconds.
fn children_cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // cutime and cstime, in hundredths of a second (proc(5): the fields 16 and 17).
    fields.skip(13).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// One run of ours, on an image and its data file if it has one.
fn ours(bench: &Path, format: &str, row: &Row, files: &[&PathBuf]) -> Result<Took> {
    let before = children_cpu();
    let mut command = Command::new(bench);
    command.args([format, if row.write { "write" } else { "read" }]);
    command.args([row.count, u64::from(row.depth), row.len, row.step].map(|n| n.to_string()));
    let text = run::output(command.args(files))?;
    let time = text.trim().parse().with_context(|| format!("it printed {text}"))?;
    Ok(Took { time, cpu: children_cpu() - before })
}

/// One run of QEMU's; none if the file system does not do it that way.
fn qemu(way: &[&str], row: &Row, path: &Path) -> Result<Option<Took>> {
    let before = children_cpu();
    let mut command = Command::new("qemu-img");
    command.args(["bench", "-f", "qcow2"]).args(way);
    command.args(["-c", &row.count.to_string(), "-d", &row.depth.to_string()]);
    command.args(["-s", &row.len.to_string(), "-S", &row.step.to_string()]);
    if row.write {
        command.arg("-w");
    }
    let output = command.arg(path).output().context("qemu-img (package qemu-utils)")?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let seconds = text.split("completed in ").nth(1).and_then(|rest| rest.split(' ').next());
    let seconds = seconds.with_context(|| format!("qemu-img bench printed {text}"))?;
    Ok(Some(Took { time: seconds.parse()?, cpu: children_cpu() - before }))
}

/// Measures and writes the section.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    if options.instructions {
        return count(options);
    }
    run::run(&mut run::cargo(["build", "--release", "-p", "qcow2", "--example", "bench"]))?;
    let bench = run::target_dir()?.join("release/examples/bench");
    let images = Images::make(&options.dir)?;
    let mut table = String::from(
        "| job | QD | ops/s, QEMU | its way | ops/s | times | wanted | CPU us, QEMU | CPU us | share | \
         ops/s of raw | same file, qcow2 | times raw |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in &ROWS {
        let line = measure(&bench, &images, row, options.runs.max(1))?;
        print!("{line}");
        table += &line;
    }
    if !options.no_write {
        let version = run::output(Command::new("qemu-img").arg("--version"))?;
        let text = format!(
            "Measured with `cargo xtask bench block`:\n\n- QEMU: {}\n- commit: {}\n- processor: {}, \
             {} CPUs\n- images in {}, medians of {} runs in turns\n\n{table}",
            version.lines().next().unwrap_or_default(),
            sections::commit(),
            sections::processor(),
            std::thread::available_parallelism()?,
            options.dir.display(),
            options.runs,
        );
        sections::replace("block", &text)?;
        println!("written to BENCHMARKS.md");
    }
    Ok(ExitCode::SUCCESS)
}

/// Counts and writes the section.
fn count(options: &Options) -> Result<ExitCode> {
    let table = instructions::table(&options.dir)?;
    if !options.no_write {
        let text = format!(
            "Measured with `cargo xtask bench block --instructions`:\n\n- commit: {}\n\n{table}",
            sections::commit(),
        );
        sections::replace("block-instructions", &text)?;
        println!("written to BENCHMARKS.md");
    }
    Ok(ExitCode::SUCCESS)
}

/// One row of the table.
fn measure(bench: &Path, images: &Images, row: &Row, runs: usize) -> Result<String> {
    let mut engine = Vec::new();
    let (mut raw, mut over) = (Vec::new(), Vec::new());
    let mut ways = WAYS.map(|_| Vec::new());
    for number in 0..runs {
        run::check_interrupt()?;
        // Who uses the pages of a file first, after those of another, is slower: that is a run that
        // does not count, and the rest take turns.
        let turns = [number % 2 == 0, number % 2 == 1];
        ours(bench, "qcow2", row, &[&images.ready(row.kind)?])?;
        for own in turns {
            if own {
                engine.push(ours(bench, "qcow2", row, &[&images.ready(row.kind)?])?);
                continue;
            }
            for ((_, way), all) in WAYS.iter().zip(&mut ways) {
                all.extend(qemu(way, row, &images.ready(row.kind)?)?);
            }
        }
        if let Some((_, file)) = images.pair(row.kind)? {
            ours(bench, "raw", row, &[&file])?;
        }
        for below in turns {
            let Some((image, file)) = images.pair(row.kind)? else { break };
            match below {
                true => raw.push(ours(bench, "raw", row, &[&file])?),
                false => over.push(ours(bench, "qcow2", row, &[&image, &file])?),
            }
        }
    }
    #[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
    let count = row.count as f64;
    let rate = |all: &[Took]| count / median(all.iter().map(|took| took.time).collect());
    let cpu = |all: &[Took]| median(all.iter().map(|took| took.cpu).collect()) * 1e6 / count;
    let ways = WAYS.iter().zip(&ways).filter(|(_, all)| !all.is_empty());
    let best = ways.max_by(|a, b| rate(a.1).total_cmp(&rate(b.1)));
    let ((way, _), theirs) = best.context("QEMU ran in no way")?;
    let raw = match raw.is_empty() {
        true => "- | - | -".into(),
        false => {
            let (raw, over) = (rate(&raw), rate(&over));
            format!("{raw:.0} | {over:.0} | {:.2}", over / raw)
        }
    };
    let (us, others) = (cpu(&engine), cpu(theirs));
    let Row { name, depth, wanted, .. } = row;
    let mut line = String::new();
    writeln!(
        line,
        "| {name} | {depth} | {:.0} | {way} | {:.0} | {:.2} | {wanted} | {others:.1} | {us:.1} | \
         {:.0} % | {raw} |",
        rate(theirs),
        rate(&engine),
        rate(&engine) / rate(theirs),
        us / others * 100.0,
    )?;
    Ok(line)
}
