// SPDX-License-Identifier: Apache-2.0
//! What the VM boots, made from what the host has: the ELF inside its bzImage, and an initramfs
//! with a busybox and a dozen of its modules. Both are kept in the cache directory.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use super::cpio::{self, Entry};
use crate::run;

const INIT: &str = include_str!("guest/init");
const MODULES: [&str; 8] = [
    "virtio_pci",
    "9pnet_virtio",
    "9p",
    "overlay",
    "virtio_console",
    "configfs",
    "virtio_blk",
    "ext4",
];

/// How a kernel may be compressed: magic number, and a program that undoes it.
#[rustfmt::skip]
const COMPRESSIONS: [(&[u8], &str); 7] = [
    (b"\xfd7zXZ\0",           "xz"),
    (b"\x28\xb5\x2f\xfd",     "zstd"),
    (b"\x1f\x8b",             "gzip"),
    (b"BZh",                  "bzip2"),
    (b"\x02\x21\x4c\x18",     "lz4"),
    (b"\x89LZO",              "lzop"),
    (b"\x5d\0\0",             "lzma"),
];

/// The files that a VM boots.
#[derive(Clone, Debug)]
pub(crate) struct Boot {
    /// Version of the kernel, as in /lib/modules.
    pub(crate) release: String,
    /// An ELF, or the bzImage where the ELF cannot be had.
    pub(crate) kernel: PathBuf,
    pub(crate) initramfs: PathBuf,
}

/// The kernel that tests run on: of those in /boot that have modules, the newest whose release
/// begins with `wanted` (6.12), or, if nothing is wanted, that of Debian's package linux-image-amd64,
/// or the newest.
pub(crate) fn find(wanted: Option<&str>) -> Result<String> {
    let there: Vec<String> = std::fs::read_dir("/boot")?
        .flatten()
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
        .filter(|release| Path::new("/lib/modules").join(release).is_dir())
        .collect();
    let found = match wanted {
        Some(wanted) => newest(there.iter().filter(|release| is_meant(wanted, release))),
        None => {
            let usual = distributions();
            let usual = there.iter().find(|release| Some(*release) == usual.as_ref());
            usual.cloned().or_else(|| newest(there.iter()))
        }
    };
    found.with_context(|| match wanted {
        Some(wanted) => format!("no /boot/vmlinuz-{wanted}* whose modules are there"),
        None => {
            "no /boot/vmlinuz-* whose modules are there: apt-get install linux-image-amd64".into()
        }
    })
}

/// What Debian's package of its usual kernel depends on, without "linux-image-".
fn distributions() -> Option<String> {
    let mut query = Command::new("dpkg-query");
    let depends = run::output(query.args(["-W", "-f", "${Depends}", "linux-image-amd64"])).ok()?;
    let first = depends.split_whitespace().next()?;
    Some(first.strip_prefix("linux-image-")?.to_owned())
}

/// Whether a release is of a version that is given in full, or its beginning.
pub(crate) fn is_meant(wanted: &str, release: &str) -> bool {
    release.strip_prefix(wanted).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
}

/// The newest of some releases.
pub(crate) fn newest<'a>(releases: impl Iterator<Item = &'a String>) -> Option<String> {
    releases.max_by_key(|release| version_key(release)).cloned()
}

fn version_key(release: &str) -> Vec<u64> {
    let digits = release.split(|c: char| !c.is_ascii_digit());
    digits.filter_map(|number| number.parse().ok()).collect()
}

/// The busybox, when it needs no shared libraries.
pub(crate) fn static_busybox() -> Option<PathBuf> {
    let file = run::find_program("busybox")?;
    let elf = std::fs::read(&file).ok()?;
    const PT_INTERP: u32 = 3;
    program_headers(&elf).is_some_and(|all| all.iter().all(|p| p.kind != PT_INTERP)).then_some(file)
}

/// The boot files of a kernel, as [`find`] understands it, made where they are not yet.
pub(crate) fn boot_files(wanted: Option<&str>) -> Result<Boot> {
    let release = find(wanted)?;
    let tag = format!("{release}-{:016x}", about(&release, &(INIT, MODULES))?);
    let file = run::cache_dir()?.join(format!("initramfs-{tag}"));
    let kernel = kernel(&release)?;
    let initramfs = cached(&file, || Ok(cpio::archive(&initramfs(&release, INIT, &MODULES)?)))?;
    Ok(Boot { release, kernel, initramfs })
}

