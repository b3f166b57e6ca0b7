// SPDX-License-Identifier: Apache-2.0
//! LVM's configuration in a session: the machine's, and below it what is so in each session, in a directory of the
//! session's. It is no option of the commands, because LVM writes these into the metadata of guests.
//!
//! Where the machine's says nothing of how LVM looks for devices and reports ([`is_plain`]), what it answers is known.

use crate::scratch::Scratch;
use guest_error::{Context, Result};
use probe::lvm::text::{Node, Section, Value};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The variable that says where LVM's configuration is, and where it is otherwise.
pub(super) const VARIABLE: &str = "LVM_SYSTEM_DIR";
const DIRECTORY: &str = "/etc/lvm";
const FILE: &str = "lvm.conf";
/// What keeps LVM from writing to the machine, and from looking elsewhere for devices than its filter says.
const SETTINGS: &str = "
backup {
    backup = 0
    archive = 0
}
devices {
    use_devicesfile = 0
    hints = \"none\"
    global_filter = [ \"a|.*|\" ]
";

/// What tells LVM which disks are one of several paths, and none of its own.
const MULTIPATH: &str = "/etc/multipath/wwids";
/// Sections that say nothing of it.
const ELSEWHERE: &[&str] = &["activation", "allocation", "backup", "dmeventd", "shell"];
/// Settings that do not change answers either: each session has its own, or they say who lists the devices, not which.
const HARMLESS: &[(&str, &[&str])] = &[
    (
        "devices",
        &["filter", "global_filter", "hints", "obtain_device_list_from_udev", "use_devicesfile"],
    ),
    ("global", &["use_lvmpolld"]),
];
/// Settings that do not as long as they have the value that they have by default.
const DEFAULTS: &[(&str, &str, &str)] = &[("devices", "external_device_info_source", "none")];

/// The session's configuration, as it was written last.
#[derive(Debug)]
pub(super) struct Config {
    directory: PathBuf,
    /// What that is in.
    _scratch: Scratch,
    /// The machine's.
    base: Vec<u8>,
    filter: String,
}

impl Config {
    /// Nothing is written yet.
    pub(super) fn new() -> Result<Self> {
        let base = machine();
        let mut scratch = Scratch::new()?;
        let directory = scratch.directory("lvm")?;
        Ok(Self { directory, _scratch: scratch, base, filter: String::new() })
    }

    /// The directory with a configuration in which LVM sees these devices and no others.
    pub(super) fn directory(&mut self, devices: &[PathBuf]) -> Result<&Path> {
        let filter = filter(devices);
        if filter != self.filter {
            let more = format!("{SETTINGS}    filter = {filter}\n}}\n");
            let text = [&self.base, more.as_bytes()].concat();
            std::fs::write(self.directory.join(FILE), text).on(FILE)?;
            self.filter = filter;
        }
        Ok(&self.directory)
    }
}

/// The machine's configuration; empty where it has none.
fn machine() -> Vec<u8> {
    let directory = std::env::var_os(VARIABLE).map_or_else(|| DIRECTORY.into(), PathBuf::from);
    std::fs::read(directory.join(FILE)).unwrap_or_default()
}

/// Whether LVM in a session looks for devices and reports as it does by default.
pub(super) fn is_plain() -> bool {
    let defaults = String::from_utf8(machine()).is_ok_and(|text| leaves_defaults(&text));
    defaults && !Path::new(MULTIPATH).exists()
}

fn leaves_defaults(text: &str) -> bool {
    let Ok(Section(sections)) = Section::parse(text) else { return false };
    sections.iter().all(|(section, node)| match node {
        Node::Section(Section(settings)) => {
            let harmless = HARMLESS.iter().find(|(name, _)| name == section);
            let harmless = harmless.map_or(&[][..], |(_, settings)| settings);
            let is_default = |setting: &str, node: &Node<'_>| {
                let Node::Value(Value::Text(value)) = node else { return false };
                DEFAULTS.contains(&(section, setting, value))
            };
            let is_harmless = |(setting, node): &(&str, Node<'_>)| {
                harmless.contains(setting) || is_default(setting, node)
            };
            ELSEWHERE.contains(section) || settings.iter().all(is_harmless)
        }
        Node::Value(_) => false,
    })
}

/// A filter that lets these devices pass and no others, as lvm.conf(5) has it.
fn filter(devices: &[PathBuf]) -> String {
    let mut text = String::from("[ ");
    for device in devices {
        text += "\"a|^";
        for &c in device.as_os_str().as_bytes() {
            // What means something in a regular expression, or ends the text, may be any character.
            let plain = c.is_ascii_alphanumeric() || matches!(c, b'/' | b'-' | b'_');
            text.push(if plain { char::from(c) } else { '.' });
        }
        text += "$|\", ";
    }
    text + "\"r|.*|\" ]"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lets_the_named_devices_pass_and_no_others() {
        let devices = ["/dev/sda", "/dev/mapper/a.b|\"c"].map(PathBuf::from);
        let wanted = r#"[ "a|^/dev/sda$|", "a|^/dev/mapper/a.b..c$|", "r|.*|" ]"#;
        assert_eq!(filter(&devices), wanted);
        assert_eq!(filter(&[]), r#"[ "r|.*|" ]"#);
    }

    #[test]
    fn settings_of_what_lvm_sees_and_says_are_no_defaults() {
        for plain in [
            "",
            "config {\n}\ndevices {\n# scan_lvs = 0\n}\nglobal { }\n",
            "devices { use_devicesfile = 0 global_filter = [ \"a|.*|\" ] }",
            "devices { external_device_info_source = \"none\" } global { use_lvmpolld = 0 }",
            "activation { thin_pool_autoextend_threshold = 70 }",
        ] {
            assert!(leaves_defaults(plain), "{plain}");
        }
        for other in [
            "devices { scan_lvs = 1 }",
            "devices { external_device_info_source = \"udev\" }",
            "report { lvs_sort = \"lv_size\" }",
            "log { report_command_log = 1 }",
            "global { system_id_source = \"uname\" }",
            "global { filter = 0 }",
            "tags { hosttags = 1 }",
            "devices/scan_lvs = 1",
            "scan_lvs = 1",
            "devices {",
        ] {
            assert!(!leaves_defaults(other), "{other}");
        }
    }

    #[test]
    fn the_configuration_is_the_machines_with_the_sessions_below() {
        let mut config = Config::new().unwrap();
        config.base = b"devices {\n}\n".to_vec();
        let directory = config.directory(&["/dev/sda".into()]).unwrap().to_owned();
        let text = std::fs::read_to_string(directory.join(FILE)).unwrap();
        assert!(text.starts_with("devices {\n}\n"), "{text}");
        assert!(text.contains("filter = [ \"a|^/dev/sda$|\", \"r|.*|\" ]\n}\n"), "{text}");
        config.directory(&[]).unwrap();
        let text = std::fs::read_to_string(directory.join(FILE)).unwrap();
        assert!(!text.contains("/dev/sda"), "{text}");
        drop(config);
        assert!(!directory.exists());
    }
}
