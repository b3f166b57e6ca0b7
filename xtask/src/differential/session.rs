// SPDX-License-Identifier: Apache-2.0
//! One script in a session of guestfish: what it prints, less what differs from run to run.

use std::fmt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{Script, dynamic_disk};
use crate::run;

/// A daemon, and what runs it.
pub(super) enum Daemon {
    /// With no VM: directory of `guestfs-novm`, and the daemon.
    NoVm(PathBuf, PathBuf),
    /// In QEMU: directory of the appliance, and whether KVM works.
    Vm(PathBuf, bool),
}

impl Daemon {
    /// What comes before the arguments of guestfish.
    fn guestfish(&self, uml: bool) -> Command {
        let mut command = Command::new("timeout");
        // A client that ends by itself cleans up behind it.
        command.args(["--kill-after=20", self.timeout()]);
        match self {
            Daemon::NoVm(built, daemon) => {
                command.arg(built.join("guestfs-novm")).arg("--guestfsd").arg(daemon);
                command.args([if uml { "--uml" } else { "--instant" }, "--", "guestfish"]);
            }
            Daemon::Vm(appliance, kvm) => {
                command.arg("guestfish").env_remove("LIBGUESTFS_HV");
                command.env("LIBGUESTFS_BACKEND", "direct").env("LIBGUESTFS_PATH", appliance);
                let settings = if *kvm { "" } else { "force_tcg" };
                command.env("LIBGUESTFS_BACKEND_SETTINGS", settings);
            }
        }
        command
    }

    /// In seconds, for one script.
    fn timeout(&self) -> &'static str {
        match self {
            Daemon::NoVm(..) => "900",
            Daemon::Vm(..) => "1200",
        }
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Daemon::NoVm(_, path) | Daemon::Vm(path, _) => write!(f, "{}", path.display()),
        }
    }
}

/// What a session answered.
pub(super) struct Answers {
    /// Calls with their results, and what was printed, without what is another each time.
    pub(super) calls: String,
    /// Texts of errors, which are not compared.
    pub(super) errors: String,
}

/// What guestfish prints: each call, its result, and its output.
pub(super) fn answers(script: &Script, daemon: &Daemon) -> Result<Answers> {
    let dir = tempfile::tempdir()?;
    // A key stands in the line after its call.
    let mut arguments = vec!["-x".to_owned(), "--keys-from-stdin".to_owned()];
    for (i, size) in script.disks.iter().enumerate() {
        let disk = dir.path().join(format!("disk{i}"));
        match size.strip_prefix("ldm:") {
            Some(number) => {
                let image = number.parse().ok().and_then(dynamic_disk::image);
                std::fs::write(&disk, image.with_context(|| format!("no disk {size}"))?)?;
            }
            None => run::run(Command::new("truncate").args(["-s", size]).arg(&disk))?,
        }
        arguments.extend(["--format=raw".into(), "-a".into(), disk.to_string_lossy().into_owned()]);
    }
    let commands = dir.path().join("commands");
    std::fs::write(&commands, &script.text)?;
    let output = daemon
        .guestfish(script.uml)
        .args(&arguments)
        .arg("-f")
        .arg(commands)
        .current_dir(dir.path())
        .envs([("LC_ALL", "C.UTF-8"), ("TZ", "UTC")])
        .output()?;
    let (traces, printed) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    if output.status.code() == Some(124) {
        bail!("not at its end after {} s against {daemon}: {traces}", daemon.timeout());
    }
    let Some((_, calls)) = traces.split_once("libguestfs: trace: launch = 0\n") else {
        bail!("{daemon} was not launched: {traces}");
    };
    if !output.status.success() {
        bail!("{daemon} ended before its end: {}", reasons(&traces));
    }
    // The order of a directory's entries depends on a random number in the filesystem.
    let is_unordered = |line: &str| line.contains("trace: readdir = <struct");
    let errors = calls.lines().filter(|line| line.contains("libguestfs: error: "));
    let errors = errors.map(|line| format!("{line}\n")).collect();
    let calls = calls.lines().filter(|line| line.starts_with("libguestfs: trace: "));
    let calls = calls.filter(|line| !is_unordered(line));
    let mut kept = String::new();
    for line in calls.chain(printed.lines()) {
        let mut line = line.replace(&*dir.path().to_string_lossy(), "DIR");
        if matches!(daemon, Daemon::Vm(..)) {
            line = without_device_name(line);
        }
        let line = without_loops(&without_times(&without_temporary_names(&line)));
        kept += &without_volume_ids(&line);
        kept.push('\n');
    }
    Ok(Answers { calls: kept, errors })
}

