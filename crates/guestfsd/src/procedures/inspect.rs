//! Questions about operating systems: inspecting, and asking what was found.

use crate::error::{Error, Result};
use crate::inspect::{self, Os, architecture};
use crate::mountable::{Mountable, MountableName};
use crate::paths::GuestPath;
use crate::rpm;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::from_io;
use guestfs_api::{Errno, structs};
use rustix::fs::OFlags;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::PathBuf;

/// What is told where something could not be found out.
const UNKNOWN: &str = "unknown";

/// Inspects all disks; yields the root filesystems that were found.
pub(crate) fn inspect_os(s: &mut Session) -> Result<Vec<MountableName>> {
    inspect::inspect(s)
}

/// The root filesystems that were found.
pub(crate) fn inspect_get_roots(s: &mut Session) -> Result<Vec<MountableName>> {
    Ok(inspect::roots(s))
}

fn os<'s>(s: &'s mut Session, root: &Mountable) -> Result<&'s Os> {
    Ok(&inspect::root(s, root)?.os)
}

fn or_unknown(text: Option<&OsString>) -> OsString {
    text.cloned().unwrap_or_else(|| UNKNOWN.into())
}

/// `installed`: installers are not looked for.
pub(crate) fn inspect_get_format(_: &mut Session, _: Mountable) -> Result<&'static str> {
    Ok("installed")
}

/// Linux, Windows, ...
pub(crate) fn inspect_get_type(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.kind)
}

/// Which distribution.
pub(crate) fn inspect_get_distro(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.distro.unwrap_or(UNKNOWN))
}

/// Format of packages.
pub(crate) fn inspect_get_package_format(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.package_format.unwrap_or(UNKNOWN))
}

/// What manages packages.
pub(crate) fn inspect_get_package_management(
    s: &mut Session,
    root: Mountable,
) -> Result<&'static str> {
    Ok(os(s, &root)?.package_management.unwrap_or(UNKNOWN))
}

/// What people call it.
pub(crate) fn inspect_get_product_name(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.product_name.as_ref()))
}

/// Which kind of the product.
pub(crate) fn inspect_get_product_variant(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.product_variant.as_ref()))
}

/// Major version, or 0.
pub(crate) fn inspect_get_major_version(s: &mut Session, root: Mountable) -> Result<i32> {
    Ok(os(s, &root)?.version.map_or(0, |(major, _)| major))
}

/// Minor version, or 0.
pub(crate) fn inspect_get_minor_version(s: &mut Session, root: Mountable) -> Result<i32> {
    Ok(os(s, &root)?.version.map_or(0, |(_, minor)| minor))
}

/// Architecture.
pub(crate) fn inspect_get_arch(s: &mut Session, root: Mountable) -> Result<&'static str> {
    Ok(os(s, &root)?.arch.unwrap_or(UNKNOWN))
}

/// Name in the network.
pub(crate) fn inspect_get_hostname(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.hostname.as_ref()))
}

/// Which build.
pub(crate) fn inspect_get_build_id(s: &mut Session, root: Mountable) -> Result<OsString> {
    Ok(or_unknown(os(s, &root)?.build_id.as_ref()))
}

/// Something that only Windows has, or the error that it has not.
fn of_windows<T>(
    s: &mut Session,
    root: &Mountable,
    what: &str,
    get: impl Fn(&inspect::Windows) -> Option<T>,
) -> Result<T> {
    os(s, root)?.windows.as_ref().and_then(get).ok_or_else(|| {
        let why = format!("not a Windows guest, or {what}");
        Error::argument("root", root, &why)
    })
}

/// The directory of Windows' system.
pub(crate) fn inspect_get_windows_systemroot(s: &mut Session, root: Mountable) -> Result<OsString> {
    let what = "systemroot could not be determined";
    of_windows(s, &root, what, |w| Some(w.systemroot.clone()))
}

/// The file of HKLM\SOFTWARE.
pub(crate) fn inspect_get_windows_software_hive(
    s: &mut Session,
    root: Mountable,
) -> Result<OsString> {
    of_windows(s, &root, "software hive not found", |w| w.software_hive.clone())
}

