// SPDX-License-Identifier: Apache-2.0
//! The archive format of an initramfs: cpio, "newc"
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

/// A file or directory in an archive.
pub(crate) struct Entry {
    name: String,
    mode: u32,
    content: Vec<u8>,
}

impl Entry {
    /// A directory that all may enter.
    pub(crate) fn directory(name: &str) -> Entry {
        Entry { name: name.into(), mode: 0o40755, content: Vec::new() }
    }

    /// A file with these permissions.
    pub(crate) fn file(name: &str, permissions: u32, content: Vec<u8>) -> Entry {
        Entry { name: name.into(), mode: 0o100_000 | permissions, content }
    }
}

/// The archive of these entries, uncompressed.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let end = Entry { name: "TRAILER!!!".into(), mode: 0, content: Vec::new() };
    let mut out = Vec::new();
    for (i, Entry { name, mode, content }) in entries.iter().chain([&end]).enumerate() {
        // Magic; then ino, mode, uid, gid, nlink, mtime, filesize, four device numbers, namesize
        // and a checksum that this variant leaves 0.
        let (inode, name_size) = (i + 1, name.len() + 1);
        out.extend_from_slice(b"070701");
        for number in [inode, *mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name_size, 0] {
            out.extend_from_slice(format!("{number:08X}").as_bytes());
        }
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        pad(&mut out);
        out.extend_from_slice(content);
        pad(&mut out);
    }
    out
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn each_part_begins_at_a_multiple_of_four() {
        let out = archive(&[Entry::file("ab", 0o644, b"xyz".into())]);
        assert_eq!(out.len() % 4, 0);
        assert_eq!(&out[..14], b"07070100000001");
        assert_eq!(&out[110..113], b"ab\0");
        assert_eq!(&out[116..119], b"xyz");
        assert_eq!(&out[120..126], b"070701");
    }

    #[test]
    fn busybox_unpacks_what_was_packed() {
        let Some(busybox) = super::super::static_busybox() else {
            panic!("no static busybox: apt-get install busybox-static");
        };
        let dir = tempfile::tempdir().unwrap();
        let packed = archive(&[
            Entry::directory("d"),
            Entry::file("d/tool", 0o755, b"#!/bin/sh\n".into()),
            Entry::file("empty", 0o600, Vec::new()),
        ]);
        let mut child = Command::new(busybox)
            .args(["cpio", "-i"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&packed).unwrap();
        assert!(child.wait().unwrap().success());
        assert_eq!(std::fs::read(dir.path().join("d/tool")).unwrap(), b"#!/bin/sh\n");
        assert_eq!(std::fs::read(dir.path().join("empty")).unwrap(), b"");
    }
}
