// SPDX-License-Identifier: Apache-2.0
//! Devices of the device mapper, as the kernel's own tables have them: no program is needed to tell which of
//! them are logical volumes.

use crate::sysfs;
use std::path::{Path, PathBuf};

/// A device of the device mapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// Its name: below /dev/mapper.
    pub name: String,
    /// What made it, and what it calls it: `LVM-...`, `CRYPT-LUKS2-...`.
    pub uuid: String,
    /// The kernel's name: `dm-0`.
    kernel: String,
}

/// A logical volume's names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Volume {
    /// Name of the volume group.
    pub group: String,
    /// Name of the volume.
    pub volume: String,
}

impl Volume {
    /// `/dev/VG/LV`.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.group).join(&self.volume)
    }
}

/// What LVM's own parts of volumes have in their names: reserved, as lvm(8) says.
const HIDDEN: &[&str] = &[
    "_cdata", "_cmeta", "_corig", "_cpool", "_cvol", "_imeta", "_iorig", "_mimage", "_mlog",
    "_pmspare", "_rimage", "_rmeta", "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig",
];
/// Characters of an LVM UUID without its dashes.
const LVM_ID: usize = 32;

impl Map {
    /// Where its node is.
    pub fn path(&self) -> PathBuf {
        let mapper = Path::new("/dev/mapper").join(&self.name);
        if mapper.exists() { mapper } else { self.node() }
    }

    /// The node that the kernel itself names.
    pub fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.kernel)
    }

    /// Whether LVM made it: a volume, or a part of one that it keeps for itself.
    pub fn is_of_lvm(&self) -> bool {
        self.uuid.starts_with("LVM-")
    }

    /// Whether another device is made of it.
    pub fn is_part(&self) -> bool {
        let holders = Path::new("/sys/block").join(&self.kernel).join("holders");
        std::fs::read_dir(holders).is_ok_and(|mut holders| holders.next().is_some())
    }

    /// The names of the logical volume that it is, if it is one that people see.
    pub fn volume(&self) -> Option<Volume> {
        // What follows the two UUIDs names a part that LVM keeps for itself.
        self.uuid.strip_prefix("LVM-").filter(|ids| ids.len() == 2 * LVM_ID)?;
        let (group, volume) = split(&self.name)?;
        let hidden = HIDDEN.iter().any(|part| volume.contains(part));
        (!hidden).then_some(Volume { group, volume })
    }

    /// Whether it is, or by its name could be, one of a volume group's: of the group with this name, or this UUID (with
    /// its dashes).
    pub fn is_of_group(&self, name: &str, id: &str) -> bool {
        self.has_id_of(id) || split(&self.name).is_some_and(|(group, _)| group == name)
    }

    /// Whether LVM made it of the volume group with this UUID (with its dashes). To LVM, a copy of that group is the
    /// same.
    pub fn has_id_of(&self, id: &str) -> bool {
        let own = self.uuid.strip_prefix("LVM-").and_then(|ids| ids.get(..LVM_ID));
        own.is_some_and(|own| own == id.replace('-', ""))
    }

    /// The UUID of the logical volume that it is, as LVM writes it.
    pub fn volume_uuid(&self) -> Option<String> {
        let ids = self.uuid.strip_prefix("LVM-")?;
        Some(dashed(ids.get(LVM_ID..2 * LVM_ID)?))
    }
}

/// `my--group-a--volume` is the volume `a-volume` of the group `my-group`.
fn split(name: &str) -> Option<(String, String)> {
    let bytes = name.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'-', Some(b'-')) => at += 2,
            (b'-', Some(_)) if at > 0 => {
                let single = |s: &str| s.replace("--", "-");
                return Some((single(&name[..at]), single(&name[at + 1..])));
            }
            _ => at += 1,
        }
    }
    None
}

/// An LVM UUID with its dashes.
pub fn dashed(id: &str) -> String {
    let mut out = String::with_capacity(38);
    for (i, c) in id.chars().enumerate() {
        if matches!(i, 6 | 10 | 14 | 18 | 22 | 26) {
            out.push('-');
        }
        out.push(c);
    }
    out
}

/// Where the kernel has its devices.
const DEVICES: &str = "/sys/devices/virtual/block";
/// Where it, or who hides some, shows them.
const SHOWN: &str = "/sys/block";

