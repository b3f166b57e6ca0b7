// SPDX-License-Identifier: Apache-2.0
//! LVM's metadata as the program `lvm` makes it, on loop devices: what is read from it beside what the program says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // Tests.

use probe::device_mapper::Volume;
use probe::lvm::{Doubt, Known, Survey, device, text::Section};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// MiB of each device.
const MIB: u64 = 96;

/// Devices for LVM to see, and a configuration in which it sees no others.
struct Machine {
    dir: tempfile::TempDir,
    devices: Vec<PathBuf>,
}

impl Machine {
    fn new(devices: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut machine = Self { dir, devices: Vec::new() };
        for n in 0..devices {
            let image = machine.dir.path().join(format!("image{n}"));
            File::create(&image).unwrap().set_len(MIB << 20).unwrap();
            let mut losetup = Command::new("/sbin/losetup");
            let output = losetup.args(["--find", "--show"]).arg(&image).output();
            let output = output.expect("losetup is needed (Debian package mount)");
            assert!(output.status.success(), "loop devices are needed, and root: {output:?}");
            let device = String::from_utf8(output.stdout).unwrap();
            machine.devices.push(device.trim().into());
        }
        let mut seen: String =
            machine.devices.iter().map(|d| format!("\"a|^{}$|\", ", d.display())).collect();
        seen += "\"r|.*|\"";
        let settings = format!(
            "backup {{ backup = 0 archive = 0 }}\n\
            devices {{ filter = [ {seen} ] use_devicesfile = 0 hints = \"none\" }}\n"
        );
        std::fs::write(machine.dir.path().join("lvm.conf"), settings).unwrap();
        machine
    }

    /// Runs a command, with `D0` for the first device and so on. There need be no device mapper.
    fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("/sbin/lvm");
        command.env("LVM_SYSTEM_DIR", self.dir.path()).env("LC_ALL", "C");
        for word in words {
            let number = word.strip_prefix('D').and_then(|n| n.parse::<usize>().ok());
            match number.and_then(|n| self.devices.get(n)) {
                Some(device) => command.arg(device),
                None => command.arg(word),
            };
        }
        command.args(["--driverloaded", "n"]);
        command.output().expect("lvm is needed (Debian package lvm2)")
    }

    /// Runs commands, each in a line.
    fn make(&self, commands: &str) {
        for line in commands.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let words: Vec<&str> = line.split_whitespace().collect();
            let output = self.run(&words);
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{line}: {said}");
        }
    }

    fn file(&self, device: usize) -> File {
        File::options().read(true).write(true).open(&self.devices[device]).unwrap()
    }

    fn read(&self, device: usize, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.file(device).read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    fn write(&self, device: usize, at: u64, bytes: &[u8]) {
        let file = self.file(device);
        file.write_all_at(bytes, at).unwrap();
        file.sync_all().unwrap();
    }

    /// What the program says.
    fn said(&self) -> Known {
        let lines = |words: &[&str]| -> Vec<String> {
            let output = self.run(&[words, &["--noheadings"]].concat());
            let text = String::from_utf8(output.stdout).unwrap();
            text.lines().map(|line| line.trim().to_owned()).collect()
        };
        let physical = lines(&["pvs", "-o", "pv_name"]).into_iter();
        let select = "lv_role=public && lv_skip_activation!=yes";
        let columns = ["-o", "vg_name,lv_name", "--separator", "/", "--select", select];
        let volumes = lines(&[&["lvs"][..], &columns].concat()).into_iter().map(|line| {
            let (group, volume) = line.split_once('/').unwrap();
            Volume { group: group.to_owned(), volume: volume.to_owned() }
        });
        Known {
            physical: physical.map(PathBuf::from).collect(),
            groups: lines(&["vgs", "-o", "vg_name"]),
            volumes: volumes.collect(),
        }
    }

    /// What the metadata says.
    fn read_metadata(&self) -> Result<Known, Doubt> {
        let mut survey = Survey::default();
        for path in &self.devices {
            if let Some(physical) = device::read(&File::open(path).unwrap())? {
                survey.add(path, physical)?;
            }
        }
        survey.finish()
    }

    fn check(&self, what: &str) {
        assert_eq!(self.read_metadata(), Ok(self.said()), "{what}");
    }

    fn check_doubt(&self, what: &str) {
        let found = self.read_metadata();
        assert!(found.is_err(), "{what}: {found:?}, and the program says {:?}", self.said());
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for device in &self.devices {
            Command::new("/sbin/losetup").arg("--detach").arg(device).status().ok();
        }
    }
}

