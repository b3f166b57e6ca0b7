// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // A C library, loaded at run time, and clocks of other processes.
//! libguestfs, the unmodified client: its C functions, as far as they are timed or prepare what is.
//!
//! Loaded at run time, so that nobody needs it to build; called with nothing in between (an interpreter
//! would take as long as some calls), so that the client's CPU time is the library's own.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{NonNull, null};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// What stands behind `guestfs_h *`.
type Handle = *mut c_void;
type Text = *const c_char;

type Status0 = unsafe extern "C" fn(Handle) -> c_int;
type Status1 = unsafe extern "C" fn(Handle, Text) -> c_int;
type Status2 = unsafe extern "C" fn(Handle, Text, Text) -> c_int;
type Number1 = unsafe extern "C" fn(Handle, Text) -> i64;
type Text1 = unsafe extern "C" fn(Handle, Text) -> *mut c_char;
type Text2 = unsafe extern "C" fn(Handle, Text, Text) -> *mut c_char;
type Numbered = unsafe extern "C" fn(Handle, Text, c_int) -> *mut c_char;
type List0 = unsafe extern "C" fn(Handle) -> *mut *mut c_char;
type List1 = unsafe extern "C" fn(Handle, Text) -> *mut *mut c_char;
type Struct1 = unsafe extern "C" fn(Handle, Text) -> *mut c_void;
type Free = unsafe extern "C" fn(*mut c_void);

/// Declares the functions, and how to find them.
macro_rules! functions {
    ($($name:ident: $type:ty,)*) => {
        /// Functions of the library, by their names without `guestfs_`.
        pub(crate) struct Functions {
            $(pub(crate) $name: $type,)*
        }

        impl Functions {
            fn load(library: NonNull<c_void>) -> Result<Self> {
                Ok(Self {
                    $($name: {
                        let name = concat!("guestfs_", stringify!($name));
                        let symbol = CString::new(name)?;
                        // SAFETY: the library stays loaded, the name is a C string.
                        let address = unsafe { libc::dlsym(library.as_ptr(), symbol.as_ptr()) };
                        ensure!(!address.is_null(), "libguestfs has no {name}");
                        // SAFETY: guestfs(3) declares the function of this name so.
                        unsafe { std::mem::transmute::<*mut c_void, $type>(address) }
                    },)*
                })
            }
        }
    };
}

functions! {
    create: unsafe extern "C" fn() -> Handle,
    close: unsafe extern "C" fn(Handle),
    last_error: unsafe extern "C" fn(Handle) -> Text,
    set_error_handler: unsafe extern "C" fn(Handle, *const c_void, *const c_void),
    add_drive_opts: unsafe extern "C" fn(Handle, Text, ...) -> c_int,
    launch: Status0,
    get_pid: Status0,
    ping_daemon: Status0,
    shutdown: Status0,
    sync: Status0,
    umount_all: Status0,
    blockdev_getro: Status1,
    blockdev_getss: Status1,
    exists: Status1,
    mkdir: Status1,
    mkswap: Status1,
    part_to_partnum: Status1,
    rm: Status1,
    rm_rf: Status1,
    download: Status2,
    mkfs: Status2,
    mount: Status2,
    part_disk: Status2,
    part_init: Status2,
    set_label: Status2,
    set_uuid: Status2,
    tar_in: Status2,
    tar_out: Status2,
    upload: Status2,
    blockdev_getsize64: Number1,
    cat: Text1,
    findfs_label: Text1,
    findfs_uuid: Text1,
    part_get_parttype: Text1,
    part_to_dev: Text1,
    vfs_label: Text1,
    vfs_type: Text1,
    vfs_uuid: Text1,
    checksum: Text2,
    part_get_name: Numbered,
    list_devices: List0,
    list_md_devices: List0,
    lvs: List0,
    pvs: List0,
    vgs: List0,
    list_filesystems: List0,
    list_partitions: List0,
    blkid: List1,
    btrfs_filesystem_show: List1,
    find: List1,
    btrfs_subvolume_list: Struct1,
    free_btrfssubvolume_list: Free,
    part_list: Struct1,
    free_partition_list: Free,
    statns: Struct1,
    free_statns: Free,
    part_add: unsafe extern "C" fn(Handle, Text, Text, i64, i64) -> c_int,
    pread: unsafe extern "C" fn(Handle, Text, c_int, i64, *mut usize) -> *mut c_char,
    write: unsafe extern "C" fn(Handle, Text, Text, usize) -> c_int,
}