/// The file of HKLM\SYSTEM.
pub(crate) fn inspect_get_windows_system_hive(
    s: &mut Session,
    root: Mountable,
) -> Result<OsString> {
    of_windows(s, &root, "system hive not found", |w| w.system_hive.clone())
}

/// The name of the key of the control set that is current.
pub(crate) fn inspect_get_windows_current_control_set(
    s: &mut Session,
    root: Mountable,
) -> Result<String> {
    let what = "CurrentControlSet could not be determined";
    of_windows(s, &root, what, |w| w.current_control_set.clone())
}

/// Whether policies of a domain have been applied to a Windows.
pub(crate) fn inspect_get_windows_group_policy(s: &mut Session, root: Mountable) -> Result<bool> {
    of_windows(s, &root, "its registry could not be read", |w| Some(w.group_policy))
}

/// False: live systems are not looked for.
pub(crate) fn inspect_is_live(_: &mut Session, _: Mountable) -> Result<bool> {
    Ok(false)
}

/// False: installers are not looked for.
pub(crate) fn inspect_is_netinst(_: &mut Session, _: Mountable) -> Result<bool> {
    Ok(false)
}

/// False: installers are not looked for.
pub(crate) fn inspect_is_multipart(_: &mut Session, _: Mountable) -> Result<bool> {
    Ok(false)
}

/// Where the system mounts what.
pub(crate) fn inspect_get_mountpoints(
    s: &mut Session,
    root: Mountable,
) -> Result<Vec<(OsString, MountableName)>> {
    Ok(inspect::root(s, &root)?.mountpoints.clone())
}

/// Filesystems and swap space that belong to the system.
pub(crate) fn inspect_get_filesystems(
    s: &mut Session,
    root: Mountable,
) -> Result<Vec<MountableName>> {
    Ok(inspect::root(s, &root)?.filesystems.clone())
}

/// Windows' letters and the partitions behind them.
pub(crate) fn inspect_get_drive_mappings(
    s: &mut Session,
    root: Mountable,
) -> Result<Vec<(String, PathBuf)>> {
    Ok(inspect::root(s, &root)?.drives.clone())
}

/// Packages in the RPM database of the guest that is mounted.
pub(crate) fn internal_list_rpm_applications(
    s: &mut Session,
) -> Result<Vec<structs::Application2>> {
    s.need_root()?;
    let mut tool = Tool::new("/proc/self/exe").arg("--helper=rpm");
    if s.serves_machine() {
        tool = tool.arg("-r");
    }
    let output = tool.run()?;
    if output.code == 0 {
        return rpm::parse(&output.stdout);
    }
    let text = output.stderr.trim();
    let text = text.strip_prefix("guestfsd: ").unwrap_or(text);
    match output.code {
        _ if text.is_empty() => Err(output.failure()),
        // The process cannot say more than that it failed.
        _ if text.starts_with("librpm ") => Err(Error::not_supported(text)),
        _ => Err(Error::new(Errno::EIO, text)),
    }
}

