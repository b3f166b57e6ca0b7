// SPDX-License-Identifier: Apache-2.0
//! Disks with LVM in namespaces of a kernel that has dm and md, which is a User-Mode Linux of the test's own: the volumes
//! of a guest can be used from the start and are gone at the end, and those of the host are nobody else's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

#[path = "common/boot.rs"]
mod boot;

use boot::boot;

/// The host's volumes, or the copied ones, at the end of a session that has left them alone.
const SAME_NAME: &str = "my--vg-other my--vg-root";
const COPIED: &str = "my--vg-data my--vg-root";
const INACTIVE: &str = "the volume group my-vg on the disks stays inactive: the host's kernel has";

/// The lines of the session of this name, and what the kernel had after it.
fn session<'p>(printed: &'p str, name: &str) -> (&'p str, &'p str) {
    let (_, rest) = printed.split_once(&format!("BEGIN {name}\n")).expect(name);
    let (lines, rest) = rest.split_once(&format!("END {name}: ")).expect(name);
    (lines, rest.lines().next().unwrap_or_default())
}

#[test]
fn a_guests_volumes_are_there_from_the_start_and_the_hosts_are_nobody_elses() {
    let printed = boot(include_str!("data/volumes.sh"));
    assert!(!printed.contains("FAIL"), "{printed}");
    for (name, has, wanted) in [
        ("df", "", &["guest.img:/dev/my-vg/data ", "guest.img:/dev/my-vg/root "][..]),
        ("filesystems", "", &["/dev/my-vg/root  filesystem  ext4  ROOT "]),
        ("array", "", &["/dev/on-array/root\n"]),
        ("written", "", &["content\n"]),
        ("killed", "", &["again\n"]),
        ("twice", "", &[&format!("SECOND guestfs-novm: {INACTIVE}"), "\nROOT\n"]),
        (
            "same-name",
            SAME_NAME,
            &[INACTIVE, "vg_activate: my-vg: ", "/dev/my-vg/other: No such file"],
        ),
        ("beside", SAME_NAME, &[INACTIVE, "/dev/my-vg/root: unknown\n/dev/on-array/root: ext2\n"]),
        (
            "copied",
            COPIED,
            &[
                INACTIVE,
                "lvremove: /dev/my-vg/data: this logical volume is not active",
                "lvcreate: my-vg: ",
                "vgrename: my-vg: ",
            ],
        ),
    ] {
        let (lines, left) = session(&printed, name);
        assert_eq!(left, has, "{name}: {printed}");
        for part in wanted {
            assert!(lines.contains(part), "{name}: {part:?}: {printed}");
        }
    }
    // Tables of what no session may touch are compared by the script.
    for silent in ["df", "filesystems", "array", "written", "killed"] {
        let (lines, _) = session(&printed, silent);
        assert!(!lines.contains("guestfs-novm: "), "{silent}: {printed}");
    }
}
