// SPDX-License-Identifier: Apache-2.0
//! Windows: where its system is, and what its registry says.

use super::guest::Guest;
use super::machine::Machine;
use super::os::{Os, Target, Windows};
use super::release;
use guest_fs::source::Cached;
use hive::{Hive, Node, Value};
use probe::partition;
use probe::partition_table::guid::Guid;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Directories that the system may be in, if boot.ini does not say.
const SYSTEMROOTS: &[&str] = &["/windows", "/winnt", "/win32", "/win", "/reactos"];

/// What is on the mounted filesystem, if Windows is.
pub(crate) fn look(guest: &Guest<'_>) -> Option<Os> {
    let systemroot = systemroot(guest)?;
    let below = |path: &str| {
        let full = format!("{}{path}", systemroot.to_str()?);
        guest.case_sensitive(&full)
    };
    let hive =
        |name: &str| below(&format!("/system32/config/{name}")).filter(|path| guest.is_file(path));
    let mut os = Os { kind: "windows", distro: Some("windows"), ..Os::default() };
    os.arch = ["/system32/cmd.exe", "/system32/ntoskrnl.exe"]
        .iter()
        .find_map(|program| guest.architecture(below(program)?));
    let mut windows = Windows {
        software_hive: hive("software"),
        system_hive: hive("system"),
        ..Windows::default()
    };
    let open = |path: &Option<OsString>| Hive::open(Cached::new(guest.open(path.as_ref()?)?)).ok();
    if let Some(software) = open(&windows.software_hive) {
        read_software(&software, &mut os, &mut windows);
    }
    if let Some(system) = open(&windows.system_hive) {
        read_system(&system, &mut os, &mut windows);
    }
    windows.systemroot = systemroot;
    os.windows = Some(windows);
    Some(os)
}

fn systemroot(guest: &Guest<'_>) -> Option<OsString> {
    let boot_ini = guest.case_sensitive("/boot.ini").and_then(|path| guest.read(path));
    let named = boot_ini.as_deref().and_then(boot_ini_systemroot);
    let candidates = named.iter().map(String::as_str).chain(SYSTEMROOTS.iter().copied());
    candidates.filter_map(|path| guest.case_sensitive(path)).find(|path| {
        // A path that is not text cannot be returned.
        let Some(path) = path.to_str() else { return false };
        let is_dir = |below: &str| {
            let found = guest.case_sensitive(&format!("{path}{below}"));
            found.is_some_and(|p| guest.is_dir(p))
        };
        is_dir("/system32") && is_dir("/system32/config")
    })
}

/// The directory in `default=multi(0)disk(0)rdisk(0)partition(1)\WINDOWS`.
fn boot_ini_systemroot(text: &[u8]) -> Option<String> {
    text.split(|&b| b == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?.trim();
        let path = line.strip_prefix("default=")?.split_once('\\')?.1;
        let plain = path.split('\\').all(|name| !name.is_empty() && name != "." && name != "..");
        plain.then(|| format!("/{}", path.replace('\\', "/")))
    })
}

/// The value of this name, if it can be read.
fn value(hive: &Hive<Cached>, key: Node, name: &str) -> Option<Value> {
    hive.read_value(hive.value(key, name).ok()??).ok()
}

fn read_software(hive: &Hive<Cached>, os: &mut Os, windows: &mut Windows) {
    if let Ok(Some(key)) = hive.find(&["Microsoft", "Windows NT", "CurrentVersion"]) {
        let text = |name| value(hive, key, name)?.text().filter(|t| !t.is_empty());
        let line = |text: String| release::line(text.as_bytes());
        let number = |name| i32::try_from(value(hive, key, name)?.number()?).ok();
        os.product_name = text("ProductName").map(line);
        os.product_variant = text("InstallationType").map(line);
        os.build_id = text("CurrentBuildNumber").or_else(|| text("CurrentBuild")).map(line);
        // From Windows 10 on; the older value says 6.3 there.
        let exact = number("CurrentMajorVersionNumber").zip(number("CurrentMinorVersionNumber"));
        os.version =
            exact.or_else(|| text("CurrentVersion").and_then(|t| release::version(t.as_bytes())));
    }
    let history = ["Microsoft", "Windows", "CurrentVersion", "Group Policy", "History"];
    let history = hive.find(&history).ok().flatten();
    windows.group_policy =
        history.is_some_and(|key| hive.children(key).is_ok_and(|keys| !keys.is_empty()));
}

