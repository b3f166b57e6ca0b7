// SPDX-License-Identifier: Apache-2.0
//! Programs that people run: each as they do, with the distribution's daemon and ours in turns, on the
//! same guest.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use super::{Lab, report};
use crate::bench::{median, sections};
use crate::run;

/// Bytes of the guest's disk, and of the disk that it is copied to.
const SIZE: u64 = 1 << 30;
const LARGER: u64 = 3 << 29;
/// Data of the guest beside its system, in MiB.
const DATA: usize = 200;

/// A program with its arguments; GUEST and COPY stand for the disks.
struct Tool {
    arguments: &'static [&'static str],
    /// So many times as fast as with the distribution's.
    target: f64,
    /// Whether it writes a copy, which has to be there, and empty.
    copies: bool,
}

const TOOLS: &[Tool] = &[
    Tool { arguments: &["virt-inspector", "-a", "GUEST"], target: 3.0, copies: false },
    Tool { arguments: &["virt-df", "-a", "GUEST"], target: 3.0, copies: false },
    Tool { arguments: &["virt-filesystems", "--all", "-a", "GUEST"], target: 3.0, copies: false },
    Tool {
        arguments: &["virt-resize", "--quiet", "--expand", "/dev/sda2", "GUEST", "COPY"],
        target: 1.0,
        copies: true,
    },
    Tool { arguments: &["virt-sparsify", "--quiet", "GUEST", "COPY"], target: 1.0, copies: true },
];

const WORDS: &str = "Wall-clock time of the whole program, as a person runs it, on a guest with this \
    machine's own list of packages; the daemons take turns, medians of all runs.";

/// Measures all of them; yields the table.
pub(super) fn measure(lab: &Lab<'_>, stock: &Path, ours: &Path, rounds: usize) -> Result<String> {
    let guest = make_guest(lab, stock)?;
    let copy = lab.dir.join("copy");
    let mut text =
        format!("\n{}\n\n| program | stock | ours | times | target | |\n", sections::wrap(WORDS));
    text += "| --- | --- | --- | --- | --- | --- |\n";
    for tool in TOOLS {
        eprintln!("{}", tool.arguments.join(" "));
        let mut times = [Vec::new(), Vec::new()];
        for round in 0..rounds {
            for turn in 0..2 {
                let which = (round + turn) % 2;
                let daemon = [stock, ours][which];
                if tool.copies {
                    File::create(&copy)?.set_len(LARGER)?;
                }
                let words = tool.arguments.iter().map(|word| match *word {
                    "GUEST" => guest.as_os_str(),
                    "COPY" => copy.as_os_str(),
                    word => word.as_ref(),
                });
                let begin = Instant::now();
                let mut command = lab.command(daemon);
                let done = command.args(words).stdout(Stdio::null()).status()?;
                times[which].push(begin.elapsed().as_secs_f64());
                run::check_interrupt()?;
                if !done.success() {
                    bail!("{} failed: {done}", run::describe(&command));
                }
            }
        }
        let [s, o] = times.map(median);
        let verdict = report::verdict(Some(s >= tool.target * o));
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} | {} times | {verdict} |",
            tool.arguments
                .join(" ")
                .replace(" -a GUEST", "")
                .replace(" GUEST", "")
                .replace(" COPY", ""),
            report::seconds(s),
            report::seconds(o),
            s / o,
            tool.target,
        );
    }
    Ok(text)
}

/// A Debian guest: a partition to boot from, a system, and swap. Its packages are this machine's.
fn make_guest(lab: &Lab<'_>, stock: &Path) -> Result<PathBuf> {
    const SYSTEM: &[&str] = &["etc/os-release", "etc/debian_version", "var/lib/dpkg/status"];
    let image = lab.dir.join("guest");
    File::create(&image)?.set_len(SIZE)?;
    let tree = lab.dir.join("system");
    for name in SYSTEM {
        let to = tree.join(name);
        fs::create_dir_all(to.parent().context("no parent")?)?;
        fs::copy(Path::new("/").join(name), to)
            .with_context(|| format!("/{name}: this is no Debian"))?;
    }
    for name in ["bin", "boot", "usr/bin", "var/log"] {
        fs::create_dir_all(tree.join(name))?;
    }
    fs::copy(std::env::current_exe()?, tree.join("bin/sh"))?;
    fs::write(tree.join("etc/hostname"), "bench\n")?;
    let fstab = "/dev/sda2 / ext4 defaults 0 1\n/dev/sda1 /boot ext4 defaults 0 2\n/dev/sda3 none swap sw 0 0\n";
    fs::write(tree.join("etc/fstab"), fstab)?;
    fs::write(tree.join("var/log/data"), vec![0x5a; DATA << 20])?;
    super::disk::archive(&tree)?;
    let script = lab.dir.join("guest.fish");
    let calls = format!(
        "run\npart-init /dev/sda gpt\npart-add /dev/sda primary 2048 206847\n\
         part-add /dev/sda primary 206848 1886207\npart-add /dev/sda primary 1886208 2000895\n\
         mkfs ext4 /dev/sda1\nmkfs ext4 /dev/sda2\nmkswap /dev/sda3\nmount /dev/sda2 /\n\
         tar-in {}.tar /\n",
        tree.display()
    );
    fs::write(&script, calls)?;
    let mut fish = lab.command(stock);
    fish.args(["guestfish", "--format=raw", "-a"]).arg(&image).arg("-f").arg(&script);
    run::run(&mut fish)?;
    Ok(image)
}