/// A client's handle. Results of calls are thrown away, unless they say that the call failed.
pub(crate) struct Guestfs {
    handle: NonNull<c_void>,
    pub(crate) f: Functions,
}

impl Guestfs {
    /// The library, without a session yet.
    pub(crate) fn new() -> Result<Self> {
        // SAFETY: the name is a C string; the library's constructors run, it is this machine's own.
        let library = unsafe { libc::dlopen(c"libguestfs.so.0".as_ptr(), libc::RTLD_NOW) };
        let library = NonNull::new(library)
            .context("there is no libguestfs.so.0: apt-get install libguestfs0")?;
        let f = Functions::load(library)?;
        // SAFETY: takes nothing.
        let handle = NonNull::new(unsafe { (f.create)() }).context("guestfs_create failed")?;
        // SAFETY: the handle is open; no handler, so that errors are only what calls return.
        unsafe { (f.set_error_handler)(handle.as_ptr(), null(), null()) };
        Ok(Self { handle, f })
    }

    /// Adds a raw disk.
    pub(crate) fn add_drive(&self, path: &CStr) -> Result<()> {
        const FORMAT: c_int = 1;
        const END: c_int = -1;
        let raw = c"raw".as_ptr();
        // SAFETY: the handle is open; a list of options that is ended, a string for `format`.
        let status = unsafe {
            (self.f.add_drive_opts)(self.handle.as_ptr(), path.as_ptr(), FORMAT, raw, END)
        };
        self.check(status != -1)
    }

    /// A call with no argument; its number.
    pub(crate) fn status0(&self, f: Status0) -> Result<c_int> {
        // SAFETY: the handle is open.
        let status = unsafe { f(self.handle.as_ptr()) };
        self.check(status != -1).map(|()| status)
    }

    /// A call with a string; its number.
    pub(crate) fn status1(&self, f: Status1, a: &CStr) -> Result<c_int> {
        // SAFETY: the handle is open, the string a C string.
        let status = unsafe { f(self.handle.as_ptr(), a.as_ptr()) };
        self.check(status != -1).map(|()| status)
    }

    /// A call with two strings.
    pub(crate) fn status2(&self, f: Status2, a: &CStr, b: &CStr) -> Result<()> {
        // SAFETY: the handle is open, the strings are C strings.
        self.check(unsafe { f(self.handle.as_ptr(), a.as_ptr(), b.as_ptr()) } != -1)
    }

    /// A call with a string that yields 64 bits.
    pub(crate) fn number1(&self, f: Number1, a: &CStr) -> Result<()> {
        // SAFETY: the handle is open, the string a C string.
        self.check(unsafe { f(self.handle.as_ptr(), a.as_ptr()) } != -1)
    }

    /// A call with a string that yields a string.
    pub(crate) fn text1(&self, f: Text1, a: &CStr) -> Result<CString> {
        // SAFETY: the handle is open, the string a C string; the result is one of malloc's.
        let text = unsafe { f(self.handle.as_ptr(), a.as_ptr()) };
        self.check(!text.is_null())?;
        // SAFETY: a C string of malloc's, which nobody else frees.
        unsafe {
            let copy = CStr::from_ptr(text).to_owned();
            libc::free(text.cast());
            Ok(copy)
        }
    }

    /// A call with two strings that yields a string.
    pub(crate) fn text2(&self, f: Text2, a: &CStr, b: &CStr) -> Result<()> {
        // SAFETY: the handle is open, the strings are C strings.
        let text = unsafe { f(self.handle.as_ptr(), a.as_ptr(), b.as_ptr()) };
        self.freed(text.cast(), libc::free)
    }

    /// A call with a string and a number that yields a string.
    pub(crate) fn numbered(&self, f: Numbered, a: &CStr, n: c_int) -> Result<()> {
        // SAFETY: the handle is open, the string a C string.
        let text = unsafe { f(self.handle.as_ptr(), a.as_ptr(), n) };
        self.freed(text.cast(), libc::free)
    }

