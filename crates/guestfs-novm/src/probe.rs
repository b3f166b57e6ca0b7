// SPDX-License-Identifier: Apache-2.0
//! Questions that libguestfs asks of QEMU before it starts it, and answers that make it use what there
//! is here: virtio-scsi disks, a virtio-serial channel, no acceleration to worry about.
//!
//! libguestfs keeps the answers in its cache, by size and time of the program that gave them.

use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::{self, Read, Write};

/// Bytes of QMP commands that are read.
const MAX_QMP: u64 = 64 << 10;

const VERSION: &str =
    concat!("QEMU emulator version 7.2.0 (guestfs-novm ", env!("CARGO_PKG_VERSION"), ")");

/// Options that libguestfs looks for in the help.
const HELP: &str = "-no-user-config\n-nodefaults\n-enable-fips\n";

const DEVICES: &str = r#"name "scsi-hd", bus SCSI
name "virtio-blk-pci", bus PCI
name "virtio-net-pci", bus PCI
name "virtio-scsi-pci", bus PCI
name "virtio-serial-pci", bus PCI
"#;

const MACHINES: &str = "Supported machines are:
pc                   No machine (default)
q35                  No machine
virt                 No machine
";

/// Lists that `-OPTION ?` or `-OPTION help` asks for.
const LISTS: &[(&str, &str)] = &[
    ("-device", DEVICES),
    ("-machine", MACHINES),
    ("-M", MACHINES),
    ("-cpu", "Available CPUs:\n  host\n  max\n"),
    ("-accel", "Accelerators supported in QEMU binary:\nkvm\ntcg\n"),
];

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// To be answered with this text, after the version.
    Text(&'static str),
    /// QMP commands on standard input.
    Qmp,
}

impl Probe {
    /// The question that a command line asks, if it is one.
    pub(crate) fn find(args: &[OsString]) -> Option<Self> {
        for (n, arg) in args.iter().enumerate() {
            let value = args.get(n + 1).and_then(|v| v.to_str());
            match arg.to_str()? {
                "-help" | "-h" => return Some(Self::Text(HELP)),
                "-version" => return Some(Self::Text("")),
                "-qmp" if value == Some("stdio") => return Some(Self::Qmp),
                option if matches!(value, Some("?" | "help")) => {
                    if let Some((_, list)) = LISTS.iter().find(|(name, _)| *name == option) {
                        return Some(Self::Text(list));
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Answers it.
    pub(crate) fn answer(self, stdin: impl Read, mut stdout: impl Write) -> io::Result<()> {
        match self {
            Self::Text(HELP | "") => {
                write!(stdout, "{VERSION}\n{}", if self == Self::Text("") { "" } else { HELP })?
            }
            Self::Text(list) => stdout.write_all(list.as_bytes())?,
            Self::Qmp => {
                let greeting = json!({"QMP": {
                    "version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""},
                    "capabilities": [],
                }});
                writeln!(stdout, "{greeting}")?;
                let commands = serde_json::Deserializer::from_reader(stdin.take(MAX_QMP));
                for command in commands.into_iter::<Value>().map_while(Result::ok) {
                    let result = match command["execute"].as_str() {
                        // Enabled, or libguestfs warns that it will be slow.
                        Some("query-kvm") => json!({"enabled": true, "present": true}),
                        Some("query-qmp-schema") => schema(),
                        Some("query-commands") => json!([]),
                        _ => json!({}),
                    };
                    writeln!(stdout, "{}", json!({"return": result}))?;
                }
                let end = json!({
                    "timestamp": {"seconds": 0, "microseconds": 0},
                    "event": "SHUTDOWN",
                    "data": {"guest": false},
                });
                writeln!(stdout, "{end}")?;
            }
        }
        stdout.flush()
    }
}

/// What libguestfs looks for in QEMU's schema: that files can be opened without locks. It asks for
/// that on the command line then, where it only reads.
fn schema() -> Value {
    json!([
        {"name": "OnOffAuto", "meta-type": "enum", "values": ["auto", "on", "off"]},
        {"name": "BlockdevOptionsFile", "meta-type": "object", "members": [
            {"name": "filename", "type": "str"},
            {"name": "locking", "type": "OnOffAuto", "default": null},
        ]},
        {"name": "str", "meta-type": "builtin", "json-type": "string"},
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(line: &str) -> Option<Probe> {
        Probe::find(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    fn answer(line: &str, stdin: &str) -> String {
        let mut out = Vec::new();
        find(line).unwrap().answer(stdin.as_bytes(), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_questions_of_libguestfs_are_told_from_a_launch() {
        for line in [
            "-display none -help",
            "-nographic -help",
            "-display none -version",
            "-display none -machine accel=kvm:tcg -device ?",
            "-display none -machine virt,accel=kvm:hvf:tcg -device help",
            "-display none -machine ?",
            "-display none -cpu help",
            "-display none -machine accel=kvm:tcg -qmp stdio",
        ] {
            assert!(find(line).is_some(), "{line}");
        }
        for line in
            ["-global x -no-user-config -nodefaults -m 1280 -append help", "", "-qmp unix:/x"]
        {
            assert_eq!(find(line), None, "{line}");
        }
    }

    #[test]
    fn the_version_is_in_the_first_line_of_the_help() {
        assert!(answer("-help", "").starts_with("QEMU emulator version 7.2.0 ("));
        assert!(answer("-version", "").starts_with("QEMU emulator version 7.2.0 ("));
    }

    #[test]
    fn the_devices_that_libguestfs_wants_are_there() {
        let text = answer("-device ?", "");
        for device in ["virtio-scsi-pci", "virtio-serial-pci", "scsi-hd", "virtio-net-pci"] {
            assert!(text.contains(&format!("name \"{device}\"")), "{device}");
        }
    }

    #[test]
    fn qmp_says_that_kvm_is_enabled() {
        let commands = r#"{ "execute": "qmp_capabilities" }
            { "execute": "query-kvm" } { "execute": "quit" }"#;
        let text = answer("-qmp stdio", commands);
        let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[2]["return"]["enabled"], true);
    }

    #[test]
    fn the_schema_says_that_files_can_be_opened_without_locks() {
        let commands = r#"{ "execute": "qmp_capabilities" } { "execute": "query-qmp-schema" }"#;
        let text = answer("-qmp stdio", commands);
        let schema: Value = serde_json::from_str(text.lines().nth(2).unwrap()).unwrap();
        let types = schema["return"].as_array().unwrap();
        let locking = types.iter().filter(|entry| entry["meta-type"] == "object").any(|entry| {
            entry["members"].as_array().unwrap().iter().any(|member| member["name"] == "locking")
        });
        assert!(locking, "{schema}");
    }

    #[test]
    fn qmp_that_is_none_ends_the_answers() {
        assert_eq!(answer("-qmp stdio", "{]").lines().count(), 2);
        assert_eq!(answer("-qmp stdio", &"[".repeat(100_000)).lines().count(), 2);
    }
}
