// SPDX-License-Identifier: Apache-2.0
//! What all physical volumes together say: they must be complete, and agree.

use super::Doubt;
use super::area::Print;
use super::device::Physical;
use super::group::{self, Group};
use super::label::Id;
use crate::device_mapper::Volume;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// Bytes of a sector, in which metadata counts.
const SECTOR: u64 = 512;

/// What has been seen of the devices so far.
#[derive(Debug, Default)]
pub struct Survey {
    devices: HashMap<Id, Device>,
    /// The groups, by name, with the text that they come from.
    groups: BTreeMap<String, (Print, Group)>,
}

#[derive(Debug)]
struct Device {
    path: PathBuf,
    size: u64,
    in_use: Option<bool>,
    /// The group of which it has metadata.
    group: Option<String>,
}

/// What there is, in the order in which LVM lists it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// The physical volumes.
    pub physical: Vec<PathBuf>,
    /// Names of the groups.
    pub groups: Vec<String>,
    /// The volumes that people see.
    pub volumes: Vec<Volume>,
}

impl Survey {
    /// Takes in a physical volume that LVM calls so.
    pub fn add(&mut self, path: &Path, physical: Physical) -> Result<(), Doubt> {
        let Physical { header, texts, size } = physical;
        let mut group = None;
        for text in texts {
            let known = self.groups.values().find(|(print, _)| *print == text.print);
            let name = match known {
                Some((_, group)) => group.name.clone(),
                None => self.add_group(text.print, group::parse(&text.text)?)?,
            };
            if group.get_or_insert_with(|| name.clone()) != &name {
                return Err(Doubt("a physical volume has metadata of two groups"));
            }
        }
        let device = Device { path: path.to_owned(), size, in_use: header.in_use, group };
        match self.devices.insert(header.id, device) {
            None => Ok(()),
            Some(_) => Err(Doubt("two devices are the same physical volume")),
        }
    }

    /// Another text of the same name is an older one, or of another group.
    fn add_group(&mut self, print: Print, group: Group) -> Result<String, Doubt> {
        let name = group.name.clone();
        if self.groups.values().any(|(_, other)| other.id == group.id) {
            return Err(Doubt("a group has metadata that does not agree"));
        }
        match self.groups.insert(name.clone(), (print, group)) {
            None => Ok(name),
            Some(_) => Err(Doubt("two groups have the same name")),
        }
    }

    /// What there is, if nothing is missing.
    pub fn finish(mut self) -> Result<Known, Doubt> {
        let mut known = Known::default();
        for (_, group) in self.groups.into_values() {
            for (id, sectors) in &group.physical {
                let missing = Doubt("a physical volume of a group is missing");
                let device = self.devices.remove(id).ok_or(missing)?;
                device.check(&group.name, *sectors)?;
                known.physical.push(device.path);
            }
            let volume = |volume| Volume { group: group.name.clone(), volume };
            known.volumes.extend(group.volumes.into_iter().map(volume));
            known.groups.push(group.name);
        }
        for device in self.devices.into_values() {
            if device.group.is_some() || device.in_use == Some(true) {
                return Err(Doubt("a physical volume is of a group that does not know it"));
            }
            known.physical.push(device.path);
        }
        // Byte by byte, and not by parts of paths.
        known.physical.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
        Ok(known)
    }
}