fn read_system(hive: &Hive<Cached>, os: &mut Os, windows: &mut Windows) {
    let find = |path: &[&str]| hive.find(path).ok().flatten();
    let current = find(&["Select"]).and_then(|key| value(hive, key, "Current")?.number());
    let current = current.map(|n| format!("ControlSet{n:03}"));
    if let Some(set) = current.as_deref() {
        let key = find(&[set, "Services", "Tcpip", "Parameters"]);
        let text = |key: Node, name| value(hive, key, name)?.text().filter(|t| !t.is_empty());
        os.hostname = key
            .and_then(|key| text(key, "Hostname").or_else(|| text(key, "NV Hostname")))
            .map(|name| release::line(name.as_bytes()));
    }
    windows.current_control_set = current;
    if let Some(key) = find(&["MountedDevices"]) {
        let values = hive.values(key).unwrap_or_default().into_iter();
        let values = values.filter_map(|entry| hive.read_value(entry).ok());
        let mut letters: Vec<_> =
            values.filter_map(|v| Some((letter(&v.name)?, target(&v.data)?))).collect();
        letters.sort_by(|(a, _), (b, _)| a.cmp(b));
        windows.letters = letters;
    }
}

/// The letter in `\DosDevices\C:`.
fn letter(name: &str) -> Option<String> {
    let letter = name.strip_prefix("\\DosDevices\\")?.strip_suffix(':')?;
    let [b] = letter.as_bytes() else { return None };
    b.is_ascii_alphabetic().then(|| char::from(*b).to_ascii_uppercase().to_string())
}

/// What the data of such a value names: signature and offset, or `DMIO:ID:` and a GUID.
fn target(data: &[u8]) -> Option<Target> {
    if let Some(guid) = data.strip_prefix(b"DMIO:ID:") {
        let guid = Guid::from_disk(guid.try_into().ok()?);
        return Some(Target::Gpt { uuid: guid.0.to_string() });
    }
    let (signature, start) = data.split_first_chunk::<4>()?;
    let start: [u8; 8] = start.try_into().ok()?;
    Some(Target::Mbr {
        signature: u32::from_le_bytes(*signature),
        start: u64::from_le_bytes(start),
    })
}

/// Letters and the partitions of this session that they lead to.
pub(crate) fn drives(machine: &mut impl Machine, os: &Os) -> Vec<(String, PathBuf)> {
    let Some(windows) = &os.windows else { return Vec::new() };
    let partitions = machine.partitions();
    let find = |target: &Target| partitions.iter().find(|p| is_target(p, target)).cloned();
    windows.letters.iter().filter_map(|(letter, t)| Some((letter.clone(), find(t)?))).collect()
}

fn is_target(path: &Path, target: &Target) -> bool {
    let Some((disk, number)) = partition::of_device(path) else { return false };
    let Ok(Some(entry)) = partition::entry(&disk, number) else { return false };
    let uuid = entry.uuid();
    match target {
        Target::Gpt { uuid: wanted } => uuid.eq_ignore_ascii_case(wanted),
        Target::Mbr { signature, start } => {
            uuid.starts_with(&format!("{signature:08x}-")) && partition::start(path) == Some(*start)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_ini_says_where_the_system_is() {
        let text = b"[boot loader]\r\ntimeout=30\r\ndefault=multi(0)disk(0)rdisk(0)partition(1)\\WINNT\r\n";
        assert_eq!(boot_ini_systemroot(text).unwrap(), "/WINNT");
        assert_eq!(boot_ini_systemroot(b"default=x\\..\\etc"), None);
        assert_eq!(boot_ini_systemroot(b"default=\xff\\x"), None);
    }

    #[test]
    fn drive_letters_name_partitions_of_either_table() {
        assert_eq!(letter("\\DosDevices\\c:").unwrap(), "C");
        assert_eq!(letter("\\??\\Volume{x}"), None);
        let mbr = [0x78, 0x56, 0x34, 0x12, 0, 0, 0x10, 0, 0, 0, 0, 0];
        let expected = Target::Mbr { signature: 0x1234_5678, start: 1 << 20 };
        assert_eq!(target(&mbr), Some(expected));
        let mut gpt = b"DMIO:ID:".to_vec();
        gpt.extend(1..=16_u8);
        let uuid = "04030201-0605-0807-090a-0b0c0d0e0f10".to_owned();
        assert_eq!(target(&gpt), Some(Target::Gpt { uuid }));
        assert_eq!(target(b"\\??\\FDC"), None);
    }
}