/// Why a session ended: the last error of a call, and what guestfs-novm said, which has lines of its own.
fn reasons(errors: &str) -> String {
    let mut lines: Vec<&str> = errors.lines().rfind(|l| l.contains("error:")).into_iter().collect();
    let mut is_told = false;
    for line in errors.lines() {
        is_told = line.starts_with("guestfs-novm: ") || (is_told && line.starts_with("  "));
        lines.extend(is_told.then_some(line));
    }
    lines.join("\n")
}

/// Replaces the name that blkid tells, in what the call returns and in what is printed: the kernel of a VM finds
/// disks in any order, and the distribution's daemon tells its names here.
fn without_device_name(mut line: String) -> String {
    for before in ["[\"DEVNAME\", \"", "DEVNAME: "] {
        if let Some(begin) = line.find(before).map(|at| at + before.len()) {
            let end = line[begin..].find('"').map_or(line.len(), |len| begin + len);
            line.replace_range(begin..end, "N");
        }
    }
    line
}

/// How file(1) ends a number of bytes of a btrfs, and their size.
const USED: &str = " bytes used, 1 devices";

/// Replaces values that differ from run to run: inodes and times in structures, UUIDs in texts, and how
/// much btrfs has written until it is looked at.
fn without_times(line: &str) -> String {
    let volatile = |name: &str| {
        let name = ["st_", "tsk_"].iter().find_map(|p| name.strip_prefix(p)).unwrap_or(name);
        ["dev", "ino"].contains(&name)
            || ["atime", "mtime", "ctime", "crtime"].iter().any(|time| name.starts_with(time))
    };
    let mut kept = String::new();
    let mut after_volatile = false;
    for word in line.split_inclusive(' ') {
        let bare = word.trim_end_matches([' ', ',']);
        if after_volatile && bare.parse::<i64>().is_ok() {
            kept += &word.replace(bare, "N");
        } else if word.starts_with("UUID=") {
            kept += "UUID=N ";
        } else if kept.ends_with("serial number ") {
            // Of FAT, made from the time.
            kept += "N, ";
        } else if let Some((_, size)) = word.split_once('/').filter(|_| line.contains(USED)) {
            kept += &format!("N/{size}");
        } else {
            kept += word;
        }
        let name = word.trim_end().trim_end_matches(':').rsplit(['{', '<']).next();
        after_volatile = word.trim_end().ends_with(':') && name.is_some_and(volatile);
    }
    kept
}

/// Replaces names that the client makes up below /tmp.
fn without_temporary_names(line: &str) -> String {
    let mut pieces = line.split("/tmp/guestfish").flat_map(|piece| piece.split("/tmp/libguestfs"));
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        kept += "TEMPORARY";
        kept += piece.trim_start_matches(|c: char| c.is_ascii_alphanumeric() || "/.".contains(c));
    }
    kept
}

/// Replaces UUIDs of LVM, which are random: in structures without their dashes.
fn without_volume_ids(line: &str) -> String {
    let dashes = |word: &str| word.split('-').map(str::len).eq([6, 4, 4, 4, 4, 4, 6]);
    let mut kept = String::new();
    for piece in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric() && c != '-') {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let in_structure = word.len() == 32 && kept.ends_with("_uuid: ");
        kept +=
            &if dashes(word) || in_structure { piece.replace(word, "ID") } else { piece.into() };
    }
    kept
}

