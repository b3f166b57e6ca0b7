//! The architecture that a program, library, kernel module, kernel or initrd is for: from its first bytes, or
//! from those of the first program in it.

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

/// How a file is compressed, as the program that undoes that.
pub fn decompressor(head: &[u8]) -> Option<&'static str> {
    const MAGIC: &[(&[u8], &str)] = &[
        (b"\x1f\x8b", "gzip"),
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"\x5d\0\0", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"\x02\x21\x4c\x18", "lz4"),
        (b"\x04\x22\x4d\x18", "lz4"),
        (b"\x89LZO\0", "lzop"),
    ];
    MAGIC.iter().find(|(magic, _)| head.starts_with(magic)).map(|(_, program)| *program)
}

/// Whether a file begins as a cpio archive of the kind that the kernel takes.
pub fn is_cpio(head: &[u8]) -> bool {
    head.starts_with(b"070701") || head.starts_with(b"070702")
}

/// Bytes of an entry's header.
const ENTRY: usize = 110;
/// Longest name of an entry.
const MAX_NAME: u64 = 4096;

/// Looks for the first program in a cpio archive that comes in pieces of any size.
#[derive(Debug, Default)]
pub struct Archive {
    /// What has come and is not yet understood.
    pending: Vec<u8>,
    /// Bytes to be passed over.
    skip: u64,
    /// At the end; yields how far into the stream.
    ended: bool,
    /// Bytes that have been consumed.
    position: u64,
}

/// What a piece of an archive has led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More is needed.
    More,
    /// A program of this architecture.
    Found(&'static str),
    /// The archive ended at this position of the stream.
    Ended(u64),
    /// It is not an archive, or is no longer.
    Nonsense,
}

impl Archive {
    /// Takes the next piece.
    pub fn feed(&mut self, mut piece: &[u8]) -> Progress {
        while !self.ended {
            if self.skip > 0 {
                let n = usize::try_from(self.skip).unwrap_or(usize::MAX).min(piece.len());
                piece = &piece[n..];
                self.skip -= n as u64;
                self.position += n as u64;
                if self.skip > 0 {
                    return Progress::More;
                }
            }
            // Never more than a header, a name and a program's first bytes.
            let need = match self.needed() {
                Ok(need) => need,
                Err(progress) => return progress,
            };
            let n = need.saturating_sub(self.pending.len()).min(piece.len());
            self.pending.extend_from_slice(&piece[..n]);
            piece = &piece[n..];
            if self.pending.len() < need {
                return Progress::More;
            }
            if let Some(progress) = self.entry(need) {
                return progress;
            }
        }
        Progress::Ended(self.position)
    }

    /// Bytes that have to be there before the next step, as far as is known yet.
    fn needed(&self) -> Result<usize, Progress> {
        if self.pending.len() < ENTRY {
            return Ok(ENTRY);
        }
        let (_, size, name) = header(&self.pending).ok_or(Progress::Nonsense)?;
        let head = size.min(HEAD as u64);
        usize::try_from((ENTRY as u64 + name).next_multiple_of(4) + head)
            .map_err(|_| Progress::Nonsense)
    }

    /// Takes an entry whose `need` bytes are there; none if it is passed over.
    fn entry(&mut self, need: usize) -> Option<Progress> {
        let Some((mode, size, name)) = header(&self.pending) else {
            return Some(Progress::Nonsense);
        };
        let begin = usize::try_from((ENTRY as u64 + name).next_multiple_of(4)).ok()?;
        let whole = (begin as u64 + size).next_multiple_of(4);
        if need < begin || (need as u64) < begin as u64 + size.min(HEAD as u64) {
            // Only the header was there.
            return None;
        }
        let is_end = self.pending[ENTRY..].starts_with(b"TRAILER!!!\0");
        let head = self.pending.get(begin..need).unwrap_or_default();
        // Regular files only: others have no contents of their own.
        if mode & 0o170_000 == 0o100_000
            && let Some(found) = elf(head)
        {
            return Some(Progress::Found(found));
        }
        let taken = self.pending.len() as u64;
        self.position += taken;
        self.pending.clear();
        if is_end {
            self.ended = true;
            return Some(Progress::Ended(self.position));
        }
        self.skip = whole.saturating_sub(taken);
        None
    }
}

/// Mode, size and length of the name in an entry's header.
fn header(bytes: &[u8]) -> Option<(u32, u64, u64)> {
    if !is_cpio(bytes) {
        return None;
    }
    let field = |n: usize| {
        let hex = std::str::from_utf8(bytes.get(6 + 8 * n..14 + 8 * n)?).ok()?;
        u32::from_str_radix(hex, 16).ok()
    };
    let (mode, size, name) = (field(1)?, u64::from(field(6)?), u64::from(field(11)?));
    (1..=MAX_NAME).contains(&name).then_some((mode, size, name))
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn entry(name: &str, mode: u32, data: &[u8]) -> Vec<u8> {
        let len = |n: usize| u32::try_from(n).unwrap();
        let (size, name_size) = (len(data.len()), len(name.len() + 1));
        let fields = [1, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        let fields = fields.map(|f| format!("{f:08x}"));
        let mut out = format!("070701{}{name}\0", fields.concat()).into_bytes();
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
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

    #[test]
    fn the_first_program_of_an_archive_is_found_however_it_comes() {
        let mut archive = entry("bin", 0o40755, b"");
        archive.extend(entry("bin/script", 0o100_755, b"#!/bin/sh\n"));
        archive.extend(entry("bin/ls", 0o100_755, &program(183, 2, 1)));
        for step in [1, 7, 110, 4096] {
            let mut reader = Archive::default();
            let found = archive.chunks(step).map(|c| reader.feed(c));
            let found = found.into_iter().find(|p| *p != Progress::More);
            assert_eq!(found, Some(Progress::Found("aarch64")), "{step}");
        }
    }

    #[test]
    fn the_end_of_an_archive_says_where_it_is() {
        let mut archive = entry("kernel/x86", 0o40755, b"");
        archive.extend(entry("TRAILER!!!", 0, b""));
        let len = archive.len() as u64;
        archive.extend(b"more");
        assert_eq!(Archive::default().feed(&archive), Progress::Ended(len));
    }

    proptest! {
        #[test]
        fn bytes_of_any_kind_do_no_harm(pieces: Vec<Vec<u8>>) {
            let mut archive = Archive::default();
            for piece in &pieces {
                of_head(piece);
                archive.feed(piece);
            }
        }
    }
}