/// Layouts that are plain, and what makes them.
const PLAIN: &[(&str, &str)] = &[
    ("nothing", ""),
    (
        "in no group",
        "pvcreate D0\n pvcreate D2 --pvmetadatacopies 2\n pvcreate D1 --pvmetadatacopies 0",
    ),
    ("a group without volumes", "vgcreate vg D0 D2"),
    (
        "linear and striped volumes",
        "vgcreate vg D0 D1 D2
        lvcreate -an -Zn -L 8M -n linear vg
        lvcreate -an -Zn -L 100M -n over-two vg
        lvcreate -an -Zn -i 2 -I 64k -L 16M -n striped vg",
    ),
    (
        "names in LVM's order",
        "vgcreate vg D1
        vgcreate Vg.2 D0
        vgcreate vg+-x D2
        lvcreate -an -Zn -l 1 -n b vg
        lvcreate -an -Zn -l 1 -n B vg
        lvcreate -an -Zn -l 1 -n a_1 vg
        lvcreate -an -Zn -l 1 -n a-1 vg
        lvcreate -an -Zn -l 1 -n 0 Vg.2
        lvcreate -an -Zn -l 1 -n +x.y vg+-x",
    ),
    (
        "renamed and resized",
        "vgcreate vg D0
        lvcreate -an -Zn -L 8M -n one vg
        lvcreate -an -Zn -L 8M -n two vg
        lvrename vg one three
        lvextend -L 16M vg/three
        lvextend -l +3 vg/two
        lvreduce -f -L 4M vg/three
        vgextend vg D1
        vgextend vg D2
        vgreduce vg D1
        vgrename vg other
        pvresize --yes --setphysicalvolumesize 40M D2
        lvremove -f other/two",
    ),
    (
        "tags, policies, limits",
        "vgcreate --addtag group --addtag a+b=c:d vg D0 D1
        pvchange --addtag physical D0
        pvchange -xn D1
        lvcreate -an -Zn -L 8M --addtag volume --alloc contiguous -n a vg
        lvcreate -an -Zn -L 8M -pr -r 64k -n read-only vg
        vgchange --alloc anywhere vg
        vgchange -l 10 -p 5 vg
        vgchange -s 1M vg",
    ),
    (
        "volumes that are not activated with their group",
        "vgcreate vg D0
        lvcreate -an -Zn -L 8M -ky -n skipped vg
        lvcreate -an -Zn -L 8M -n usual vg",
    ),
    (
        "physical volumes without metadata, or with an area that is ignored",
        "pvcreate --pvmetadatacopies 0 D0
        pvcreate --pvmetadatacopies 2 D1
        vgcreate vg D0 D1 D2
        lvcreate -an -Zn -L 8M -n a vg
        pvchange --metadataignore y D2
        lvcreate -an -Zn -L 8M -n b vg",
    ),
    (
        "fewer copies of metadata",
        "vgcreate --vgmetadatacopies 1 vg D0 D1 D2
        lvcreate -an -Zn -L 8M -n a vg",
    ),
    ("room for a boot loader", "pvcreate --bootloaderareasize 1M D0\n vgcreate vg D0"),
    ("another sector", "pvcreate --labelsector 0 D0\n vgcreate vg D0"),
    (
        "other UUIDs",
        "vgcreate vg D0 D1\n vgchange -u vg\n pvchange -u D0\n pvcreate D2\n pvchange -u D2",
    ),
    ("merged", "vgcreate a D0\n vgcreate b D1\n lvcreate -an -Zn -l 1 -n x a\n vgmerge b a"),
    ("split", "vgcreate a D0 D1\n lvcreate -an -Zn -l 1 -n x a D0\n vgsplit a b D1"),
    ("removed", "vgcreate a D0 D1\n vgcreate b D2\n vgremove a\n pvremove D1"),
];

#[test]
fn metadata_of_plain_layouts_says_what_lvm_says() {
    for (what, commands) in PLAIN {
        let machine = Machine::new(3);
        machine.make(commands);
        machine.check(what);
    }
}

/// Metadata with volumes of all kinds, made on three disks by LVM on a machine that has them: there `lvs` shows them
/// the same.
const KINDS: &str = include_str!("lvm/kinds.vg");

#[test]
fn volumes_of_all_kinds_are_seen_as_lvm_shows_them() {
    let machine = Machine::new(3);
    let backup = machine.dir.path().join("backup");
    std::fs::write(&backup, KINDS).unwrap();
    let lines: Vec<&str> = KINDS.lines().map(str::trim).collect();
    for n in 0..3 {
        let at = lines.iter().position(|line| *line == format!("pv{n} {{")).unwrap();
        let id = lines[at + 1].strip_prefix("id = \"").unwrap().trim_end_matches('"');
        machine.make(&format!("pvcreate --uuid {id} --norestorefile D{n}"));
    }
    machine.make(&format!("vgcfgrestore --force --file {} VG", backup.display()));
    machine.check("all kinds");
    let volumes = machine.read_metadata().unwrap().volumes;
    let names: Vec<&str> = volumes.iter().map(|v| v.volume.as_str()).collect();
    #[rustfmt::skip]
    assert_eq!(names, [
        "linear", "mirror", "mirror-with-log", "not-skipped", "raid0", "raid1", "raid5", "slow2", "snap", "striped",
        "thin",
    ]);
}