/// A kernel as QEMU boots it fastest.
pub(crate) fn kernel(release: &str) -> Result<PathBuf> {
    let image = bzimage(release);
    let file = run::cache_dir()?.join(format!("vmlinux-{release}-{:016x}", about(release, &())?));
    let kernel = cached(&file, || {
        let bzimage = std::fs::read(&image).with_context(|| {
            format!("cannot read {}: run as root, or make it readable", image.display())
        })?;
        vmlinux(&bzimage)
    });
    Ok(kernel.unwrap_or_else(|error| {
        eprintln!("vm: booting the compressed kernel, which takes longer: {error:#}");
        image
    }))
}

fn bzimage(release: &str) -> PathBuf {
    PathBuf::from(format!("/boot/vmlinuz-{release}"))
}

/// A number for what boot files are made of.
pub(crate) fn about(release: &str, more: &impl Hash) -> Result<u64> {
    let of = |file: &Path| -> Result<(u64, i64, i64)> {
        let m = file.metadata().with_context(|| format!("cannot look at {}", file.display()))?;
        Ok((m.len(), m.mtime(), m.mtime_nsec()))
    };
    let mut hasher = DefaultHasher::new();
    (of(&bzimage(release))?, of(&busybox()?)?, more).hash(&mut hasher);
    Ok(hasher.finish())
}

fn busybox() -> Result<PathBuf> {
    static_busybox().context("no busybox without shared libraries: apt-get install busybox-static")
}

/// The file, made when it is not there. It appears complete or not at all.
fn cached(file: &Path, make: impl FnOnce() -> Result<Vec<u8>>) -> Result<PathBuf> {
    if !file.exists() {
        let dir = file.parent().context("no parent")?;
        let mut new = tempfile::NamedTempFile::new_in(dir)?;
        new.write_all(&make()?)?;
        new.persist(file)?;
    }
    Ok(file.to_path_buf())
}

/// The ELF inside a bzImage. QEMU enters it directly (PVH), which spares the guest from
/// decompressing it: seconds under software emulation.
fn vmlinux(bzimage: &[u8]) -> Result<Vec<u8>> {
    let elf = decompress(payload(bzimage)?)?;
    if !has_pvh_entry(&elf) {
        bail!("the kernel was built without CONFIG_PVH");
    }
    Ok(elf)
}

/// The compressed kernel in a bzImage (Documentation/arch/x86/boot.rst).
fn payload(bzimage: &[u8]) -> Result<&[u8]> {
    let u32_at = |at: usize| Some(u32::from_le_bytes(bzimage.get(at..at + 4)?.try_into().ok()?));
    let version = bzimage.get(0x206..0x208).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if bzimage.get(0x202..0x206) != Some(b"HdrS") || version < Some(0x208) {
        bail!("not a bzImage of boot protocol 2.08 or later");
    }
    let sectors = match bzimage[0x1f1] {
        0 => 4,
        n => usize::from(n),
    };
    let offset = u32_at(0x248).context("short header")? as usize;
    let length = u32_at(0x24c).context("short header")? as usize;
    let start = (sectors + 1) * 512 + offset;
    start
        .checked_add(length)
        .and_then(|end| bzimage.get(start..end))
        .context("the payload lies outside of the file")
}

/// Undoes the compression that the magic number tells, with the program for it.
fn decompress(packed: &[u8]) -> Result<Vec<u8>> {
    let (_, program) = COMPRESSIONS
        .iter()
        .find(|(magic, _)| packed.starts_with(magic))
        .ok_or_else(|| anyhow!("compressed in a way that is not known here"))?;
    // The build of the kernel appends its size, except to gzip's format, which has it anyway.
    let end = packed.len() - if *program == "gzip" { 0 } else { 4.min(packed.len()) };
    pipe(run::command(program).arg("-dc"), &packed[..end])
        .with_context(|| format!("{program} cannot decompress it"))
}

