// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // Calls of a C library, and structures of it.
//! Files of a filesystem as libtsk finds them, deleted ones among them.
//!
//! What is on the device is the guest's, and libtsk is C: a process of its own opens the device, gives up everything
//! else, and writes what it finds to its standard output as XDR. The library's structures are read where they are;
//! where their fields stand is known for some versions, and others are refused.

use crate::confined;
use crate::library::{Library, call};
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::Wire;
use guestfs_api::structs::TskDirent;
use guestfs_api::xdr::Encoder;
use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_uint, c_void};
use std::io::{BufWriter, Read, Stdout, Write};
use std::os::unix::ffi::OsStrExt;
use std::ptr::NonNull;

/// The library.
pub(crate) const LIBRARY: &CStr = c"libtsk.so.19";
/// Versions whose structures are those described below.
const VERSIONS: [&str; 1] = ["4.11.1"];
/// Most memory that the process may use.
const MEMORY: u64 = 2 << 30;

/// `TSK_IMG_TYPE_RAW`: the device as it is, and no file that something on it names.
const RAW: c_int = 1;
/// `TSK_FS_TYPE_DETECT`.
const DETECT: c_int = 0;
/// Names in use and names that are not, in all directories, without those that have no directory.
const WALK: c_int = 1 | 2 | 4 | 8;
/// What the callback answers: go on, or stop for an error.
const GO_ON: c_int = 0;
const FAILED: c_int = 2;
/// `TSK_FS_NAME_FLAG_UNALLOC`, `TSK_FS_META_FLAG_ALLOC`, `TSK_FS_META_FLAG_COMP`.
const NAME_UNUSED: u32 = 2;
const META_IN_USE: u32 = 1;
const META_COMPRESSED: u32 = 16;

/// What clients are told: the name is in use; it is not, but its inode is; the file is compressed.
const IN_USE: u32 = 1;
const INODE_IN_USE: u32 = 2;
const COMPRESSED: u32 = 4;

/// Letters of types, by the library's number of the type that a name has.
const TYPES: &[u8; 12] = b"ufcdbrlshwuu";

/// Where fields of `TSK_FS_FILE`, `TSK_FS_NAME`, `TSK_FS_META` and `TSK_FS_INFO` stand.
mod at {
    pub(super) const FILE_NAME: usize = 8;
    pub(super) const FILE_META: usize = 16;
    pub(super) const NAME_TEXT: usize = 8;
    pub(super) const NAME_INODE: usize = 40;
    pub(super) const NAME_TYPE: usize = 80;
    pub(super) const NAME_FLAGS: usize = 84;
    pub(super) const META_FLAGS: usize = 4;
    pub(super) const META_LINKS: usize = 24;
    pub(super) const META_SIZE: usize = 32;
    pub(super) const MTIME: usize = 48;
    pub(super) const ATIME: usize = 64;
    pub(super) const CTIME: usize = 80;
    pub(super) const CRTIME: usize = 96;
    /// From seconds to nanoseconds.
    pub(super) const NANOSECONDS: usize = 8;
    pub(super) const META_LINK: usize = 248;
    pub(super) const ROOT: usize = 32;
}

type Handle = *mut c_void;
type Text = *const c_char;
type Callback = unsafe extern "C" fn(*const u8, Text, *mut c_void) -> c_int;

/// What the callback needs.
struct Finder {
    out: BufWriter<Stdout>,
    /// The inode of the directory at the top.
    root: u64,
    /// Only names of this inode, if any.
    inode: Option<u64>,
    /// Bytes of what is written next.
    bytes: Vec<u8>,
    failed: Option<Error>,
}

/// Writes all files of a filesystem to standard output, or those of one inode. The request is on standard input: the
/// inode or nothing, a line feed, and the device.
pub(crate) fn helper() -> Result<()> {
    confined::limit("tsk", MEMORY)?;
    let mut request = Vec::new();
    std::io::stdin().read_to_end(&mut request).on("tsk")?;
    let no_request = || Error::new(Errno::EPROTO, "tsk: no such request");
    let line = request.iter().position(|&b| b == b'\n').ok_or_else(no_request)?;
    let (inode, device) = (&request[..line], &request[line + 1..]);
    let inode = match std::str::from_utf8(inode).map_err(|_| no_request())? {
        "" => None,
        number => Some(number.parse().map_err(|_| no_request())?),
    };
    walk(OsStr::from_bytes(device), inode)
}

fn walk(device: &OsStr, inode: Option<u64>) -> Result<()> {
    let tsk = Library::open(LIBRARY)?;
    let version = call!(tsk, c"tsk_version_get_str", fn() -> Text,);
    // SAFETY: the library answers with a constant string.
    let version = unsafe { text(version) };
    let version = String::from_utf8_lossy(version).into_owned();
    if !VERSIONS.contains(&version.as_str()) {
        let known = VERSIONS.join(", ");
        let text = format!("libtsk is of version {version}: what is known here is {known}");
        return Err(Error::not_supported(text));
    }
    let name = CString::new(device.as_bytes()).map_err(Error::invalid)?;
    let open = call!(
        tsk,
        c"tsk_img_open_utf8_sing",
        fn(Text, c_int, c_uint) -> Handle,
        name.as_ptr(),
        RAW,
        0
    );
    let image = NonNull::new(open).ok_or_else(|| failure(&tsk, device))?.as_ptr();
    // The device is opened when it is first read.
    let mut sector = [0_u8; 512];
    call!(
        tsk,
        c"tsk_img_read",
        fn(Handle, i64, *mut u8, usize) -> isize,
        image,
        0,
        sector.as_mut_ptr(),
        sector.len()
    );
    confined::nothing_else("tsk")?;
    let fs = call!(tsk, c"tsk_fs_open_img", fn(Handle, i64, c_int) -> Handle, image, 0, DETECT);
    let fs = NonNull::new(fs).ok_or_else(|| failure(&tsk, device))?.as_ptr();
    // SAFETY: the structure has this field there.
    let root: u64 = unsafe { field(fs.cast(), at::ROOT) };
    let mut finder = Finder {
        out: BufWriter::new(std::io::stdout()),
        root,
        inode,
        bytes: Vec::new(),
        failed: None,
    };
    let walked = call!(
        tsk,
        c"tsk_fs_dir_walk",
        fn(Handle, u64, c_int, Callback, *mut c_void) -> u8,
        fs,
        root,
        WALK,
        found,
        (&raw mut finder).cast()
    );
    if let Some(e) = finder.failed {
        return Err(e);
    }
    if walked != 0 {
        return Err(failure(&tsk, device));
    }
    finder.out.flush().on("tsk")
}

