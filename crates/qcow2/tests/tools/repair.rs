// SPDX-License-Identifier: Apache-2.0
//! Images that QEMU made, with words of their tables changed at random: ours and `qemu-img check`
//! find the same class of faults, and what QEMU repairs is repaired by us, with all data that could
//! be read before. `SEED` and `SEEDS` say which are tried.
use std::fs;
use std::path::Path;

use qcow2::check::{Repair, Report, check};

use crate::memory::{COPIED, Memory, OFFSET, now, number, qemu_img, qemu_io, set, word};

/// Numbers by chance.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(0x9e37_79b9);
        (self.0 >> 33) % end
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// What is in a file of that name.
fn load(directory: &Path, name: &str) -> Memory {
    let image = Memory::default();
    *image.0.borrow_mut() = fs::read(directory.join(name)).unwrap();
    image
}

fn samples(directory: &Path) -> Vec<Memory> {
    let options = [
        "cluster_size=4096",
        "cluster_size=512",
        "cluster_size=4096,refcount_bits=1",
        "cluster_size=16384,extended_l2=on",
        "cluster_size=4096,compat=0.10",
    ];
    let made = options.into_iter().map(|options| {
        let create = ["create", "-q", "-f", "qcow2", "-o", options, "sample", "128k"];
        assert_eq!(qemu_img(directory, &create).0, Some(0));
        qemu_io(directory, "sample", &["write -P 1 0 48k", "write -P 2 -c 64k 16k"]);
        if !options.contains("bits=1") {
            assert_eq!(qemu_img(directory, &["snapshot", "-c", "s", "sample"]).0, Some(0));
        }
        qemu_io(directory, "sample", &["write -P 3 4k 20k", "write -z 96k 16k"]);
        load(directory, "sample")
    });
    made.collect()
}

/// The words that are changed: of the refcount table, its block, L1, L2, and the snapshot's table.
fn targets(image: &Memory) -> Vec<u64> {
    let (table, l1) = (word(image, 48), word(image, 40));
    let (block, l2) = (word(image, table), word(image, l1) & OFFSET);
    let mut all = vec![table, table + 8, l1];
    all.extend((0..8).map(|index| block + index * 8));
    all.extend((0..32).map(|index| l2 + index * 8).filter(|at| word(image, *at) != 0));
    all
}

fn damage(image: &Memory, random: &mut Random) -> String {
    let targets = targets(image);
    let len = image.0.borrow().len() as u64;
    let mut what = String::new();
    for _ in 0..1 + random.below(2) {
        let at = random.pick(&targets);
        let old = word(image, at);
        let new = match random.below(6) {
            0 => 0,
            1 => old ^ 1 << random.below(64),
            2 => old.wrapping_add(512),
            3 => word(image, random.pick(&targets)),
            4 => word(image, random.pick(&[40, 48])) | random.pick(&[0, COPIED]),
            _ => (len.next_multiple_of(1 << 16) * (1 + random.below(5))) | COPIED,
        };
        set(image, at, new);
        what += &format!("{at:#x}: {old:#x} is {new:#x}; ");
    }
    what
}

/// What QEMU finds in "image": errors, and leaks.
fn found(directory: &Path) -> (u64, u64) {
    let (_, json) = qemu_img(directory, &["check", "-U", "--output=json", "image"]);
    let errors = number(&json, "corruptions") + number(&json, "check-errors");
    assert!(json.contains("check-errors"), "{json}");
    (errors, number(&json, "leaks"))
}

fn put(directory: &Path, image: &Memory) {
    fs::write(directory.join("image"), &*image.0.borrow()).unwrap();
}

/// What QEMU reads in "image", if it can.
fn content(directory: &Path) -> Option<Vec<u8>> {
    let (code, _) = qemu_img(directory, &["convert", "-f", "qcow2", "-O", "raw", "image", "raw"]);
    (code == Some(0)).then(|| fs::read(directory.join("raw")).unwrap())
}

fn ours(image: &Memory, repair: Repair) -> Report {
    now(check(image, repair)).unwrap()
}

/// Returns whether the image was damaged, and repaired.
fn try_one(directory: &Path, image: &Memory, name: &str) -> bool {
    put(directory, image);
    let (errors, leaks) = found(directory);
    let before = content(directory);
    let report = ours(image, Repair::None);
    let told = |words: &str| report.findings.iter().any(|text| text.contains(words));
    // QEMU is content with two structures at one place if the refcount says so.
    let shared = told("several structures") || told("another structure");
    let same = (report.corruptions > 0) == (errors > 0);
    assert!(same || shared, "{name}: {report:?}, QEMU {errors}");
    assert!(errors > 0 || shared || report.leaks == leaks, "{name}: {report:?}, QEMU {leaks}");
    let repaired = ours(image, Repair::All).repaired;
    let (_, _) = qemu_img(directory, &["check", "-q", "-r", "all", "image"]);
    let theirs = found(directory);
    put(directory, image);
    let mine = found(directory);
    if report.corruptions + report.leaks == 0 {
        return false;
    }
    if theirs == (0, 0) {
        assert!(repaired || shared, "{name}: only QEMU repairs it: {report:?}");
    }
    if repaired {
        assert_eq!(mine, (0, 0), "{name}: QEMU finds errors after our repair of {report:?}");
        let again = ours(image, Repair::None);
        assert_eq!((again.corruptions, again.leaks), (0, 0), "{name}: {again:?}");
        let after = content(directory);
        // Entries that show as data may be changed by a repair.
        assert!(before.is_none() || shared || before == after, "{name}: data changed");
    }
    repaired
}

#[test]
fn what_qemu_repairs_is_repaired_and_keeps_its_data() {
    let directory = tempfile::tempdir().unwrap();
    let samples = samples(directory.path());
    let number =
        |name, other| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(other);
    let (first, count): (u64, u64) = (number("SEED", 0), number("SEEDS", 40));
    let mut repaired = 0;
    for seed in first..first + count {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) + 1);
        let image = Memory::default();
        let sample = &samples[seed as usize % samples.len()];
        (*image.0.borrow_mut()).clone_from(&sample.0.borrow());
        let what = damage(&image, &mut random);
        let name = format!("seed {seed}, {what}");
        repaired += u64::from(try_one(directory.path(), &image, &name));
    }
    assert!(count < 40 || repaired > count / 4, "{repaired} of {count} were repaired");
}