fn pipe(command: &mut Command, input: &[u8]) -> Result<Vec<u8>> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("no pipe")?;
    std::thread::scope(|scope| {
        // A program that ends early says why itself.
        scope.spawn(move || stdin.write_all(input));
        let out = child.wait_with_output()?;
        if out.status.success() { Ok(out.stdout) } else { bail!("{}", out.status) }
    })
}

/// One program header of an ELF file.
struct ProgramHeader<'a> {
    kind: u32,
    content: &'a [u8],
}

fn program_headers(elf: &[u8]) -> Option<Vec<ProgramHeader<'_>>> {
    // 64 bits, little-endian: all that QEMU's x86_64 can enter.
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let u16_at = |at: usize| Some(u16::from_le_bytes(elf.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(elf.get(at..at + 4)?.try_into().ok()?));
    let u64_at = |at: usize| {
        usize::try_from(u64::from_le_bytes(elf.get(at..at.checked_add(8)?)?.try_into().ok()?)).ok()
    };
    let (table, size, count) = (u64_at(0x20)?, usize::from(u16_at(0x36)?), u16_at(0x38)?);
    (0..usize::from(count))
        .map(|i| {
            let at = table.checked_add(i * size).filter(|at| *at < elf.len())?;
            let (offset, length) = (u64_at(at + 8)?, u64_at(at + 0x20)?);
            let content = elf.get(offset..offset.checked_add(length)?)?;
            Some(ProgramHeader { kind: u32_at(at)?, content })
        })
        .collect()
}

/// Whether a kernel has the note that tells its entry for PVH (XEN_ELFNOTE_PHYS32_ENTRY).
fn has_pvh_entry(elf: &[u8]) -> bool {
    const PT_NOTE: u32 = 4;
    const PHYS32_ENTRY: u32 = 18;
    let headers = program_headers(elf).unwrap_or_default();
    headers.iter().filter(|p| p.kind == PT_NOTE).any(|p| {
        notes(p.content).iter().any(|&(name, kind)| name == b"Xen\0" && kind == PHYS32_ENTRY)
    })
}

/// Name and type of each note.
fn notes(mut rest: &[u8]) -> Vec<(&[u8], u32)> {
    let mut found = Vec::new();
    while let Some((head, after)) = rest.split_at_checked(12) {
        let word = |i: usize| u32::from_le_bytes([head[i], head[i + 1], head[i + 2], head[i + 3]]);
        let (name, desc) = (word(0) as usize, word(4) as usize);
        let Some(bytes) = after.get(..name) else { break };
        found.push((bytes, word(8)));
        let next = name.next_multiple_of(4).saturating_add(desc.next_multiple_of(4));
        rest = after.get(next..).unwrap_or_default();
    }
    found
}

