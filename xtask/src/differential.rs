//! The scripts of `tests/guestfs`, run by the unmodified guestfish against the distribution's daemon
//! and ours, with no VM: what the calls return and print is compared line by line.
//!
//! What is right to differ stands in `NAME.differs` beside `NAME.fish`: lines of the distribution's
//! daemon (`-`) and of ours (`+`), and why (`#`). Texts of errors are not compared, that there is one is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run;
use crate::test::Count;

/// In seconds, for one script against one daemon.
const TIMEOUT: &str = "300";

/// Runs all scripts; with `UPDATE_DIFFERS` in the environment, notes what differs instead.
pub(crate) fn main() -> Result<Count> {
    let stock = run::find_program("guestfsd")
        .context("the distribution's guestfsd is missing: apt-get install guestfsd")?;
    let packages = ["build", "-p", "guestfsd", "-p", "guestfs-novm"];
    run::run(&mut run::cargo(packages))?;
    let built = run::target_dir()?.join("debug");
    let scripts = run::root().join("tests/guestfs");
    let mut count = Count::default();
    let mut names: Vec<PathBuf> = fs::read_dir(&scripts)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "fish"))
        .collect();
    names.sort();
    if names.is_empty() {
        bail!("{} has no scripts", scripts.display());
    }
    for script in names {
        let name = script.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let good = compare(&script, &built, &stock).unwrap_or_else(|error| {
            println!("guestfs: {name}: {error:#}");
            false
        });
        println!("guestfs: {} {name}", if good { "ok" } else { "FAIL" });
        count.add(Count::of(good));
        run::check_interrupt()?;
    }
    Ok(count)
}

/// Whether both daemons do the same, but for what may differ.
fn compare(script: &Path, built: &Path, stock: &Path) -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let (theirs, ours) = (dir.path().join("stock"), dir.path().join("ours"));
    fs::write(&theirs, answers(script, built, stock)?)?;
    fs::write(&ours, answers(script, built, &built.join("guestfsd"))?)?;
    let mut diff = Command::new("diff");
    diff.args(["-a", "-U0"]).args([&theirs, &ours]);
    let output = diff.output().context("diff")?;
    let differences: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .skip(2)
        .filter(|line| line.starts_with(['-', '+']))
        .map(str::to_owned)
        .collect();
    let note = script.with_extension("differs");
    if std::env::var_os("UPDATE_DIFFERS").is_some() {
        let text: String = differences.iter().map(|line| format!("{line}\n")).collect();
        if text.is_empty() {
            fs::remove_file(&note).ok()
        } else {
            Some(fs::write(&note, text)?)
        };
        return Ok(true);
    }
    let noted = fs::read_to_string(&note).unwrap_or_default();
    let noted: Vec<&str> = noted.lines().filter(|line| line.starts_with(['-', '+'])).collect();
    if differences == noted {
        return Ok(true);
    }
    println!(
        "guestfs: - {}, + ours; `!` stands for what is noted in {}",
        stock.display(),
        note.display()
    );
    for line in &differences {
        let known = noted.contains(&line.as_str());
        println!("guestfs: {}{line}", if known { "! " } else { "  " });
    }
    for line in noted.iter().filter(|line| !differences.iter().any(|d| d == *line)) {
        println!("guestfs: no longer so: {line}");
    }
    Ok(false)
}

/// What guestfish prints: each call, its result, and its output.
fn answers(script: &Path, built: &Path, daemon: &Path) -> Result<String> {
    let text = fs::read_to_string(script)?;
    let disks = text.lines().find_map(|line| line.strip_prefix("# disks: "));
    let disks =
        disks.with_context(|| format!("{} has no line `# disks: SIZE...`", script.display()))?;
    let dir = tempfile::tempdir()?;
    let mut arguments = vec!["-x".to_owned()];
    for (i, size) in disks.split_whitespace().enumerate() {
        let disk = dir.path().join(format!("disk{i}"));
        run::run(Command::new("truncate").args(["-s", size]).arg(&disk))?;
        arguments.extend(["--format=raw".into(), "-a".into(), disk.to_string_lossy().into_owned()]);
    }
    let output = Command::new("timeout")
        .arg(TIMEOUT)
        .arg(built.join("guestfs-novm"))
        .arg("--guestfsd")
        .arg(daemon)
        .args(["--instant", "--", "guestfish"])
        .args(&arguments)
        .arg("-f")
        .arg(script)
        .current_dir(dir.path())
        .envs([("LC_ALL", "C.UTF-8"), ("TZ", "UTC")])
        .output()?;
    let (traces, printed) =
        (String::from_utf8_lossy(&output.stderr), String::from_utf8_lossy(&output.stdout));
    if output.status.code() == Some(124) {
        bail!("not at its end after {TIMEOUT} s against {}: {traces}", daemon.display());
    }
    let Some((_, calls)) = traces.split_once("libguestfs: trace: launch = 0\n") else {
        bail!("{} was not launched: {traces}", daemon.display());
    };
    // The order of a directory's entries depends on a random number in the filesystem.
    let is_unordered = |line: &str| line.contains("trace: readdir = <struct");
    let calls = calls.lines().filter(|line| line.starts_with("libguestfs: trace: "));
    let calls = calls.filter(|line| !is_unordered(line));
    let mut kept = String::new();
    for line in calls.chain(printed.lines()) {
        let line = line.replace(&*dir.path().to_string_lossy(), "DIR");
        kept += &without_times(&without_temporary_names(&line));
        kept.push('\n');
    }
    kept += &format!("{}\n", output.status);
    Ok(kept)
}

/// Replaces values that differ from run to run: inodes and times in structures, UUIDs in texts.
fn without_times(line: &str) -> String {
    let volatile = |name: &str| {
        let name = name.trim_start_matches("st_");
        name == "ino" || ["atime", "mtime", "ctime"].iter().any(|time| name.starts_with(time))
    };
    let mut kept = String::new();
    let mut after_volatile = false;
    for word in line.split_inclusive(' ') {
        let bare = word.trim_end_matches([' ', ',']);
        if after_volatile && bare.parse::<i64>().is_ok() {
            kept += &word.replace(bare, "N");
        } else if word.starts_with("UUID=") {
            kept += "UUID=N ";
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

#[cfg(test)]
mod tests {
    use super::{without_temporary_names, without_times};

    #[test]
    fn inodes_and_times_do_not_count_and_other_numbers_do() {
        assert_eq!(
            without_times("[0]{st_ino: 12, st_mode: 33188, st_mtime_sec: 17, st_mtime_nsec: 5, }"),
            "[0]{st_ino: N, st_mode: 33188, st_mtime_sec: N, st_mtime_nsec: N, }"
        );
        assert_eq!(without_times("  st_mtime_sec: 1795349541"), "  st_mtime_sec: N");
        assert_eq!(without_times("size: 3"), "size: 3");
    }

    #[test]
    fn names_that_differ_from_run_to_run_do_not_count() {
        assert_eq!(
            without_temporary_names("find0 \"/a\" \"/tmp/libguestfswNdIXc/find3.txt\" 0"),
            "find0 \"/a\" \"TEMPORARY\" 0"
        );
        assert_eq!(without_temporary_names("\"/tmp/guestfishX1\" to /x"), "\"TEMPORARY\" to /x");
        assert_eq!(without_temporary_names("plain /tmp/x"), "plain /tmp/x");
    }
}
