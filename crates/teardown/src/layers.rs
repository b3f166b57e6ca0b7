// SPDX-License-Identifier: Apache-2.0
//! What lies on disks, as sysfs tells it: each block device has a directory `holders` of what was made of it, and
//! one `slaves` of what it was made of.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A device that was made of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its directory in sysfs.
    pub directory: PathBuf,
    /// The kernel's name: `dm-0`, `md127`.
    pub name: String,
    /// Its major and minor number.
    pub number: (u32, u32),
    /// What made it.
    pub kind: Kind,
}

/// What makes devices of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The device mapper, which calls it so.
    Mapper {
        /// Below /dev/mapper.
        name: String,
        /// What begins with who made it: `LVM-...`.
        uuid: String,
    },
    /// md.
    Array,
    /// Something else, which is not known here.
    Other,
}

impl Layer {
    fn read(directory: &Path) -> Option<Self> {
        let text = |file: &str| fs::read_to_string(directory.join(file)).ok();
        let numbers = text("dev")?;
        let (major, minor) = numbers.trim().split_once(':')?;
        let kind = match text("dm/name") {
            Some(name) => Kind::Mapper {
                name: name.trim_end_matches('\n').to_owned(),
                uuid: text("dm/uuid").unwrap_or_default().trim_end_matches('\n').to_owned(),
            },
            None if directory.join("md").exists() => Kind::Array,
            None => Kind::Other,
        };
        Some(Self {
            directory: directory.to_owned(),
            name: directory.file_name()?.to_string_lossy().into_owned(),
            number: (major.parse().ok()?, minor.parse().ok()?),
            kind,
        })
    }

    /// Whether anything was made of it.
    pub(crate) fn has_holders(&self) -> bool {
        with_partitions(&self.directory)
            .iter()
            .any(|part| !entries(&part.join("holders")).is_empty())
    }

    /// Whether it is still what it was: an array that was stopped may have its directory for a while.
    pub(crate) fn is_there(&self) -> bool {
        Self::read(&self.directory).is_some_and(|now| now == *self)
            && !entries(&self.directory.join("slaves")).is_empty()
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            Kind::Mapper { name, .. } => write!(f, "/dev/mapper/{name} ({})", self.name)?,
            Kind::Array | Kind::Other => write!(f, "/dev/{}", self.name)?,
        }
        let below: Vec<String> = linked(&self.directory.join("slaves"))
            .iter()
            .filter_map(|p| Some(p.file_name()?.to_string_lossy().into_owned()))
            .collect();
        match &below[..] {
            [] => Ok(()),
            names => write!(f, " on {}", names.join(", ")),
        }
    }
}

/// All that was made of these disks and of nothing else, what lies on something before that.
pub fn above(disks: &[PathBuf]) -> Vec<Layer> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for disk in disks {
        climb(disk, &mut seen, &mut found);
    }
    // From below: a device is ours if all that it was made of is.
    let mut ours: BTreeSet<PathBuf> = disks
        .iter()
        .filter_map(|disk| fs::canonicalize(disk).ok())
        .flat_map(|disk| with_partitions(&disk))
        .collect();
    let mut kept = Vec::new();
    for layer in found.into_iter().rev() {
        let below = linked(&layer.directory.join("slaves"));
        if below.iter().all(|device| is_among(device, &ours)) {
            ours.extend(with_partitions(&layer.directory));
            kept.push(layer);
        }
    }
    kept.reverse();
    kept
}

/// Adds all that was made of a device, and after that, if something made it, itself.
fn climb(device: &Path, seen: &mut BTreeSet<PathBuf>, found: &mut Vec<Layer>) {
    for part in with_partitions(device) {
        for holder in linked(&part.join("holders")) {
            if seen.insert(holder.clone()) {
                climb(&holder, seen, found);
                found.extend(Layer::read(&holder));
            }
        }
    }
}

/// Whether a device is one of these, under whatever path: a view of sysfs may have other directories for disks, in
/// which numbers are the same.
fn is_among(device: &Path, ours: &BTreeSet<PathBuf>) -> bool {
    let number = |path: &Path| fs::read_to_string(path.join("dev")).ok();
    ours.contains(device)
        || number(device).is_some_and(|n| ours.iter().any(|o| number(o).as_ref() == Some(&n)))
}

/// A device and its partitions.
fn with_partitions(device: &Path) -> Vec<PathBuf> {
    let mut all = vec![device.to_owned()];
    let inner = entries(device).into_iter().filter(|p| p.join("partition").exists());
    all.extend(inner);
    all
}

