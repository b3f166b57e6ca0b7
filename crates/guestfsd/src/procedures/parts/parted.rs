// SPDX-License-Identifier: Apache-2.0
//! The program parted: it knows tables that we do not, and changes all of them.

use crate::devices::Device;
use crate::tool::Tool;
use guest_error::{Errno, Error, Result};
use std::ffi::OsStr;
use std::path::Path;

/// What parted says of a disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listing {
    /// Its name of the kind of table; `loop` for a filesystem on the whole disk.
    pub(super) label: String,
    pub(super) partitions: Vec<Listed>,
}

/// A partition as parted shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) number: u32,
    /// First byte.
    pub(super) start: u64,
    /// Last byte.
    pub(super) end: u64,
    pub(super) name: String,
    pub(super) flags: String,
}

/// Runs parted on a disk; its messages have the client's name for the disk.
pub(super) fn run<A: AsRef<OsStr>>(
    device: &Device,
    command: impl IntoIterator<Item = A>,
) -> Result<Vec<u8>> {
    let tool = Tool::new("parted").args(["-m", "-s", "--"]).arg(device.path()).args(command);
    tool.output().map_err(|e| named(e, device))
}

/// Has parted move the end of a partition down, which it asks about.
pub(super) fn shrink(device: &Device, number: u32, end: &str) -> Result<()> {
    let tool = Tool::new("parted").args(["-m", "---pretend-input-tty", "--"]).arg(device.path());
    let tool = tool.args(["resizepart", &number.to_string(), end]);
    // One answer: that data may be lost. Of a partition that is in use it asks more, and fails.
    let done = tool.run_with(&mut &b"Yes\n"[..], None)?.success();
    done.map(drop).map_err(|e| named(e, device))
}

/// A program's error with the client's name of the device.
pub(super) fn named(e: Error, device: &Device) -> Error {
    let name = device.name().to_string_lossy();
    let text = e.message().replace(&*device.path().to_string_lossy(), &name);
    let e = Error::new(e.errno(), text);
    if e.message().contains(&*name) { e } else { e.within(device) }
}

/// What parted says of a disk.
pub(super) fn list(device: &Device) -> Result<Listing> {
    let text = run(device, ["unit", "b", "print"])?;
    parse(&String::from_utf8_lossy(&text)).ok_or_else(|| {
        Error::new(Errno::EIO, "parted: its answer is not understood").within(device)
    })
}

/// ```text
/// BYT;
/// /dev/sda:67108864B:scsi:512:512:gpt:QEMU HARDDISK:;
/// 1:65536B:67043839B:66978304B:ext4:name:boot, esp;
/// ```
fn parse(text: &str) -> Option<Listing> {
    let mut lines = text.lines().skip_while(|l| *l != "BYT;").skip(1);
    let label = fields(lines.next()?).into_iter().nth(5)?;
    let partitions = lines.map(|line| {
        let mut f = fields(line).into_iter();
        let number = f.next()?.parse().ok()?;
        let mut bytes = || f.next()?.strip_suffix('B')?.parse().ok();
        let (start, end) = (bytes()?, bytes()?);
        let (name, flags) = (f.nth(2)?, f.next()?);
        Some(Listed { number, start, end, name, flags })
    });
    Some(Listing { label, partitions: partitions.collect::<Option<_>>()? })
}

/// Fields between colons; a backslash has what follows stand for itself.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.strip_suffix(';').unwrap_or(line).chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => fields.push(String::new()),
            c => {
                let c = if c == '\\' { chars.next() } else { Some(c) };
                if let Some(field) = fields.last_mut() {
                    field.extend(c);
                }
            }
        }
    }
    fields
}

/// A name as parted's own language has it.
pub(super) fn quoted(name: &str) -> String {
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

/// Text with this machine's names of a disk and its partitions replaced by the client's.
pub(super) fn with_client_names(
    text: &str,
    disk: &Path,
    mut client: impl FnMut(&Path) -> String,
) -> String {
    let disk = disk.to_string_lossy();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&*disk) {
        let (before, found) = rest.split_at(at);
        let end = found.find(|c: char| !c.is_ascii_alphanumeric() && c != '/');
        let (name, after) = found.split_at(end.unwrap_or(found.len()).max(disk.len()));
        out.push_str(before);
        out.push_str(&client(Path::new(name)));
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn partitions_are_read_from_what_parted_prints() {
        let text = "BYT;\n/dev/sda:67108864B:scsi:512:512:gpt:QEMU\\: HARDDISK:;\n\
                    1:65536B:67043839B:66978304B:ext4:a\\:b\\\\:boot, esp;\n";
        let listing = parse(text).unwrap();
        assert_eq!(listing.label, "gpt");
        let partition = Listed {
            number: 1,
            start: 65536,
            end: 67_043_839,
            name: "a:b\\".into(),
            flags: "boot, esp".into(),
        };
        assert_eq!(listing.partitions, [partition]);
    }

    #[test]
    fn names_of_the_machine_become_the_clients() {
        let text = "Disk /dev/loop3: 1 MiB\n/dev/loop3p12 x\n/dev/loop3";
        let client = |p: &Path| p.to_str().unwrap().replace("/dev/loop3", "/dev/sda");
        let out = with_client_names(text, Path::new("/dev/loop3"), client);
        assert_eq!(out, "Disk /dev/sda: 1 MiB\n/dev/sdap12 x\n/dev/sda");
    }

    proptest! {
        #[test]
        fn any_answer_of_parted_is_read_or_refused(text in "(BYT;\n)?[0-9B:;a\\\\\n]*") {
            parse(&text);
        }

        #[test]
        fn any_text_keeps_what_is_no_device(text in "[a/]*") {
            with_client_names(&text, Path::new("/a"), |p| p.to_str().unwrap().to_owned());
        }
    }
}
