// SPDX-License-Identifier: Apache-2.0
//! `qemu-img check` as a second opinion: of an image that was found after a crash, written to files.
use std::fs;
use std::io;
use std::process::{Command, Stdio};

use tempfile::TempDir;

/// Its exit code when there is nothing worse than leaks.
const LEAKS: i32 = 3;

/// Checks one of so many images.
#[derive(Debug)]
pub struct Qemu {
    every: u64,
    dir: TempDir,
}

impl Qemu {
    /// Checks one of `every` images.
    ///
    /// # Errors
    /// When there is no `qemu-img`, or no room for files.
    pub fn new(every: u64) -> Result<Self, String> {
        let found = Command::new("qemu-img").arg("--version").stdout(Stdio::null()).status();
        match found {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("qemu-img --version ended with {status}")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(
                    "there is no qemu-img; install qemu-utils, or give --qemu-check 0".into()
                );
            }
            Err(e) => return Err(format!("qemu-img: {e}")),
        }
        let dir = tempfile::tempdir().map_err(|e| format!("a folder for images: {e}"))?;
        Ok(Qemu { every: every.max(1), dir })
    }

    /// Whether image `number` is one of those.
    pub fn wants(&self, number: u64) -> bool {
        number.is_multiple_of(self.every)
    }

    /// Checks an image, which is the first of `files`; the others are what it refers to.
    ///
    /// # Errors
    /// What is wrong with it, in the words of qemu-img.
    pub fn check(&self, files: &[(&str, Vec<u8>)]) -> Result<(), String> {
        for (name, bytes) in files {
            let path = self.dir.path().join(name);
            fs::write(&path, bytes).map_err(|e| format!("{}: {e}", path.display()))?;
        }
        let image = files.first().map_or("", |(name, _)| name);
        let mut command = Command::new("qemu-img");
        command.args(["check", "-f", "qcow2", image]).current_dir(self.dir.path());
        let output = command.output().map_err(|e| format!("qemu-img: {e}"))?;
        if output.status.success() || output.status.code() == Some(LEAKS) {
            return Ok(());
        }
        let told = [output.stderr, output.stdout].concat();
        let told = String::from_utf8_lossy(&told);
        let told: Vec<&str> = told.lines().take(4).collect();
        Err(format!("qemu-img check: {}: {}", output.status, told.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::image::{Below, Filled, Format, create};

    #[test]
    fn images_that_the_builder_makes_are_good_and_a_broken_one_is_not() {
        let qemu = Qemu::new(1).unwrap();
        let filled =
            Filled { data: 200_000, preallocated: 200_000, zero: 200_000, compressed: 200_000 };
        for (cluster_bits, refcount_order, extended_l2) in
            [(9, 4, false), (12, 0, false), (16, 6, false), (14, 1, true)]
        {
            let format = Format {
                version: 3,
                cluster_bits,
                refcount_order,
                extended_l2,
                lazy_refcounts: false,
                data_file: false,
                below: Below::Nothing,
                bitmaps: Some(9).filter(|_| cluster_bits == 12),
                unknown: false,
                filled,
            };
            let (mut image, _) = create(&format, &vec![7; 1 << 20], 5);
            assert_eq!(qemu.check(&[("image", image.clone())]), Ok(()), "{format:?}");
            // The refcounts of the first clusters.
            image[2 << cluster_bits..][..8].fill(0);
            let why = qemu.check(&[("image", image)]).unwrap_err();
            assert!(why.contains("ERROR") || why.contains("corrupt"), "{why}");
        }
    }
}