/// Where the links of a directory lead to.
fn linked(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        entries(directory).iter().filter_map(|link| fs::canonicalize(link).ok()).collect();
    found.sort();
    found
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = all.map(|entry| entry.path()).collect();
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A sysfs of devices, each with what it was made of.
    struct Sysfs(tempfile::TempDir);

    impl Sysfs {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self, device: &str) -> PathBuf {
            fs::canonicalize(self.0.path()).unwrap().join(device)
        }

        fn device(&self, device: &str, number: &str, below: &[&str]) -> &Self {
            let dir = self.path(device);
            fs::create_dir_all(dir.join("holders")).unwrap();
            fs::create_dir(dir.join("slaves")).unwrap();
            fs::write(dir.join("dev"), format!("{number}\n")).unwrap();
            if device.contains('/') {
                fs::write(dir.join("partition"), "1\n").unwrap();
            }
            let name = dir.file_name().unwrap().to_str().unwrap().to_owned();
            if name.starts_with("dm-") {
                fs::create_dir(dir.join("dm")).unwrap();
                fs::write(dir.join("dm/name"), format!("m{name}\n")).unwrap();
                fs::write(dir.join("dm/uuid"), "CRYPT-LUKS2-0\n").unwrap();
            } else if name.starts_with("md") {
                fs::create_dir(dir.join("md")).unwrap();
            }
            for lower in below {
                let lower = self.path(lower);
                symlink(&dir, lower.join("holders").join(&name)).unwrap();
                symlink(&lower, dir.join("slaves").join(lower.file_name().unwrap())).unwrap();
            }
            self
        }

        fn above(&self, disks: &[&str]) -> Vec<String> {
            let disks: Vec<PathBuf> = disks.iter().map(|d| self.path(d)).collect();
            above(&disks).into_iter().map(|layer| layer.name).collect()
        }
    }

    /// LVM on LUKS on an array on partitions: two volumes.
    fn stack() -> Sysfs {
        let sysfs = Sysfs::new();
        sysfs.device("sda", "8:0", &[]).device("sda/sda1", "8:1", &[]);
        sysfs.device("sdb", "8:16", &[]).device("sdb/sdb1", "8:17", &[]);
        sysfs.device("md127", "9:127", &["sda/sda1", "sdb/sdb1"]);
        sysfs.device("dm-0", "253:0", &["md127"]);
        sysfs.device("dm-1", "253:1", &["dm-0"]).device("dm-2", "253:2", &["dm-0"]);
        sysfs
    }

    #[test]
    fn what_lies_on_something_comes_before_it() {
        assert_eq!(stack().above(&["sda", "sdb"]), ["dm-1", "dm-2", "dm-0", "md127"]);
    }

    #[test]
    fn what_lies_on_foreign_disks_too_is_left_alone_with_all_that_is_on_it() {
        let sysfs = stack();
        sysfs.device("sdc", "8:32", &[]).device("dm-3", "253:3", &["sdc"]);
        assert_eq!(sysfs.above(&["sda", "sdc"]), ["dm-3"]);
        assert_eq!(sysfs.above(&[]), [""; 0]);
    }

    #[test]
    fn a_device_of_several_layers_comes_after_all_that_is_on_it() {
        let sysfs = Sysfs::new();
        // A snapshot: the volume and its snapshot share what is below.
        sysfs.device("sda", "8:0", &[]).device("dm-0", "253:0", &["sda"]);
        sysfs.device("dm-1", "253:1", &["sda"]);
        sysfs.device("dm-2", "253:2", &["dm-0"]).device("dm-3", "253:3", &["dm-0", "dm-1"]);
        let order = sysfs.above(&["sda"]);
        let at = |name: &str| order.iter().position(|n| n == name).unwrap();
        assert_eq!(order.len(), 4);
        assert!(at("dm-3") < at("dm-0") && at("dm-3") < at("dm-1") && at("dm-2") < at("dm-0"));
    }

    #[test]
    fn disks_that_a_view_shows_elsewhere_are_known_by_their_numbers() {
        let sysfs = stack();
        sysfs.device("view", "8:0", &[]).device("view/sda1", "8:1", &[]);
        fs::remove_dir(sysfs.path("view/sda1/holders")).unwrap();
        symlink(sysfs.path("sda/sda1/holders"), sysfs.path("view/sda1/holders")).unwrap();
        assert_eq!(sysfs.above(&["view", "sdb"]), ["dm-1", "dm-2", "dm-0", "md127"]);
    }

    #[test]
    fn a_device_says_what_it_is_and_what_it_is_on() {
        let sysfs = stack();
        let layers = above(&[sysfs.path("sda"), sysfs.path("sdb")]);
        let texts: Vec<String> = layers.iter().map(ToString::to_string).collect();
        assert_eq!(texts[2], "/dev/mapper/mdm-0 (dm-0) on md127");
        assert_eq!(texts[3], "/dev/md127 on sda1, sdb1");
        let uuid = "CRYPT-LUKS2-0".to_owned();
        assert_eq!(layers[2].kind, Kind::Mapper { name: "mdm-0".to_owned(), uuid });
        assert!(layers.iter().all(Layer::is_there));
        fs::remove_dir_all(sysfs.path("dm-1")).unwrap();
        assert!(!layers[0].is_there());
    }
}
