// SPDX-License-Identifier: Apache-2.0
//! The main job, to look at, in two halves: a disk image becomes a disk of a real kernel, with our
//! daemon between them; then the same image is opened by the unmodified guestfish, with our other
//! daemon and no VM ([`files`]). The image stays as it is: writes go to a throw-away overlay.

mod files;
mod fish;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::install::{self, For};
use crate::run::{self, Build};
use crate::vm;

/// Options of `cargo xtask demo`.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// A disk image of any format that qemu-img knows; default: one with an ext4, made on the spot
    image: Option<PathBuf>,
    /// Another daemon: a command line
    #[arg(long, value_name = "COMMAND")]
    daemon: Option<String>,
}

/// What the guest serves.
struct Image {
    path: PathBuf,
    /// As qemu-img calls it.
    format: String,
    /// The sha256 of its files, where they are known.
    sums: Option<PathBuf>,
}

/// The subcommand.
pub(crate) fn main(options: &Options) -> Result<ExitCode> {
    // What is asked for is looked at first: a wrong name should not cost a build.
    if let Some(path) = &options.image {
        std::fs::File::open(path)
            .with_context(|| format!("cannot open the image {}", path.display()))?;
        if !path.metadata()?.is_file() {
            bail!("{} is not a file", path.display());
        }
    }
    // The build needs none of the packages: it runs while they are installed.
    let packages: &[&str] = match &options.daemon {
        Some(_) => &["guestfsd", "guestfs-novm"],
        None => &["tcmu-runner", "guestfsd", "guestfs-novm"],
    };
    let start = Instant::now();
    let build = Build::start(run::SOON, packages)?;
    say("Build", build.line());
    install::ensure(&[For::Vm, For::Luns, For::Files])?;
    let dir = tempfile::Builder::new().prefix("lunette-demo.").tempdir()?;
    let image = match &options.image {
        Some(path) => given(path, dir.path())?,
        None => made(dir.path())?,
    };
    let programs = build.finish()?;
    say("", &format!("done after {:.0} s", start.elapsed().as_secs_f64()));
    let ours = || programs.join("tcmu-runner").to_string_lossy().into_owned();
    let daemon = options.daemon.clone().unwrap_or_else(ours);
    say("VM", "booting this machine's own kernel in QEMU; without KVM this takes some 10 s");
    let script = run::root().join("xtask/guest/demo.sh");
    let mut words = vec![
        script.to_string_lossy().into_owned(),
        daemon,
        image.path.to_string_lossy().into_owned(),
        image.format.clone(),
    ];
    words.extend(image.sums.as_ref().map(|sums| sums.to_string_lossy().into_owned()));
    let seen = dir.path().join("seen");
    let status = vm::main(vm::Options { share: Some(seen.clone()), ..vm::Options::new(words) })?;
    if status == ExitCode::SUCCESS {
        files::show(&image, &files::Seen::read(&seen), &programs)?;
    }
    Ok(status)
}

fn say(what: &str, text: &str) {
    println!("{what:<10} {text}");
}

/// An image of the user's; of a format that is no backing file of ours it is converted first.
fn given(path: &Path, dir: &Path) -> Result<Image> {
    let path = std::fs::canonicalize(path)?;
    let info = info(&path)?;
    if info.bytes < 512 {
        bail!("{} holds no block of 512 bytes", path.display());
    }
    say("Image", &info.describe(&path));
    if ["qcow2", "raw"].contains(&info.format.as_str()) {
        return Ok(Image { path, format: info.format, sums: None });
    }
    say("", "converted to qcow2 first");
    let converted = dir.join("converted.qcow2");
    let mut convert = Command::new("qemu-img");
    run::run(
        convert.args(["convert", "-f", &info.format, "-O", "qcow2"]).args([&path, &converted]),
    )?;
    Ok(Image { path: converted, format: "qcow2".into(), sums: None })
}

