// SPDX-License-Identifier: Apache-2.0
//! Device numbers as clients know them: those of SCSI disks, which is what disks are in a virtual machine
//! (linux, Documentation/admin-guide/devices.txt). Without one, a disk is a loop device or a ubd of any number.

/// Numbers that a disk has: itself and 15 partitions.
const MINORS: u32 = 16;
/// Disks of one major number.
const DISKS: u32 = 16;
/// Disks that have numbers below 256.
const MAJORS: u32 = 16;
/// Major number of the partitions after the fifteenth, which the kernel numbers as they come.
const EXTENDED: u32 = 259;

/// The number of a partition (0: the whole) of the disk of this index.
pub(super) fn of_scsi_disk(disk: u32, partition: u32) -> u64 {
    if partition >= MINORS {
        // Which ones the kernel has given away is not known here; these are in its order, and each has its own.
        let minor = (disk << 8) | ((partition - MINORS) & 0xff);
        return rustix::fs::makedev(EXTENDED, minor);
    }
    let major = match disk / DISKS % MAJORS {
        0 => 8,
        n @ 1..=7 => 64 + n,
        n => 120 + n,
    };
    // After the last major number, minor numbers beyond 255 begin with the first again.
    let round = disk / (DISKS * MAJORS) * 256;
    rustix::fs::makedev(major, round + disk % DISKS * MINORS + partition)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn disks_have_the_numbers_that_the_kernels_list_of_devices_says() {
        for (disk, partition, major, minor) in [
            (0, 0, 8, 0),
            (0, 1, 8, 1),
            (1, 0, 8, 16),
            (15, 15, 8, 255),
            // sdq, sdr2, sddx, sddy, sdiv15
            (16, 0, 65, 0),
            (17, 2, 65, 18),
            (127, 0, 71, 240),
            (128, 0, 128, 0),
            (255, 15, 135, 255),
            (256, 0, 8, 256),
            (0, 16, 259, 0),
        ] {
            let number = of_scsi_disk(disk, partition);
            let found = (rustix::fs::major(number), rustix::fs::minor(number));
            assert_eq!(found, (major, minor), "disk {disk}, partition {partition}");
        }
        assert_eq!(of_scsi_disk(0, 0), 2048);
    }

    #[test]
    fn no_two_have_the_same_number() {
        let all = (0..600).flat_map(|disk| (0..128).map(move |n| of_scsi_disk(disk, n)));
        assert_eq!(all.collect::<HashSet<_>>().len(), 600 * 128);
    }
}