/// What the library says of its last error.
fn failure(tsk: &Library, device: &OsStr) -> Error {
    let said = || -> Result<String> {
        let said = call!(tsk, c"tsk_error_get", fn() -> Text,);
        // SAFETY: the library answers with a string, or null, that lives until its next error.
        let said = unsafe { text(said) };
        Ok(String::from_utf8_lossy(said).trim().to_owned())
    };
    let said = said().ok().filter(|said| !said.is_empty());
    Error::new(Errno::EIO, said.unwrap_or_else(|| "no filesystem".to_owned())).within(device)
}

/// Called by the library for each name that it finds.
///
/// # Safety
///
/// The file and path are the library's, `finder` is a [`Finder`] that nobody else uses meanwhile.
unsafe extern "C" fn found(file: *const u8, path: Text, finder: *mut c_void) -> c_int {
    // SAFETY: as said above.
    let (finder, file) = unsafe { (&mut *finder.cast::<Finder>(), dirent(file, path)) };
    let Some((own, file)) = file else { return GO_ON };
    // A directory's names of itself and of the one above are not told, but for the top's of itself.
    let dots = own == b".." || (own == b"." && file.tsk_inode != finder.root);
    if dots || finder.inode.is_some_and(|inode| inode != file.tsk_inode) {
        return GO_ON;
    }
    finder.bytes.clear();
    let encoded = file.encode(&mut Encoder::new(&mut finder.bytes)).map_err(Error::invalid);
    match encoded.and_then(|()| finder.out.write_all(&finder.bytes).on("tsk")) {
        Ok(()) => GO_ON,
        Err(e) => {
            finder.failed = Some(e);
            FAILED
        }
    }
}

/// A file's name in its directory, and what a client is told of it.
///
/// # Safety
///
/// The file and path are the library's.
unsafe fn dirent<'t>(file: *const u8, path: Text) -> Option<(&'t [u8], TskDirent)> {
    // SAFETY: the structures have these fields there, and their pointers are null or lead to what is read.
    unsafe {
        let (name, meta): (*const u8, *const u8) =
            (field(file, at::FILE_NAME), field(file, at::FILE_META));
        if name.is_null() {
            return None;
        }
        let own = text(field(name, at::NAME_TEXT));
        let (kind, flags): (u32, u32) = (field(name, at::NAME_TYPE), field(name, at::NAME_FLAGS));
        let letter = usize::try_from(kind).ok().and_then(|kind| TYPES.get(kind));
        let mut dirent = TskDirent {
            tsk_inode: field(name, at::NAME_INODE),
            tsk_type: letter.copied().unwrap_or(b'u'),
            tsk_size: -1,
            tsk_name: OsStr::from_bytes(&[text(path), own].concat()).to_owned(),
            tsk_flags: if flags & NAME_UNUSED == 0 { IN_USE } else { 0 },
            ..TskDirent::default()
        };
        if meta.is_null() {
            return Some((own, dirent));
        }
        let meta_flags: u32 = field(meta, at::META_FLAGS);
        if flags & NAME_UNUSED != 0 && meta_flags & META_IN_USE != 0 {
            dirent.tsk_flags |= INODE_IN_USE;
        }
        if meta_flags & META_COMPRESSED != 0 {
            dirent.tsk_flags |= COMPRESSED;
        }
        let time = |at: usize| -> (i64, i64) {
            (field(meta, at), i64::from(field::<u32>(meta, at + at::NANOSECONDS)))
        };
        dirent.tsk_size = field(meta, at::META_SIZE);
        dirent.tsk_nlink = i64::from(field::<c_int>(meta, at::META_LINKS));
        dirent.tsk_link = OsStr::from_bytes(text(field(meta, at::META_LINK))).to_owned();
        (dirent.tsk_atime_sec, dirent.tsk_atime_nsec) = time(at::ATIME);
        (dirent.tsk_mtime_sec, dirent.tsk_mtime_nsec) = time(at::MTIME);
        (dirent.tsk_ctime_sec, dirent.tsk_ctime_nsec) = time(at::CTIME);
        (dirent.tsk_crtime_sec, dirent.tsk_crtime_nsec) = time(at::CRTIME);
        Some((own, dirent))
    }
}

/// A field of a structure of the library.
///
/// # Safety
///
/// There must be one of this type so many bytes from here.
unsafe fn field<T: Copy>(structure: *const u8, at: usize) -> T {
    // SAFETY: as said above.
    unsafe { structure.add(at).cast::<T>().read_unaligned() }
}

/// The bytes of a string of the library; none for null.
///
/// # Safety
///
/// It must be null or a C string that lives long enough.
unsafe fn text<'t>(text: Text) -> &'t [u8] {
    // SAFETY: as said above.
    if text.is_null() { b"" } else { unsafe { CStr::from_ptr(text) }.to_bytes() }
}