#[test]
fn metadata_that_goes_on_at_the_beginning_of_its_ring_is_read() {
    let machine = Machine::new(1);
    machine.make(
        "pvcreate --metadatasize 32k --dataalignment 4k D0
        vgcreate -s 64k vg D0",
    );
    // So that the ring holds few texts.
    for letter in ["a", "b", "c", "d"] {
        machine.make(&format!("vgchange --addtag {} vg", letter.repeat(1000)));
    }
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
    let mut wrapped = 0;
    for n in 0..10 {
        machine.make(&format!("lvcreate -an -Zn -l 1 -n volume{n} vg"));
        machine.check("a ring");
        let header = machine.read(0, 4096, 512);
        let [size, offset, len] = [32, 40, 48].map(|at| number(&header[at..at + 8]));
        wrapped += u32::from(offset + len > size);
        machine.make(&format!("lvremove -f vg/volume{n}"));
    }
    assert!(wrapped > 0, "no text went over the end");
}

/// Layouts about which `lvm` must be asked, and what makes them.
const UNUSUAL: &[(&str, &str)] = &[
    ("exported", "vgcreate vg D0 D1\n vgexport vg"),
    ("foreign", "vgcreate vg D0\n vgchange --yes --systemid another vg"),
    ("a label in a later sector", "pvcreate --labelsector 2 D0"),
    (
        "a fixed number",
        "vgcreate vg D0\n lvcreate -an -Zn -l 1 -n a vg\n lvchange --yes -My --major 253 --minor 7 vg/a",
    ),
];

#[test]
fn unusual_layouts_are_left_to_lvm() {
    for (what, commands) in UNUSUAL {
        let machine = Machine::new(2);
        machine.make(commands);
        machine.check_doubt(what);
    }
}

/// A group on the first two of three devices.
fn group_of_two() -> Machine {
    let machine = Machine::new(3);
    machine.make("vgcreate vg D0 D1\n lvcreate -an -Zn -L 8M -n a vg");
    machine.check("before");
    machine
}

#[test]
fn a_physical_volume_that_is_missing_is_left_to_lvm() {
    let machine = group_of_two();
    machine.write(1, 0, &[0; 4096]);
    machine.check_doubt("wiped");
    machine.make("vgreduce --removemissing vg");
    machine.check("without it");
}

#[test]
fn a_physical_volume_that_is_there_twice_is_left_to_lvm() {
    let machine = group_of_two();
    machine.write(2, 0, &machine.read(0, 0, 2 << 20));
    machine.check_doubt("a copy");
}

#[test]
fn two_groups_of_one_name_are_left_to_lvm() {
    let machine = Machine::new(2);
    machine.make("vgcreate vg D0");
    let first = machine.read(0, 0, 2 << 20);
    machine.write(0, 0, &vec![0; 2 << 20]);
    machine.make("vgcreate vg D1");
    machine.write(0, 0, &first);
    machine.check_doubt("two of one name");
}

#[test]
fn a_copy_of_metadata_that_is_older_is_left_to_lvm() {
    let machine = group_of_two();
    let older = machine.read(1, 0, 1 << 20);
    machine.make("lvcreate -an -Zn -L 8M -n b vg");
    machine.check("newer");
    machine.write(1, 0, &older);
    machine.check_doubt("older");
}

#[test]
fn damaged_metadata_is_left_to_lvm() {
    let header = |machine: &Machine| machine.read(0, 4096, 512);
    // In the label, in the header of the area, in the text.
    for place in 0..3 {
        let machine = group_of_two();
        let offset = u64::from_le_bytes(header(&machine)[40..48].try_into().unwrap());
        let at = [512 + 100, 4096 + 24, 4096 + offset + 20][place];
        let byte = machine.read(0, at, 1)[0];
        machine.write(0, at, &[byte ^ 1]);
        machine.check_doubt("damaged");
    }
}

#[test]
fn a_member_of_a_raid_and_a_partitioned_disk_are_left_to_lvm() {
    let size = MIB << 20;
    for at in [size - 0x2000, (size & !0xffff) - 0x10000] {
        let machine = group_of_two();
        machine.write(0, at, b"\xfc\x4e\x2b\xa9\x01\0\0\0");
        machine.check_doubt("a superblock of md at the end");
    }
    let machine = group_of_two();
    let mut table = [0; 66];
    table[0..16].copy_from_slice(b"\0\0\0\0\x83\0\0\0\0\x08\0\0\0\x08\0\0");
    table[64..].copy_from_slice(b"\x55\xaa");
    machine.write(0, 446, &table);
    machine.check_doubt("a partition table");
}

#[test]
fn a_device_that_became_smaller_is_left_to_lvm() {
    let machine = group_of_two();
    let image = machine.dir.path().join("image1");
    File::options().write(true).open(image).unwrap().set_len(16 << 20).unwrap();
    let set = Command::new("/sbin/losetup").arg("--set-capacity").arg(&machine.devices[1]).status();
    assert!(set.unwrap().success());
    machine.check_doubt("smaller");
}

#[test]
fn the_configuration_of_this_machine_is_of_the_grammar() {
    let text = std::fs::read_to_string(Path::new("/etc/lvm/lvm.conf"));
    let text = text.expect("lvm.conf is needed (Debian package lvm2)");
    assert!(Section::parse(&text).unwrap().0.iter().any(|(name, _)| *name == "devices"));
}