/// Files that make a filesystem look like an operating system's; it says itself that it is none.
const SYSTEM: [(&str, &str); 3] = [
    (
        "etc/os-release",
        "ID=lunette-demo\nNAME=\"Lunette demo\"\nVERSION_ID=1.0\n\
         PRETTY_NAME=\"Lunette demo 1.0 (a shell and sources; it does not boot)\"\n",
    ),
    ("etc/fstab", "LABEL=lunette-demo / ext4 defaults 0 1\n"),
    ("etc/hostname", "lunette-demo\n"),
];

/// A qcow2 image with an ext4 that holds a little system, and this workspace's sources.
fn made(dir: &Path) -> Result<Image> {
    let (tree, raw, path) = (dir.join("tree"), dir.join("raw.img"), dir.join("demo.qcow2"));
    let sources = tree.join("usr/src/lunette");
    for dir in [&sources, &tree.join("bin"), &tree.join("etc")] {
        std::fs::create_dir_all(dir)?;
    }
    for part in ["crates", "tests", "Cargo.toml", "Cargo.lock", "LICENSE"] {
        let from = run::root().join(part);
        run::run(Command::new("cp").arg("-r").args([&from, &sources]))?;
    }
    for (name, text) in SYSTEM {
        std::fs::write(tree.join(name), text)?;
    }
    let shell = vm::static_busybox().context("no static busybox")?;
    std::fs::copy(shell, tree.join("bin/sh"))?;
    let listed = Command::new("find")
        .args([".", "-type", "f", "-exec", "sha256sum", "{}", "+"])
        .current_dir(&tree)
        .output()?;
    let sums = dir.join("sums");
    std::fs::write(&sums, listed.stdout)?;
    let mut mkfs = run::command("mkfs.ext4");
    std::fs::File::create(&raw)?.set_len(256 << 20)?;
    mkfs.args(["-q", "-F", "-L", "lunette-demo", "-d"]).arg(&tree).arg(&raw);
    run::run(&mut mkfs)?;
    let mut convert = Command::new("qemu-img");
    run::run(convert.args(["convert", "-f", "raw", "-O", "qcow2"]).args([&raw, &path]))?;
    std::fs::remove_file(&raw)?;
    say("Image", &format!("{}, made with an ext4 in it", info(&path)?.describe(&path)));
    Ok(Image { path, format: "qcow2".into(), sums: Some(sums) })
}

/// What `qemu-img info` says of an image.
#[derive(Debug, PartialEq, Eq)]
struct Info {
    format: String,
    bytes: u64,
    on_disk: u64,
}

impl Info {
    fn describe(&self, path: &Path) -> String {
        let mib = |bytes: u64| bytes.div_ceil(1 << 20);
        let (size, on_disk) = (mib(self.bytes), mib(self.on_disk));
        format!("{}: {}, {size} MiB, {on_disk} MiB on disk", path.display(), self.format)
    }
}

fn info(path: &Path) -> Result<Info> {
    let text =
        run::output(Command::new("qemu-img").args(["info", "-U", "--output=json"]).arg(path))?;
    parse_info(&text).with_context(|| format!("qemu-img info {}", path.display()))
}

fn parse_info(text: &str) -> Result<Info> {
    let json: serde_json::Value = serde_json::from_str(text)?;
    Ok(Info {
        format: json["format"].as_str().context("no format")?.to_owned(),
        bytes: json["virtual-size"].as_u64().context("no virtual-size")?,
        on_disk: json["actual-size"].as_u64().unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn qemu_img_tells_format_and_size() {
        let text = r#"{"virtual-size": 268435456, "filename": "x", "format": "qcow2",
            "actual-size": 1118208, "dirty-flag": false}"#;
        let want = Info { format: "qcow2".into(), bytes: 268_435_456, on_disk: 1_118_208 };
        assert_eq!(parse_info(text).unwrap(), want);
        let line = want.describe(Path::new("/i"));
        assert_eq!(line, "/i: qcow2, 256 MiB, 2 MiB on disk");
    }

    #[test]
    fn what_qemu_img_does_not_say_is_an_error() {
        assert!(parse_info("{}").is_err());
        assert!(parse_info("nonsense").is_err());
    }
}
