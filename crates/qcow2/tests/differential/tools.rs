// SPDX-License-Identifier: Apache-2.0
//! QEMU's programs on an image, which has to be without errors for them.
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// The passphrase of encrypted images.
pub(crate) const PASSPHRASE: &str = "correct horse";

/// Options of a program of QEMU's that name the passphrase.
const SECRET: [&str; 2] = ["--object", "secret,id=s,data=correct horse"];

/// Runs a program, with what it reads from its standard input. Returns whether it succeeded, and
/// all that it said.
fn run(directory: &Path, program: &str, args: &[&str], input: &str) -> (bool, String) {
    let mut command = Command::new(program);
    command.args(args).current_dir(directory);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = child.unwrap_or_else(|e| panic!("{program}: {e}; install qemu-utils"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    (output.status.success(), text.concat())
}

/// `qemu-img` with these arguments in a directory; `Err` has what it says when it fails.
pub(crate) fn qemu_img(directory: &Path, args: &[&str]) -> Result<String, String> {
    let (good, text) = run(directory, "qemu-img", args, "");
    if good { Ok(text) } else { Err(text) }
}

/// How the image at `path` is named to QEMU.
pub(crate) fn named(path: &Path, data_file: bool, encrypted: bool) -> String {
    let mut name = format!("driver=qcow2,discard=unmap,file.filename={}", path.display());
    if data_file {
        let data = path.with_file_name("data");
        name += &format!(",data-file.driver=file,data-file.filename={}", data.display());
    }
    if encrypted {
        name += ",encrypt.format=luks,encrypt.key-secret=s";
    }
    name
}

/// A subcommand of `qemu-img` that looks at images, whose names are those of [`named`].
pub(crate) fn look(directory: &Path, subcommand: &[&str], images: &[&str]) -> String {
    let args = [subcommand, &SECRET, &["--image-opts"], images].concat();
    qemu_img(directory, &args).unwrap_or_else(|text| panic!("qemu-img {args:?}: {text}"))
}

/// A session of `qemu-io` on an image with a name of [`named`]. All commands have to succeed.
pub(crate) fn qemu_io(directory: &Path, image: &str, commands: &[String]) {
    let args = [&SECRET[..], &["--image-opts", image]].concat();
    let (good, text) = run(directory, "qemu-io", &args, &(commands.join("\n") + "\n"));
    let bad = ["failed", "rror", "not found", "verification", "nvalid"];
    let fine = good && !bad.iter().any(|word| text.contains(word));
    assert!(fine, "qemu-io {image}: {text}\nafter {commands:#?}");
}
