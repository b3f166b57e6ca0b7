// SPDX-License-Identifier: Apache-2.0
//! The architecture that a program, library, kernel module, kernel or initrd is for: from its first bytes, or
//! from those of the first program in it.

use guest_error::{Errno, Error, Result};
use guest_fs::cpio::read::{Member, Sink};
use rustix::fs::FileType;

/// Bytes at a file's beginning that say what it is.
pub const HEAD: usize = 4096;

/// Machines of ELF: `e_machine`, and the names for 32 and 64 bits.
const ELF: &[(u16, &str, &str)] = &[
    (2, "sparc", "sparc"),
    (3, "i386", "i386"),
    (4, "m68k", "m68k"),
    (6, "i386", "i386"),
    (8, "mips", "mips64"),
    (18, "sparc", "sparc"),
    (20, "ppc", "ppc"),
    (21, "ppc64", "ppc64"),
    (22, "s390", "s390x"),
    (40, "arm", "arm"),
    (43, "sparc64", "sparc64"),
    (50, "ia64", "ia64"),
    (62, "x86_64", "x86_64"),
    (183, "aarch64", "aarch64"),
    (243, "riscv32", "riscv64"),
    (258, "loongarch32", "loongarch64"),
];

/// Machines of PE.
const PE: &[(u16, &str)] = &[
    (0x014c, "i386"),
    (0x01c0, "arm"),
    (0x01c2, "arm"),
    (0x01c4, "arm"),
    (0x01f0, "ppc"),
    (0x0200, "ia64"),
    (0x5032, "riscv32"),
    (0x5064, "riscv64"),
    (0x5128, "riscv128"),
    (0x8664, "x86_64"),
    (0xaa64, "aarch64"),
];

/// The architecture of a program of this beginning (up to [`HEAD`] bytes).
pub fn of_head(head: &[u8]) -> Option<&'static str> {
    elf(head).or_else(|| kernel(head)).or_else(|| pe(head))
}

fn elf(head: &[u8]) -> Option<&'static str> {
    let ident = head.strip_prefix(b"\x7fELF")?;
    let machine = [*head.get(18)?, *head.get(19)?];
    let (class, data) = (*ident.first()?, *ident.get(1)?);
    let little = data == 1;
    let machine = if little { u16::from_le_bytes(machine) } else { u16::from_be_bytes(machine) };
    let (_, narrow, wide) = ELF.iter().find(|(number, ..)| *number == machine)?;
    match (*wide, class, little) {
        ("ppc64", _, true) => Some("ppc64le"),
        (wide, 2, _) => Some(wide),
        (_, 1, _) => Some(narrow),
        _ => None,
    }
}

/// Kernels that boot loaders start: bzImage of x86 (which may be PE as well), Image of ARM64.
fn kernel(head: &[u8]) -> Option<&'static str> {
    if head.get(0x202..0x206) == Some(b"HdrS") {
        // xloadflags, from version 2.12 on: bit 0 tells of a 64-bit entry point.
        let version = u16::from_le_bytes([*head.get(0x206)?, *head.get(0x207)?]);
        let wide = version >= 0x20c && head.get(0x236).is_some_and(|flags| flags & 1 != 0);
        return Some(if wide { "x86_64" } else { "i386" });
    }
    (head.get(56..60) == Some(b"ARM\x64")).then_some("aarch64")
}

fn pe(head: &[u8]) -> Option<&'static str> {
    head.strip_prefix(b"MZ")?;
    let at: [u8; 4] = head.get(0x3c..0x40)?.try_into().ok()?;
    let at = usize::try_from(u32::from_le_bytes(at)).ok()?;
    let header = head.get(at..at.checked_add(6)?)?.strip_prefix(b"PE\0\0")?;
    let machine = u16::from_le_bytes([header[0], header[1]]);
    PE.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name)
}

/// Looks for the first program in archives, and stops reading there.
#[derive(Debug, Default)]
pub struct FirstProgram {
    /// The beginning of a file.
    head: Vec<u8>,
    /// How long that is to be; 0 where it does not matter.
    wanted: usize,
    found: Option<&'static str>,
}

impl FirstProgram {
    /// The architecture that it is for.
    pub fn architecture(&self) -> Option<&'static str> {
        self.found
    }
}