/// An initramfs of a busybox, modules with what they depend on (in `/mod`, in the order of
/// `/mod/list`), and this first process.
pub(crate) fn initramfs(release: &str, init: &str, modules: &[&str]) -> Result<Vec<Entry>> {
    let mut files: Vec<PathBuf> = Vec::new();
    for module in modules {
        let text =
            run::output(run::command("modprobe").args(["-S", release, "--show-depends", module]))?;
        for file in insmod_lines(&text) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    let mut entries: Vec<Entry> = ["bin", "dev", "mod"].map(Entry::directory).into();
    entries.push(Entry::file("bin/busybox", 0o755, std::fs::read(busybox()?)?));
    entries.push(Entry::file("init", 0o755, init.into()));
    let mut list = String::new();
    for file in files {
        let mut content = std::fs::read(&file)?;
        let mut name = file.file_name().context("no name")?.to_string_lossy().into_owned();
        for (suffix, program) in [(".xz", "xz"), (".zst", "zstd"), (".gz", "gzip")] {
            if let Some(plain) = name.strip_suffix(suffix) {
                content = pipe(run::command(program).arg("-dc"), &content)?;
                name = plain.to_owned();
            }
        }
        entries.push(Entry::file(&format!("mod/{name}"), 0o644, content));
        list += &format!("{name}\n");
    }
    entries.push(Entry::file("mod/list", 0o644, list.into()));
    Ok(entries)
}

/// The files in the output of `modprobe --show-depends`; what is built in has none.
fn insmod_lines(text: &str) -> impl Iterator<Item = PathBuf> {
    text.lines()
        .filter_map(|line| line.strip_prefix("insmod ")?.split_whitespace().next())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage with one setup sector whose payload is `packed`.
    fn bzimage(packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(packed.len()).unwrap().to_le_bytes());
        image.extend([0; 16]);
        image.extend(packed);
        image.extend([0xee; 64]);
        image
    }

    /// An ELF with one program header of the given type.
    fn elf(kind: u32, content: &[u8]) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01".to_vec();
        elf.resize(64 + 56, 0);
        elf[0x20] = 64;
        elf[0x36] = 56;
        elf[0x38] = 1;
        elf[64..68].copy_from_slice(&kind.to_le_bytes());
        elf[64 + 8] = 120;
        elf[64 + 0x20..64 + 0x28].copy_from_slice(&(content.len() as u64).to_le_bytes());
        elf.extend(content);
        elf
    }

    fn note(name: &[u8; 4], kind: u32) -> Vec<u8> {
        [4u32.to_le_bytes(), 4u32.to_le_bytes(), kind.to_le_bytes(), *name, [1, 2, 3, 4]].concat()
    }

    #[test]
    fn the_payload_of_a_bzimage_is_found() {
        assert_eq!(payload(&bzimage(b"packed")).unwrap(), b"packed");
    }

    #[test]
    fn what_is_no_bzimage_is_refused() {
        assert!(payload(b"").is_err());
        assert!(payload(&[0; 4096]).is_err());
        let mut long = bzimage(b"packed");
        long[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(payload(&long).is_err());
    }

    #[test]
    fn a_compressed_kernel_comes_out_as_it_was() {
        let kernel = elf(4, &note(b"Xen\0", 18));
        let mut packed = pipe(Command::new("gzip").arg("-c"), &kernel).unwrap();
        assert_eq!(vmlinux(&bzimage(&packed)).unwrap(), kernel);
        packed = pipe(Command::new("xz").args(["--check=crc32", "-c"]), &kernel).unwrap();
        packed.extend([1, 2, 3, 4]);
        assert_eq!(vmlinux(&bzimage(&packed)).unwrap(), kernel);
    }

    #[test]
    fn a_kernel_that_qemu_cannot_enter_is_refused() {
        let kernel = elf(4, &note(b"GNU\0", 18));
        let packed = pipe(Command::new("gzip").arg("-c"), &kernel).unwrap();
        assert!(vmlinux(&bzimage(&packed)).unwrap_err().to_string().contains("CONFIG_PVH"));
        assert!(vmlinux(&bzimage(b"\x99\x99")).is_err());
    }

    #[test]
    fn the_pvh_note_is_found_behind_others() {
        let both = [note(b"GNU\0", 1), note(b"Xen\0", 18)].concat();
        assert!(has_pvh_entry(&elf(4, &both)));
        assert!(!has_pvh_entry(&elf(1, &both)));
        assert!(!has_pvh_entry(&both));
    }

    #[test]
    fn kernels_are_ordered_by_their_numbers() {
        assert!(version_key("6.1.0-9-amd64") < version_key("6.1.0-56-amd64"));
        assert!(version_key("6.1.0-56-amd64") < version_key("6.12.1-1-amd64"));
    }

    #[test]
    fn a_version_means_all_that_begin_with_its_numbers() {
        let meant = |wanted| is_meant(wanted, "6.12.107+deb12-amd64");
        assert!(["6.12", "6", "6.12.107", "6.12.107+deb12-amd64"].into_iter().all(meant));
        assert!(!["6.1", "6.12.1", "5"].into_iter().any(meant));
        let all =
            ["6.12.9+deb12-amd64", "6.12.107+deb12-amd64", "6.1.0-56-amd64"].map(String::from);
        assert_eq!(newest(all.iter()).unwrap(), all[1]);
    }

    #[test]
    fn only_modules_with_files_are_loaded() {
        let text = "builtin virtio\ninsmod /lib/modules/6.1/a.ko \ninsmod /lib/b.ko.xz quiet=1\n";
        let files: Vec<_> = insmod_lines(text).collect();
        assert_eq!(files, [Path::new("/lib/modules/6.1/a.ko"), Path::new("/lib/b.ko.xz")]);
    }
}