impl Device {
    /// Whether it is what its group says.
    fn check(&self, group: &str, sectors: u64) -> Result<(), Doubt> {
        if self.in_use == Some(false) || self.group.as_deref().is_some_and(|own| own != group) {
            return Err(Doubt("a physical volume is not of the group that it is in"));
        }
        match sectors.checked_mul(SECTOR) {
            Some(bytes) if bytes <= self.size => Ok(()),
            _ => Err(Doubt("a physical volume is larger than its device")),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::super::label::tests::labelled;
    use super::super::{area, device};
    use super::*;

    const SIZE: usize = 4 << 20;
    const AREA: (u64, u64) = (4096, 1 << 20);

    /// A physical volume, in use or not, with this text.
    fn physical(id: &Id, flags: u32, text: &str) -> Physical {
        let mut image = labelled(id, flags, AREA);
        image.resize(SIZE, 0);
        let at = usize::try_from(AREA.0).unwrap();
        let size = usize::try_from(AREA.1).unwrap();
        let offset = if text.is_empty() { 0 } else { 512 };
        let area = area::tests::area(AREA.0, size, text.as_bytes(), offset, 0);
        image[at..at + size].copy_from_slice(&area);
        device::of_bytes(&image).unwrap().unwrap()
    }

    fn id(letter: char) -> Id {
        [u8::try_from(letter).unwrap(); 32]
    }

    /// A group of physical volumes, with two volumes.
    pub(crate) fn group(
        name: &str,
        own: char,
        seqno: u32,
        physical: &str,
        sectors: usize,
    ) -> String {
        let text = |letter: char| String::from(letter).repeat(32);
        let devices: String = physical
            .chars()
            .map(|p| {
                let id = text(p);
                format!(
                    "pv{p} {{\nid = \"{id}\"\ndevice = \"/dev/x\"\nstatus = [\"ALLOCATABLE\"]\n\
                    flags = []\ndev_size = {sectors}\npe_start = 2048\npe_count = 1\n}}\n"
                )
            })
            .collect();
        let segment = format!(
            "segment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = 1\n\
            type = \"striped\"\nstripe_count = 1\nstripes = [\n\"pv{}\", 0\n]\n}}\n",
            physical.chars().next().unwrap()
        );
        let volumes: String = ["seen", "also"]
            .map(|name| {
                format!(
                    "{name} {{\nid = \"x\"\nstatus = [\"READ\", \"WRITE\", \"VISIBLE\"]\nflags = []\n\
                    {segment}}}\n"
                )
            })
            .concat();
        let id = text(own);
        format!(
            "{name} {{\nid = \"{id}\"\nseqno = {seqno}\nformat = \"lvm2\" # informational\n\
            status = [\"RESIZEABLE\", \"READ\", \"WRITE\"]\nflags = []\nextent_size = 8192\nmax_lv = 0\n\
            max_pv = 0\nmetadata_copies = 0\n\nphysical_volumes {{\n{devices}}}\n\
            logical_volumes {{\n{volumes}}}\n}}\n\
            contents = \"Text Format Volume Group\"\nversion = 1\n"
        )
    }

    fn survey(devices: &[(&str, Physical)]) -> Result<Known, Doubt> {
        let mut survey = Survey::default();
        for (path, physical) in devices {
            let Physical { header, texts, size } = physical;
            let (header, texts) = (header.clone(), texts.clone());
            survey.add(Path::new(path), Physical { header, texts, size: *size })?;
        }
        survey.finish()
    }

    #[test]
    fn what_there_is_comes_in_lvms_order() {
        let two = group("b", 'B', 3, "pq", SIZE / 512);
        let known = survey(&[
            ("/dev/sdb", physical(&id('q'), 1, &two)),
            ("/dev/sdc", physical(&id('o'), 0, "")),
            ("/dev/sda1", physical(&id('p'), 1, "")),
            ("/dev/mapper/x", physical(&id('r'), 1, &group("a", 'A', 1, "r", 8))),
        ]);
        let known = known.unwrap();
        let volumes: Vec<_> = known.volumes.iter().map(Volume::path).collect();
        let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
        assert_eq!(volumes, paths(&["/dev/a/also", "/dev/a/seen", "/dev/b/also", "/dev/b/seen"]));
        assert_eq!(known.groups, ["a", "b"]);
        let devices = ["/dev/mapper/x", "/dev/sda1", "/dev/sdb", "/dev/sdc"];
        assert_eq!(known.physical, paths(&devices));
        assert_eq!(survey(&[]).unwrap(), Known::default());
    }

    #[test]
    fn what_is_missing_or_does_not_agree_is_in_doubt() {
        let (p, q) = (id('p'), id('q'));
        let both = |seqno| group("g", 'G', seqno, "pq", SIZE / 512);
        let alone = |id, flags, text: &str| ("/dev/sda", physical(id, flags, text));
        let beside = |id, flags, text: &str| ("/dev/sdb", physical(id, flags, text));
        let own = group("g", 'G', 1, "p", 8);
        for (what, devices) in [
            ("a device is missing", vec![alone(&p, 1, &both(1))]),
            ("one is older", vec![alone(&p, 1, &both(1)), beside(&q, 1, &both(2))]),
            ("one is there twice", vec![alone(&p, 1, &own), beside(&p, 1, &own)]),
            (
                "two of one name",
                vec![alone(&p, 1, &own), beside(&q, 1, &group("g", 'H', 1, "q", 8))],
            ),
            ("renamed", vec![alone(&p, 1, &own), beside(&q, 1, &group("h", 'G', 2, "q", 8))]),
            ("not in use", vec![alone(&p, 0, &own)]),
            ("of a group that is not there", vec![alone(&p, 1, "")]),
            ("of a group without it", vec![alone(&q, 1, &own), beside(&p, 1, "")]),
            (
                "in two groups",
                vec![alone(&p, 1, &own), beside(&q, 1, &group("h", 'H', 1, "pq", 8))],
            ),
            ("larger than its device", vec![alone(&p, 1, &group("g", 'G', 1, "p", SIZE))]),
        ] {
            assert!(survey(&devices).is_err(), "{what}");
        }
    }

    #[test]
    fn a_group_with_anything_that_is_not_known_is_in_doubt() {
        let good = group("g", 'G', 1, "p", 8);
        let of = |text: &str| survey(&[("/dev/sda", physical(&id('p'), 1, text))]);
        assert_eq!(of(&good).unwrap().volumes.len(), 2);
        for (from, to) in [
            ("\"RESIZEABLE\"", "\"RESIZEABLE\", \"EXPORTED\""),
            ("seqno = 1", "seqno = 1\nsystem_id = \"x\""),
            ("seqno = 1", "seqno = 1\nlock_type = \"sanlock\""),
            ("seqno = 1", "seqno = 1\nseqno = 1"),
            ("\"lvm2\"", "\"lvm1\""),
            ("\"ALLOCATABLE\"", "\"MISSING\""),
            ("dev_size = 8", "dev_size = -8"),
            ("\"VISIBLE\"", "\"VISIBLE\", \"PVMOVE\""),
            ("\"striped\"", "\"vdo\""),
            ("[\n\"pvp\"", "[\n\"pvmove0\""),
            ("segment_count = 1", "segment_count = 2"),
            ("logical_volumes {", "logical_volumes {\nx = 1"),
            ("logical_volumes", "historical_logical_volumes"),
            ("version = 1", "version = 2"),
            ("g {", ".. {"),
            ("Text Format", "Another"),
            ("GGGG", "GGG"),
        ] {
            assert!(good.contains(from), "{from}");
            assert!(of(&good.replacen(from, to, 1)).is_err(), "{to}");
        }
    }

    #[test]
    fn volumes_that_are_not_seen_are_left_out() {
        let good = group("g", 'G', 1, "p", 8);
        let of = |text: &str| survey(&[("/dev/sda", physical(&id('p'), 1, text))]).unwrap();
        let names = |known: Known| known.volumes.into_iter().map(|v| v.volume).collect::<Vec<_>>();
        let hidden = good.replacen(", \"VISIBLE\"", "", 1);
        assert_eq!(names(of(&hidden)), ["also"]);
        let at = good.find("also {").unwrap();
        let skipped = good[at..].replacen("flags = []", "flags = [\"ACTIVATION_SKIP\"]", 1);
        assert_eq!(names(of(&format!("{}{skipped}", &good[..at]))), ["seen"]);
    }
}