impl Sink for FirstProgram {
    fn member(&mut self, member: Member) -> Result<()> {
        self.head.clear();
        // Others have no content of their own.
        let is_file = FileType::from_raw_mode(member.mode).is_file();
        let most = usize::try_from(member.size).unwrap_or(HEAD).min(HEAD);
        self.wanted = if is_file { most } else { 0 };
        Ok(())
    }

    fn content(&mut self, bytes: &[u8]) -> Result<()> {
        if self.wanted == 0 {
            return Ok(());
        }
        let room = self.wanted - self.head.len();
        self.head.extend_from_slice(&bytes[..bytes.len().min(room)]);
        if self.head.len() < self.wanted {
            return Ok(());
        }
        self.wanted = 0;
        self.found = elf(&self.head);
        match self.found {
            Some(_) => Err(enough()),
            None => Ok(()),
        }
    }
}

/// Ends reading, because what is looked for was seen.
pub fn enough() -> Error {
    Error::new(Errno::ECANCELED, "enough was seen")
}

#[cfg(test)]
mod tests {
    use super::*;
    use guest_fs::cpio::read::Reader;
    use proptest::prelude::*;

    /// The beginning of an ELF file.
    fn program(machine: u16, class: u8, data: u8) -> Vec<u8> {
        let mut out = b"\x7fELF".to_vec();
        out.extend([class, data, 1]);
        out.resize(18, 0);
        out.extend(if data == 1 { machine.to_le_bytes() } else { machine.to_be_bytes() });
        out.resize(64, 0);
        out
    }

    #[test]
    fn programs_of_every_documented_architecture_are_told_apart() {
        for (machine, class, data, expected) in [
            (3, 1, 1, "i386"),
            (62, 2, 1, "x86_64"),
            (40, 1, 1, "arm"),
            (183, 2, 1, "aarch64"),
            (20, 1, 2, "ppc"),
            (21, 2, 2, "ppc64"),
            (21, 2, 1, "ppc64le"),
            (22, 1, 2, "s390"),
            (22, 2, 2, "s390x"),
            (2, 1, 2, "sparc"),
            (43, 2, 2, "sparc64"),
            (50, 2, 1, "ia64"),
            (243, 1, 1, "riscv32"),
            (243, 2, 1, "riscv64"),
        ] {
            assert_eq!(of_head(&program(machine, class, data)), Some(expected));
        }
        assert_eq!(of_head(&program(0xffff, 1, 1)), None);
        assert_eq!(of_head(b"#!/bin/sh"), None);
    }

    #[test]
    fn programs_of_windows_are_told_apart() {
        let mut head = b"MZ".to_vec();
        head.resize(0x3c, 0);
        head.extend(0x80_u32.to_le_bytes());
        head.resize(0x80, 0);
        head.extend(b"PE\0\0\x64\x86");
        assert_eq!(of_head(&head), Some("x86_64"));
        head[0x3c..0x40].fill(0xff);
        assert_eq!(of_head(&head), None);
    }

    /// A member of an archive.
    fn member(name: &str, mode: usize, content: &[u8]) -> Vec<u8> {
        let mut out = b"070701".to_vec();
        let fields = [1, mode, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, name.len() + 1, 0];
        fields.iter().for_each(|f| out.extend_from_slice(format!("{f:08X}").as_bytes()));
        out.extend_from_slice(name.as_bytes());
        out.push(0);
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    #[test]
    fn the_first_program_of_an_archive_is_found_however_it_comes() {
        let archive = [
            member("bin", 0o40755, b""),
            member("bin/script", 0o100_755, b"#!/bin/sh\n"),
            member("bin/link", 0o120_777, &program(62, 2, 1)),
            member("bin/ls", 0o100_755, &program(183, 2, 1)),
            member("bin/other", 0o100_755, &program(62, 2, 1)),
        ]
        .concat();
        for step in [1, 7, 110, 4096] {
            let mut first = FirstProgram::default();
            let mut reader = Reader::new(&mut first);
            let stopped = archive.chunks(step).find_map(|piece| reader.push(piece).err());
            assert_eq!(stopped.map(|e| e.errno()), Some(Errno::ECANCELED), "{step}");
            assert_eq!(first.architecture(), Some("aarch64"), "{step}");
        }
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(bytes: Vec<u8>) {
            of_head(&bytes);
        }
    }
}
