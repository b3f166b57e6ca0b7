// SPDX-License-Identifier: Apache-2.0
//! Sessions in namespaces of a kernel that has dm and md, which is a User-Mode Linux of the test's own: whatever ends
//! them, the kernel has nothing of them afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

#[path = "common/boot.rs"]
mod boot;

use boot::boot;

/// What a session with everything has: the encrypted device, two volumes, the array and the disks.
const ALL: &str = "ACTIVE dm-0 dm-1 dm-2 md127 loop0/loop loop1/loop swaps=2";

#[test]
fn however_a_session_ends_the_kernel_has_nothing_of_it() {
    let printed = boot(include_str!("data/teardown.sh"));
    let lines: Vec<&str> = printed.lines().collect();
    let ended: Vec<&&str> = lines.iter().filter(|line| line.starts_with("ENDED ")).collect();
    assert_eq!(ended.len(), 8, "{printed}");
    let (in_use, clean) = ended.split_last().unwrap();
    for line in clean {
        assert!(line.ends_with(": swaps=0"), "{line}\n{printed}");
    }
    let with_all = lines.iter().filter(|line| **line == ALL).count();
    assert_eq!(with_all, 5, "{printed}");
    // What is open elsewhere cannot go, and keeps what it lies on; the log says why.
    assert!(in_use.contains("dm-0 md127"), "{printed}");
    let names = |line: &&str| {
        line.contains("/dev/mapper/secret (dm-0) on md127 is still active")
            && line.contains("(sleep)")
    };
    assert!(lines.iter().any(names), "{printed}");
}
