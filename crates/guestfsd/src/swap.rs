// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code)] // The two system calls have no safe wrapper.
//! What is swapped on in a session: switched on and off by descriptor, and off when the session ends.

use guest_error::{Context, Errno, Error, Result, shown};
use guest_fs::paths::proc_path;
use rustix::fs::FileType;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use teardown::watched;

/// Devices and files that the session has switched on.
#[derive(Debug, Default)]
pub(crate) struct Swaps {
    on: Vec<Swap>,
}

#[derive(Debug)]
struct Swap {
    /// Opened with `O_PATH`: it is found again whatever its name is by then.
    file: File,
    identity: Identity,
    name: OsString,
}

/// Tells devices and files apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Device(u64),
    File { filesystem: u64, inode: u64 },
}

fn identity(file: &File) -> rustix::io::Result<Identity> {
    let stat = rustix::fs::fstat(file)?;
    Ok(if FileType::from_raw_mode(stat.st_mode).is_block_device() {
        Identity::Device(stat.st_rdev)
    } else {
        Identity::File { filesystem: stat.st_dev, inode: stat.st_ino }
    })
}

impl Swaps {
    /// Has the kernel swap to a device or file.
    pub(crate) fn switch_on(&mut self, file: File, name: &OsStr) -> Result<()> {
        let identity = identity(&file).on(name)?;
        let path = path(&file)?;
        // SAFETY: the path is a string that ends in NUL.
        let done = unsafe { libc::swapon(path.as_ptr(), 0) };
        match check(done) {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                // It does not say why; that it is no swap space is what it means as a rule.
                let why = "is not swap space that can be used: `mkswap` makes it so";
                return Err(Error::new(Errno::EINVAL, why).within(name));
            }
            done => done.on(name)?,
        }
        self.on.push(Swap { file, identity, name: name.to_owned() });
        Ok(())
    }

    /// Has the kernel stop swapping to a device or file.
    pub(crate) fn switch_off(&mut self, file: &File, name: &OsStr) -> Result<()> {
        let identity = identity(file).on(name)?;
        match off(file)? {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => {
                return Err(Error::new(Errno::EINVAL, "is not swapped on").within(name));
            }
            done => done.on(name)?,
        }
        self.on.retain(|swap| swap.identity != identity);
        Ok(())
    }

    /// Has the kernel stop swapping to all of them, the last one first.
    pub(crate) fn switch_all_off(&mut self) {
        while let Some(swap) = self.on.pop() {
            let what = format!("swapping off {}", shown(&swap.name));
            match watched(&what, || off(&swap.file)) {
                Ok(Ok(())) => {}
                Ok(Err(e)) => tracing::error!(name = ?swap.name, error = %e, "swapping off"),
                Err(e) => tracing::error!(name = ?swap.name, error = %e, "swapping off"),
            }
        }
    }
}

impl Drop for Swaps {
    fn drop(&mut self) {
        self.switch_all_off();
    }
}

fn off(file: &File) -> Result<std::io::Result<()>> {
    let path = path(file)?;
    // SAFETY: the path is a string that ends in NUL.
    Ok(check(unsafe { libc::swapoff(path.as_ptr()) }))
}

fn check(done: libc::c_int) -> std::io::Result<()> {
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

fn path(file: &File) -> Result<CString> {
    let path = proc_path(file.as_fd());
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new(Errno::EINVAL, "a path with a NUL byte"))
}
