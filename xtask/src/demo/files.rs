// SPDX-License-Identifier: Apache-2.0
//! The second half: what is in the image, as the unmodified guestfish tells it with our guestfsd and
//! no VM. The files have to be those that the first half saw on the disk.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::fish::Fish;
use super::{Image, say};
use crate::run::{self, Kept};

/// The disk, as clients of libguestfs call it.
const DISK: &str = "/dev/sda";
/// Most lines of a kind.
const LINES: usize = 8;
/// Most files whose checksums are compared.
const SUMS: usize = 2000;
/// Most files whose checksums are shown.
const SHOWN: usize = 3;

/// What the first half saw of the image: what `demo.sh` left.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// What blkid called the contents of the disk and its partitions.
    types: Vec<String>,
    /// What was mounted.
    device: Option<String>,
    /// Its files with their sha256.
    sums: Vec<(String, String)>,
}

impl Seen {
    /// Reads it from the directory that the VM shared.
    pub(super) fn read(dir: &Path) -> Seen {
        let text = |name: &str| {
            String::from_utf8_lossy(&fs::read(dir.join(name)).unwrap_or_default()).into_owned()
        };
        Seen {
            types: text("types").lines().map(str::to_owned).collect(),
            device: text("device").lines().next().map(|number| format!("{DISK}{number}")),
            sums: parse_sums(&text("sums")),
        }
    }
}

