// SPDX-License-Identifier: Apache-2.0
//! LVM's configuration in a session: the machine's, and below it what is so in each session, in a directory of the
//! session's. It is no option of the commands, because LVM writes these into the metadata of guests.

use crate::scratch::Scratch;
use guest_error::{Context, Result};
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
        let machine = std::env::var_os(VARIABLE).map_or_else(|| DIRECTORY.into(), PathBuf::from);
        let base = std::fs::read(machine.join(FILE)).unwrap_or_default();
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
