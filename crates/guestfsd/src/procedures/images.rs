// SPDX-License-Identifier: Apache-2.0
//! Filesystems that are images: ISO 9660 and squashfs; and f2fs, which has a single procedure.

use super::change::change;
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use crate::transfer::FileOut;
use guest_error::{Context, Errno, Error, Result};
use guest_fs::paths::{GuestPath, proc_path};
use guestfs_api::{options, structs};
use probe::iso9660;
use rustix::fs::{FileType, Mode, OFlags};
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// What the primary volume descriptor on a device says.
pub(crate) fn isoinfo_device(_: &mut Session, device: Device) -> Result<structs::Isoinfo> {
    volume(&device.open(OFlags::RDONLY)?, device.name())
}

/// What the primary volume descriptor in a file of the guest says.
pub(crate) fn isoinfo(s: &mut Session, isofile: GuestPath<'_>) -> Result<structs::Isoinfo> {
    let file = s.open(isofile, OFlags::RDONLY | OFlags::NONBLOCK)?;
    volume(&file, isofile.as_os_str())
}

fn volume(file: &File, name: &OsStr) -> Result<structs::Isoinfo> {
    let mut descriptor = [0; iso9660::SIZE];
    let volume = match file.read_exact_at(&mut descriptor, iso9660::OFFSET) {
        Ok(()) => iso9660::primary_volume(&descriptor),
        Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => None,
        Err(e) => return Err(e).on(name),
    };
    let volume = volume
        .ok_or_else(|| Error::new(Errno::EINVAL, "not an ISO file or CD-ROM").within(name))?;
    Ok(structs::Isoinfo {
        iso_system_id: volume.system_id,
        iso_volume_id: volume.volume_id,
        iso_volume_space_size: volume.volume_space_size,
        iso_volume_set_size: volume.volume_set_size,
        iso_volume_sequence_number: volume.volume_sequence_number,
        iso_logical_block_size: volume.logical_block_size,
        iso_volume_set_id: volume.volume_set_id,
        iso_publisher_id: volume.publisher_id,
        iso_data_preparer_id: volume.data_preparer_id,
        iso_application_id: volume.application_id,
        iso_copyright_file_id: volume.copyright_file_id,
        iso_abstract_file_id: volume.abstract_file_id,
        iso_bibliographic_file_id: volume.bibliographic_file_id,
        iso_volume_creation_t: volume.volume_creation_t,
        iso_volume_modification_t: volume.volume_modification_t,
        iso_volume_expiration_t: volume.volume_expiration_t,
        iso_volume_effective_t: volume.volume_effective_t,
    })
}

/// Sends a squashfs filesystem with what is at a path: the contents of a directory, or one file.
pub(crate) fn mksquashfs(
    s: &mut Session,
    path: GuestPath<'_>,
    filename: &mut FileOut<'_>,
    options: &options::Mksquashfs<'_>,
) -> Result<()> {
    let entry = s.entry(path)?;
    let is_dir = FileType::from_raw_mode(entry.lstat().on(path)?.st_mode).is_dir();
    // The program finds its source from the directory that it is started in: a descriptor's path
    // would give a file another name.
    let (start, source) = match is_dir {
        true => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            (s.open(path, flags)?.into(), ".".into())
        }
        false => {
            let mut source = std::ffi::OsString::from("./");
            source.push(&entry.name);
            (entry.dir, source)
        }
    };
    let image = scratch_file()?;
    let mut tool = Tool::new("mksquashfs").current_dir(proc_path(start.as_fd()));
    tool = tool.arg(source).file(&image, "the image");
    tool = tool.args(["-noappend", "-no-recovery", "-no-progress", "-quiet", "-wildcards"]);
    if let Some(compressor) = options.compress {
        tool = tool.arg("-comp").arg(compressor);
    }
    if let Some(excludes) = options.excludes.as_deref().filter(|list| !list.is_empty()) {
        // The list goes on to the end of the arguments.
        tool = tool.arg("-e").args(excludes);
    }
    tool.ok().map_err(|e| e.within(path))?;
    let size = image.metadata().on(path)?.len();
    filename.copy_from(&image, 0, size, path).map(drop)
}

/// A file that is gone when it is closed.
fn scratch_file() -> Result<File> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let dir = ["/var/tmp", "/tmp"].iter().find(|d| PathBuf::from(d).is_dir()).unwrap_or(&"/");
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = format!("{dir}/guestfsd-{}-{number}.squashfs", std::process::id());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                rustix::fs::unlink(&path).on(&path)?;
                return Ok(file.into());
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(e) => return Err(e).on(&path),
        }
    }
}

/// Makes a filesystem as large as its device.
pub(crate) fn f2fs_expand(s: &mut Session, device: Device) -> Result<()> {
    change(s, &device, Tool::new("resize.f2fs").arg(device.path()).explains_on_stdout())
}