    /// A call with no argument that yields strings; their number.
    pub(crate) fn list0(&self, f: List0) -> Result<usize> {
        // SAFETY: the handle is open.
        self.list(unsafe { f(self.handle.as_ptr()) })
    }

    /// A call with a string that yields strings; their number.
    pub(crate) fn list1(&self, f: List1, a: &CStr) -> Result<usize> {
        // SAFETY: the handle is open, the string a C string.
        self.list(unsafe { f(self.handle.as_ptr(), a.as_ptr()) })
    }

    /// A call with a string that yields what `free` frees.
    pub(crate) fn struct1(&self, f: Struct1, free: Free, a: &CStr) -> Result<()> {
        // SAFETY: the handle is open, the string a C string.
        self.freed(unsafe { f(self.handle.as_ptr(), a.as_ptr()) }, free)
    }

    /// Makes a partition, from one sector to another.
    pub(crate) fn part_add(&self, device: &CStr, from: i64, to: i64) -> Result<()> {
        let (device, kind) = (device.as_ptr(), c"primary".as_ptr());
        // SAFETY: the handle is open, the strings are C strings.
        self.check(unsafe { (self.f.part_add)(self.handle.as_ptr(), device, kind, from, to) } != -1)
    }

    /// Reads the beginning of a file.
    pub(crate) fn pread(&self, path: &CStr, count: c_int) -> Result<()> {
        let mut size = 0;
        let path = path.as_ptr();
        // SAFETY: the handle is open, the path a C string, the size one that can be written to.
        let data = unsafe { (self.f.pread)(self.handle.as_ptr(), path, count, 0, &raw mut size) };
        self.freed(data.cast(), libc::free)
    }

    /// Writes a small file.
    pub(crate) fn write(&self, path: &CStr, content: &[u8]) -> Result<()> {
        let (path, bytes) = (path.as_ptr(), content.as_ptr().cast());
        // SAFETY: the handle is open, the path a C string, the content as long as is said.
        let status = unsafe { (self.f.write)(self.handle.as_ptr(), path, bytes, content.len()) };
        self.check(status != -1)
    }

    fn list(&self, list: *mut *mut c_char) -> Result<usize> {
        self.check(!list.is_null())?;
        let mut n = 0;
        // SAFETY: ended by a null pointer; the list and what is in it are malloc's.
        unsafe {
            while !(*list.add(n)).is_null() {
                libc::free((*list.add(n)).cast());
                n += 1;
            }
            libc::free(list.cast());
        }
        Ok(n)
    }

    fn freed(&self, result: *mut c_void, free: Free) -> Result<()> {
        self.check(!result.is_null())?;
        // SAFETY: what the library returned, freed once, by the function that guestfs(3) names.
        unsafe { free(result) };
        Ok(())
    }

    fn check(&self, good: bool) -> Result<()> {
        if good {
            return Ok(());
        }
        // SAFETY: the handle is open; the text is the handle's, and copied before the next call.
        let text = unsafe { (self.f.last_error)(self.handle.as_ptr()) };
        if text.is_null() {
            bail!("a call of libguestfs failed without saying why");
        }
        // SAFETY: it is a C string.
        bail!("{}", unsafe { CStr::from_ptr(text) }.to_string_lossy())
    }
}

impl Drop for Guestfs {
    fn drop(&mut self) {
        // SAFETY: the handle is open, and not used after this.
        unsafe { (self.f.close)(self.handle.as_ptr()) };
    }
}

/// CPU time of a process, all of its threads, without its children; of this one for none.
pub(crate) fn cpu_time(pid: Option<i32>) -> Result<Duration> {
    let mut clock = libc::CLOCK_PROCESS_CPUTIME_ID;
    if let Some(pid) = pid {
        // SAFETY: the clock is one that can be written to.
        let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
        ensure!(error == 0, "no process {pid}: {}", std::io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is one that can be written to.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(std::io::Error::last_os_error()).context("the CPU clock of a process");
    }
    Ok(Duration::new(time.tv_sec.try_into()?, time.tv_nsec.try_into()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_a_process_is_the_same_by_its_number() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = cpu_time(None).unwrap();
        let by_number = cpu_time(Some(own)).unwrap();
        assert!(before <= by_number && by_number <= cpu_time(None).unwrap());
        let none = 1 << 26; // More than Linux numbers.
        assert!(cpu_time(Some(none)).is_err());
    }
}