/// Paths and sums, as sha256sum writes them; names that it has to quote are left out.
fn parse_sums(text: &str) -> Vec<(String, String)> {
    let pair = |line: &str| {
        let (sum, path) = line.split_once("  .")?;
        (sum.len() == 64 && !path.contains(char::REPLACEMENT_CHARACTER))
            .then(|| (path.to_owned(), sum.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

/// How guestfs-novm runs the daemon, and what that is.
type Mode = (&'static str, &'static str);
const INSTANT: Mode = ("--instant", "this host's own kernel, in namespaces");
const UML: Mode = ("--uml", "User-Mode Linux, a kernel that is a process");

/// Shows what is in the image, with the programs in a directory.
pub(super) fn show(image: &Image, seen: &Seen, programs: &Path) -> Result<()> {
    println!();
    let novm = programs.join("guestfs-novm");
    let mode = mode(&novm, &seen.types)?;
    say("Files", "the same image: unmodified guestfish, our guestfsd, no VM");
    say("", &format!("guestfs-novm {}: {}", mode.0, mode.1));
    let before = state_of(&image.path)?;
    let start = Instant::now();
    let mut command = Kept::command(&novm.to_string_lossy());
    command.args([mode.0, "--", "guestfish", "--ro"]);
    command.arg(format!("--format={}", image.format)).arg("-a").arg(&image.path);
    // Texts of errors are shown: in the language of the rest.
    command.env("LC_ALL", "C.UTF-8");
    let mut fish = Fish::start(&mut command)?;
    wanted(&mut fish, &["run"])?;
    say("Launched", &format!("ready for its first call after {}", seconds(start.elapsed())));
    let filesystems = filesystems(&mut fish)?;
    let mounted = system(&mut fish)? || mount_one(&mut fish, seen, &filesystems)?;
    if mounted {
        list(&mut fish)?;
    } else {
        say("Mounted", "nothing: no filesystem that can be");
    }
    if let Some(device) = &seen.device {
        wanted(&mut fish, &["umount-all"])?;
        wanted(&mut fish, &["mount-ro", device, "/"])?;
        compare(&mut fish, device, &seen.sums)?;
    }
    fish.end()?;
    if state_of(&image.path)? != before {
        bail!("{} is not what it was before", image.path.display());
    }
    say("Closed", &format!("after {}; the image is as it was", seconds(start.elapsed())));
    Ok(())
}

/// The host's kernel where it is allowed to and can; else User-Mode Linux.
fn mode(novm: &Path, types: &[String]) -> Result<Mode> {
    let check = |mode: Mode| {
        let output = Command::new(novm).args([mode.0, "--check"]).output();
        let output = output.with_context(|| format!("cannot start {}", novm.display()))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let needed = |line: &&str| line.starts_with("missing, and needed");
        let missing: Vec<String> = said.lines().filter(needed).map(str::to_owned).collect();
        Ok::<_, anyhow::Error>(if output.status.success() { Ok(()) } else { Err(missing) })
    };
    let instant = check(INSTANT)?;
    if instant.is_ok() && types.iter().all(|name| kernel_has(name)) {
        return Ok(INSTANT);
    }
    match (check(UML)?, instant) {
        (Ok(()), _) => Ok(UML),
        (_, Ok(())) => Ok(INSTANT),
        (Err(uml), Err(instant)) => {
            let lines = [format!("{}:", INSTANT.0)].into_iter().chain(instant);
            let lines = lines.chain([format!("{}:", UML.0)]).chain(uml);
            bail!("no way to run guestfsd here\n{}", lines.collect::<Vec<_>>().join("\n"))
        }
    }
}

/// Whether this kernel mounts what blkid calls so, or need not.
fn kernel_has(name: &str) -> bool {
    let known = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let is = |line: &str| line.split_whitespace().last() == Some(name);
    // NTFS is mounted by a program.
    ["swap", "ntfs"].contains(&name)
        || known.lines().any(is)
        || run::command("modprobe").args(["-nq", name]).status().is_ok_and(|s| s.success())
}

/// What tells that a file was written to.
fn state_of(path: &Path) -> Result<(u64, i64, i64)> {
    let meta = path.metadata().with_context(|| format!("cannot look at {}", path.display()))?;
    Ok((meta.len(), meta.mtime(), meta.mtime_nsec()))
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// The answer of a call that must not fail.
fn wanted(fish: &mut Fish, words: &[&str]) -> Result<String> {
    fish.ask(words)?.map_err(|error| anyhow::anyhow!("{}: {error}", words.join(" ")))
}

/// The answer of a call, on one line; none when it fails or says nothing.
fn fact(fish: &mut Fish, words: &[&str]) -> Result<Option<String>> {
    let text = fish.ask(words)?.unwrap_or_default();
    Ok(Some(text.trim().replace('\n', " ")).filter(|text| !text.is_empty() && text != "unknown"))
}

/// Shows the filesystems; yields those that may be mounted.
fn filesystems(fish: &mut Fish) -> Result<Vec<String>> {
    let text = wanted(fish, &["list-filesystems"])?;
    let all: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once(": ")).collect();
    let real: Vec<_> = all.iter().filter(|(_, kind)| *kind != "unknown").collect();
    for (device, kind) in real.iter().take(LINES) {
        let label = fact(fish, &["vfs-label", device])?;
        let label = label.map(|label| format!(" {label:?}")).unwrap_or_default();
        let bytes = fact(fish, &["blockdev-getsize64", device])?;
        let size = bytes.and_then(|bytes| bytes.parse().ok()).map(mebibytes).unwrap_or_default();
        say("Found", &format!("{device}: {kind}{label}{size}"));
    }
    if real.len() > LINES {
        say("", &format!("and {} more", real.len() - LINES));
    }
    if real.is_empty() {
        let table = fish.ask(&["part-get-parttype", DISK])?;
        let table = table.map_or("no partition table".into(), |name| {
            format!("a partition table ({})", name.trim())
        });
        say("Found", &format!("{DISK}: {table}, no filesystem"));
    }
    let mountable = real.iter().filter(|(_, kind)| *kind != "swap");
    Ok(mountable.map(|(device, _)| (*device).to_owned()).collect())
}

fn mebibytes(bytes: u64) -> String {
    format!(", {} MiB", bytes.div_ceil(1 << 20))
}

/// Shows the operating systems, and mounts the first; whether there is one.
fn system(fish: &mut Fish) -> Result<bool> {
    let roots = match fish.ask(&["inspect-os"])? {
        Ok(roots) => roots,
        Err(error) => {
            say("System", &format!("cannot be told: {error}"));
            return Ok(false);
        }
    };
    for root in roots.lines().take(LINES) {
        let mut get = |what: &str| fact(fish, &[&format!("inspect-get-{what}"), root]);
        let name = get("product-name")?.unwrap_or_else(|| "without a name".into());
        say("System", &format!("{root}: {name}"));
        let mut about = vec![get("type")?.unwrap_or_else(|| "of unknown type".into())];
        about.push(match get("distro")? {
            Some(distro) => format!("distribution {distro}"),
            None => "no distribution that libguestfs knows".into(),
        });
        about.extend(get("arch")?);
        about.extend(get("hostname")?.map(|name| format!("host name {name}")));
        say("", &about.join(", "));
    }
    let Some(root) = roots.lines().next() else {
        say("System", "none: no operating system that libguestfs knows is in this image");
        return Ok(false);
    };
    let text = wanted(fish, &["inspect-get-mountpoints", root])?;
    // Each before what is mounted below it.
    let mut points: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.split_once(": ")).collect();
    points.sort_by_key(|(point, _)| point.len());
    for (point, device) in points {
        match fish.ask(&["mount-ro", device, point])? {
            Ok(_) => say("Mounted", &format!("{device} on {point}")),
            Err(error) => say("", &format!("not mounted: {error}")),
        }
    }
    Ok(!wanted(fish, &["mountpoints"])?.is_empty())
}

/// Mounts what the first half had, or else what can be; whether there is any.
fn mount_one(fish: &mut Fish, seen: &Seen, filesystems: &[String]) -> Result<bool> {
    for device in seen.device.iter().chain(filesystems) {
        if fish.ask(&["mount-ro", device, "/"])?.is_ok() {
            say("Mounted", &format!("{device} on /"));
            return Ok(true);
        }
    }
    Ok(false)
}

/// Shows what the root directory holds.
fn list(fish: &mut Fish) -> Result<()> {
    let names = wanted(fish, &["ls", "/"])?;
    let names: Vec<&str> = names.lines().collect();
    let more = if names.len() > 2 * LINES { " ..." } else { "" };
    say("", &format!("{}{more}", names[..names.len().min(2 * LINES)].join(" ")));
    Ok(())
}

/// Compares the files of what is mounted with what the first half saw.
fn compare(fish: &mut Fish, device: &str, sums: &[(String, String)]) -> Result<()> {
    let start = Instant::now();
    let mut differ = Vec::new();
    let compared = &sums[..sums.len().min(SUMS)];
    for (path, sum) in compared {
        match fish.ask(&["checksum", "sha256", path])? {
            Ok(now) if now.trim() == sum => {}
            Ok(now) => differ.push(format!("{path}: sha256 {}, not {sum}", now.trim())),
            Err(error) => differ.push(format!("{path}: {error}")),
        }
    }
    if let Some(first) = differ.first() {
        bail!("{} of {} files are not what the disk had: {first}", differ.len(), compared.len());
    }
    let count = compared.len();
    let took = seconds(start.elapsed());
    say(
        "Same",
        &format!(
            "{count} files of {device}, each with the sha256 that it had on the LUN, in {took}"
        ),
    );
    // Evenly from all over.
    for (path, sum) in compared.iter().step_by((count / SHOWN).max(1)).take(SHOWN) {
        say("", &format!("{}... {path}", &sum[..16]));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_first_half_left_is_read() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Seen::read(dir.path()), Seen::default());
        let sum = "0".repeat(64);
        let sums = format!("{sum}  ./a b\n\\{sum}  ./with\\nnewline\nnonsense\n");
        for (name, text) in [("types", "ext4\nswap\n"), ("device", "1\n"), ("sums", &sums)] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let seen = Seen::read(dir.path());
        assert_eq!(seen.types, ["ext4", "swap"]);
        assert_eq!(seen.device.as_deref(), Some("/dev/sda1"));
        assert_eq!(seen.sums, [("/a b".to_owned(), sum)]);
        // The whole disk.
        fs::write(dir.path().join("device"), "\n").unwrap();
        assert_eq!(Seen::read(dir.path()).device.as_deref(), Some(DISK));
    }

    #[test]
    fn what_no_kernel_mounts_is_known() {
        assert!(kernel_has("swap"));
        assert!(kernel_has("proc"));
        assert!(!kernel_has("LVM2_member"));
    }
}