/// Replaces numbers of loop devices, which are the machine's and not the guest's.
fn without_loops(line: &str) -> String {
    let mut pieces = line.split("/dev/loop");
    let mut kept = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        kept += "/dev/loopN";
        kept += piece.trim_start_matches(|c: char| c.is_ascii_digit());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::{
        reasons, without_device_name, without_loops, without_temporary_names, without_times,
        without_volume_ids,
    };

    #[test]
    fn the_reasons_of_an_end_are_the_last_error_and_all_that_guestfs_novm_said() {
        let errors = "libguestfs: error: one\n  text\nguestfs-novm: it broke off:\n  a\n  b\nx\n\
                      libguestfs: error: two\n  text";
        let reasons = reasons(errors);
        assert_eq!(reasons, "libguestfs: error: two\nguestfs-novm: it broke off:\n  a\n  b");
    }

    #[test]
    fn uuids_of_lvm_do_not_count_and_other_names_do() {
        assert_eq!(
            without_volume_ids("pvuuid = \"1bcdef-Ghij-klmn-opqr-stuv-wxyz-ABCDEF\""),
            "pvuuid = \"ID\""
        );
        assert_eq!(
            without_volume_ids("{pv_uuid: 1bcdefGhijklmnopqrstuvwxyzABCDEF, pv_fmt: lvm2, }"),
            "{pv_uuid: ID, pv_fmt: lvm2, }"
        );
        for line in ["a-b: 1bcdefGhijklmnopqrstuvwxyzABCDEF", "/dev/my-vg/a-b-c-d-e-f-g", "uuid: x"]
        {
            assert_eq!(without_volume_ids(line), line);
        }
    }

    #[test]
    fn inodes_and_times_do_not_count_and_other_numbers_do() {
        assert_eq!(
            without_times(
                "[0]{st_dev: 7, st_ino: 12, st_mode: 33188, st_mtime_sec: 17, st_mtime_nsec: 5, }"
            ),
            "[0]{st_dev: N, st_ino: N, st_mode: 33188, st_mtime_sec: N, st_mtime_nsec: N, }"
        );
        assert_eq!(without_times("  st_mtime_sec: 1795349541"), "  st_mtime_sec: N");
        assert_eq!(without_times("size: 3"), "size: 3");
        assert_eq!(
            without_times("tsk_crtime_sec: 7, tsk_inode: 7, "),
            "tsk_crtime_sec: N, tsk_inode: 7, "
        );
        assert_eq!(without_times("x, serial number 0x17, y"), "x, serial number N, y");
        assert_eq!(
            without_times("UUID=1 7/419 bytes used, 1 devices"),
            "UUID=N N/419 bytes used, 1 devices"
        );
    }

    #[test]
    fn names_that_differ_from_run_to_run_do_not_count() {
        assert_eq!(
            without_device_name("blkid = [\"DEVNAME\", \"/dev/sde\", \"TYPE\"]".to_owned()),
            "blkid = [\"DEVNAME\", \"N\", \"TYPE\"]"
        );
        assert_eq!(without_device_name("DEVNAME: /dev/sde".to_owned()), "DEVNAME: N");
        assert_eq!(
            without_temporary_names("find0 \"/a\" \"/tmp/libguestfswNdIXc/find3.txt\" 0"),
            "find0 \"/a\" \"TEMPORARY\" 0"
        );
        assert_eq!(without_temporary_names("\"/tmp/guestfishX1\" to /x"), "\"TEMPORARY\" to /x");
        assert_eq!(without_temporary_names("plain /tmp/x"), "plain /tmp/x");
        assert_eq!(
            without_loops("[\"/dev/loop12\", \"/dev/sda\"]"),
            "[\"/dev/loopN\", \"/dev/sda\"]"
        );
    }
}