/// All devices of the device mapper, by name.
pub fn all() -> Vec<Map> {
    within(SHOWN)
}

/// Those that the kernel has and that are not shown: where a session shares a kernel with its host, the host's own and
/// those of other sessions. Names and UUIDs are the kernel's, of which each device has its own.
pub fn hidden() -> Vec<Map> {
    let mut found = within(DEVICES);
    found.retain(|map| !Path::new(SHOWN).join(&map.kernel).exists());
    found
}

fn within(directory: &str) -> Vec<Map> {
    let mut found: Vec<Map> = std::fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let kernel = entry.file_name().into_string().ok().filter(|n| n.starts_with("dm-"))?;
            let text = |what: &str| {
                let text = std::fs::read_to_string(entry.path().join("dm").join(what)).ok()?;
                Some(text.trim_end_matches('\n').to_owned())
            };
            Some(Map { name: text("name")?, uuid: text("uuid").unwrap_or_default(), kernel })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// The device of the device mapper that a node is.
pub fn of_device(path: &Path) -> Option<Map> {
    let stat = rustix::fs::stat(path).ok()?;
    let dir = std::fs::canonicalize(sysfs::directory(stat.st_rdev)).ok()?;
    let kernel = dir.file_name()?.to_str()?;
    all().into_iter().find(|map| map.kernel == kernel)
}

/// The logical volumes that are active, by group and name, each with where its node is.
pub fn volumes() -> Vec<(Volume, PathBuf)> {
    let mut found: Vec<_> =
        all().iter().filter_map(|map| Some((map.volume()?, map.path()))).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(name: &str, uuid: &str) -> Map {
        Map { name: name.into(), uuid: uuid.into(), kernel: "dm-0".into() }
    }

    const IDS: &str = "LVM-abcdefghijklmnopqrstuvwxyz012345ABCDEFGHIJKLMNOPQRSTUVWXYZ678901";

    #[test]
    fn a_volumes_names_are_found_in_that_of_its_device() {
        let names = |name| map(name, IDS).volume().map(|v| v.path());
        assert_eq!(names("vg-lv").unwrap(), Path::new("/dev/vg/lv"));
        assert_eq!(names("my--vg-my--lv").unwrap(), Path::new("/dev/my-vg/my-lv"));
        assert_eq!(names("a----b-c").unwrap(), Path::new("/dev/a--b/c"));
        for name in ["nodash", "-x", "a--b", "vg-"] {
            assert_eq!(names(name), None, "{name}");
        }
    }

    #[test]
    fn a_group_has_the_devices_of_its_name_and_of_its_uuid() {
        let of = |name: &str, uuid: &str, group: &str, id: &str| {
            let map = map(name, uuid);
            (map.is_of_group(group, id), map.has_id_of(id))
        };
        let id = "abcdef-ghij-klmn-opqr-stuv-wxyz-012345";
        let other = "bbcdef-ghij-klmn-opqr-stuv-wxyz-012345";
        assert_eq!(of("my--vg-lv", IDS, "my-vg", id), (true, true));
        assert_eq!(of("my--vg-lv", IDS, "my-vg", other), (true, false));
        assert_eq!(of("vg-lv", IDS, "renamed", id), (true, true));
        assert_eq!(of("vg-lv", "CRYPT-LUKS2-0", "vg", id), (true, false));
        assert_eq!(of("my--vg-lv", IDS, "my", other), (false, false));
        assert_eq!(of("secret", "", "secret", ""), (false, false));
    }

    #[test]
    fn what_lvm_keeps_for_itself_is_no_volume() {
        assert_eq!(map("vg-pool-tpool", &format!("{IDS}-tpool")).volume(), None);
        assert_eq!(map("vg-lv_rimage_0", IDS).volume(), None);
        assert_eq!(map("secret", "CRYPT-LUKS2-0123-secret").volume(), None);
    }

    #[test]
    fn a_volumes_uuid_is_the_second_half_of_its_devices() {
        let uuid = map("vg-lv", IDS).volume_uuid().unwrap();
        assert_eq!(uuid, "ABCDEF-GHIJ-KLMN-OPQR-STUV-WXYZ-678901");
    }
}