/// The architecture that a file is for.
pub(crate) fn file_architecture(s: &mut Session, filename: GuestPath<'_>) -> Result<&'static str> {
    let path = s.open(filename, OFlags::PATH)?;
    let stat = rustix::fs::fstat(&path).map_err(|e| Error::new(crate::paths::errno(e), "stat"))?;
    if !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(Error::argument("filename", filename, "not a regular file"));
    }
    let mut file = s.open(filename, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let found = architecture_of(&mut file, 0, MAX_ARCHIVES).map_err(|e| e.within(filename))?;
    found.ok_or_else(|| {
        let why =
            "not a file whose architecture is known: not a program, library, module or initrd";
        Error::argument("filename", filename, why)
    })
}

/// Most archives of one initrd, one after the other.
const MAX_ARCHIVES: u32 = 8;

/// The architecture of what begins at this offset of a file; so many archives may follow each other.
fn architecture_of(file: &mut File, offset: u64, left: u32) -> Result<Option<&'static str>> {
    file.seek(SeekFrom::Start(offset)).map_err(|e| from_io(e, "seek"))?;
    let mut head = Vec::new();
    let mut start = (&mut *file).take(architecture::HEAD as u64);
    start.read_to_end(&mut head).map_err(|e| from_io(e, "read"))?;
    if let Some(found) = architecture::of_head(&head) {
        return Ok(Some(found));
    }
    file.seek(SeekFrom::Start(offset)).map_err(|e| from_io(e, "seek"))?;
    if architecture::is_cpio(&head) {
        return if left == 0 { Ok(None) } else { in_archive(file, offset, left - 1) };
    }
    let Some(program) = architecture::decompressor(&head) else { return Ok(None) };
    let mut search = Search::default();
    let tool = Tool::new(program).arg("-dc");
    let streamed = tool.stream(file, &mut |piece| search.take(piece));
    match (search.found, streamed) {
        (Some(found), _) => Ok(Some(found)),
        // What follows an archive's end is of no interest; whether the program is, is.
        (None, Ok(output)) if output.code == 0 || search.over => Ok(None),
        (None, Ok(output)) => Err(output.failure()),
        (None, Err(e)) if e.errno() == Errno::ECANCELED => Ok(None),
        (None, Err(e)) => Err(e),
    }
}

/// An archive that is not compressed: the processor's microcode, before the archive that matters.
fn in_archive(file: &mut File, offset: u64, left: u32) -> Result<Option<&'static str>> {
    let mut archive = architecture::Archive::default();
    let mut piece = vec![0; 64 << 10];
    loop {
        let n = file.read(&mut piece).map_err(|e| from_io(e, "read"))?;
        if n == 0 {
            return Ok(None);
        }
        match archive.feed(&piece[..n]) {
            architecture::Progress::More => {}
            architecture::Progress::Found(found) => return Ok(Some(found)),
            architecture::Progress::Nonsense => return Ok(None),
            architecture::Progress::Ended(len) => {
                let next = next_archive(file, offset.saturating_add(len))?;
                return next.map_or(Ok(None), |next| architecture_of(file, next, left));
            }
        }
    }
}

/// Where the zeros after an archive end.
fn next_archive(file: &mut File, offset: u64) -> Result<Option<u64>> {
    /// Padding is to a block, as a rule.
    const MOST: u64 = 1 << 20;
    file.seek(SeekFrom::Start(offset)).map_err(|e| from_io(e, "seek"))?;
    let mut padding = Vec::new();
    file.take(MOST).read_to_end(&mut padding).map_err(|e| from_io(e, "read"))?;
    Ok(padding.iter().position(|&b| b != 0).map(|at| offset + at as u64))
}

/// Looks for a program in what comes out of a decompressor.
#[derive(Default)]
struct Search {
    head: Vec<u8>,
    archive: architecture::Archive,
    bytes: u64,
    found: Option<&'static str>,
    over: bool,
}

impl Search {
    /// Most bytes that are looked through: what is compressed may be without end.
    const MOST: u64 = 2 << 30;

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        let stop = || Error::new(Errno::ECANCELED, "enough was seen");
        self.bytes += piece.len() as u64;
        let room = architecture::HEAD.saturating_sub(self.head.len());
        self.head.extend_from_slice(&piece[..piece.len().min(room)]);
        self.found = architecture::of_head(&self.head);
        if self.found.is_none() {
            let progress = self.archive.feed(piece);
            // A single file is not an archive from its first bytes on.
            let plain = self.head.len() < architecture::HEAD && !architecture::is_cpio(&self.head);
            match progress {
                architecture::Progress::Found(found) => self.found = Some(found),
                architecture::Progress::More => {}
                architecture::Progress::Nonsense if plain => {}
                _ => self.over = true,
            }
        }
        self.over |= self.found.is_some() || self.bytes > Self::MOST;
        if self.over { Err(stop()) } else { Ok(()) }
    }
}
