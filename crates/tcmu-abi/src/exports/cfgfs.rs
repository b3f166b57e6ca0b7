// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! Files of configfs and sysfs: small, a value each. Numbers that C code gets back are the value, or
//! a negative errno; why something failed is logged.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "what C passes is told in the parent module")]

use std::ffi::{CStr, OsStr, c_char, c_int};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::{ptr, slice};

use super::thread::uncancelled;
use crate::Device;
use crate::device::c_string;

/// What is read of a file at most; the kernel's are a page.
const MAX_LEN: u64 = 64 << 10;

/// Text behind C's pointer; `None` for a null pointer.
///
/// # Safety
/// It ends with a NUL.
unsafe fn text<'a>(text: *const c_char) -> Option<&'a OsStr> {
    // SAFETY: as the caller promises.
    let bytes = || unsafe { CStr::from_ptr(text) }.to_bytes();
    (!text.is_null()).then(|| OsStr::from_bytes(bytes()))
}

/// The path of a device's file: `FOLDER/NAME`.
///
/// # Safety
/// The device exists, the name ends with a NUL, or they are null.
unsafe fn device_path(
    device: *const Device,
    folder: &str,
    name: *const c_char,
) -> io::Result<PathBuf> {
    // SAFETY: as the caller promises.
    let (device, name) = unsafe { (Device::from_ptr(device), text(name)) };
    let (Some(device), Some(name)) = (device, name) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    Ok(device.configfs().path().join(folder).join(name))
}

/// Text for C, which frees it; null if there is no memory.
pub(super) fn malloced(text: &str) -> *mut c_char {
    // SAFETY: the text ends with a NUL.
    unsafe { libc::strdup(c_string(text).as_ptr()) }
}

/// The content of a file without the line's end.
fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_LEN).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.strip_suffix('\n').unwrap_or(&text).to_owned())
}

/// Writes a value at once, as configfs takes it.
fn write(path: &Path, value: &[u8]) -> io::Result<()> {
    match OpenOptions::new().write(true).open(path)?.write(value)? {
        n if n == value.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}

fn read_number(path: &Path) -> io::Result<c_int> {
    // A negative one would be taken for an errno.
    let number = read(path)?.trim().parse().ok().filter(|number: &c_int| *number >= 0);
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Runs what may fail, away from cancellation; logs why it failed.
fn run<T>(what: &str, path: &Path, io: impl FnOnce(&Path) -> io::Result<T>) -> Result<T, c_int> {
    uncancelled(|| {
        io(path).map_err(|error| {
            tracing::error!("{what} {}: {error}", path.display());
            errno(&error)
        })
    })
}

/// As C code gets it.
fn errno(error: &io::Error) -> c_int {
    -error.raw_os_error().unwrap_or(match error.kind() {
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => libc::EINVAL,
        _ => libc::EIO,
    })
}

fn done(result: Result<(), c_int>) -> c_int {
    result.err().unwrap_or(0)
}

/// A file's text, malloc'ed; null if it cannot be read or is empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_get_str(path: *const c_char) -> *mut c_char {
    // SAFETY: C code passes a path or null.
    let Some(path) = (unsafe { text(path) }) else { return ptr::null_mut() };
    match run("read", Path::new(path), read) {
        Ok(text) if !text.is_empty() => malloced(&text),
        _ => ptr::null_mut(),
    }
}

/// Writes `len` bytes to a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_set_str(
    path: *const c_char,
    value: *const c_char,
    len: c_int,
) -> c_int {
    // SAFETY: C code passes a path or null.
    let path = unsafe { text(path) };
    let (Some(path), Ok(len), false) = (path, usize::try_from(len), value.is_null()) else {
        return -libc::EINVAL;
    };
    // SAFETY: C code passes so many bytes.
    let value = unsafe { slice::from_raw_parts(value.cast::<u8>(), len) };
    done(run("write", Path::new(path), |path| write(path, value)))
}

/// A file's number, which is not negative.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_get_int(path: *const c_char) -> c_int {
    // SAFETY: C code passes a path or null.
    let Some(path) = (unsafe { text(path) }) else { return -libc::EINVAL };
    run("read", Path::new(path), read_number).unwrap_or_else(|errno| errno)
}

/// Writes a number to a file.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_set_u32(path: *const c_char, value: u32) -> c_int {
    // SAFETY: C code passes a path or null.
    let Some(path) = (unsafe { text(path) }) else { return -libc::EINVAL };
    done(run("write", Path::new(path), |path| write(path, value.to_string().as_bytes())))
}

/// A device's attribute.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_dev_get_attr_int(
    device: *mut Device,
    name: *const c_char,
) -> c_int {
    // SAFETY: C code passes a device and a name, or null.
    match unsafe { device_path(device, "attrib", name) } {
        Ok(path) => run("read", &path, read_number).unwrap_or_else(|errno| errno),
        Err(error) => errno(&error),
    }
}

/// Starts one of a device's actions.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_dev_exec_action(
    device: *mut Device,
    name: *const c_char,
    value: u32,
) -> c_int {
    // SAFETY: C code passes a device and a name, or null.
    match unsafe { device_path(device, "action", name) } {
        Ok(path) => done(run("write", &path, |path| write(path, value.to_string().as_bytes()))),
        Err(error) => errno(&error),
    }
}

/// Sets a parameter of a device: `KEY=VALUE` to its file `control`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_dev_set_ctrl_u64(
    device: *mut Device,
    key: *const c_char,
    value: u64,
) -> c_int {
    // SAFETY: C code passes a device and a key, or null.
    let (device, key) = unsafe { (Device::from_ptr(device), text(key)) };
    let (Some(device), Some(key)) = (device, key) else { return -libc::EINVAL };
    let path = device.configfs().path().join("control");
    let line = format!("{}={value}", key.to_string_lossy());
    done(run("write", &path, |path| write(path, line.as_bytes())))
}

/// A number of a device's file `info`; 0, and a negative errno in `result`, if it is not there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_dev_get_info_u64(
    device: *mut Device,
    name: *const c_char,
    result: *mut c_int,
) -> u64 {
    // SAFETY: C code passes a device and a name, or null.
    let (device, name) = unsafe { (Device::from_ptr(device), text(name)) };
    let found = match (device, name) {
        (Some(device), Some(name)) => {
            let path = device.configfs().path().join("info");
            let number = |text: String| info_number(&text, &name.to_string_lossy());
            let missing = || io::ErrorKind::InvalidData.into();
            run("read", &path, |path| number(read(path)?).ok_or_else(missing))
        }
        _ => Err(-libc::EINVAL),
    };
    // SAFETY: C code passes a place for the result, or null.
    if let Some(result) = unsafe { result.as_mut() } {
        *result = found.err().unwrap_or(0);
    }
    found.unwrap_or(0)
}

/// Finds `NAME: NUMBER` in a device's `info`. What an administrator wrote as the configuration is in
/// it, too, so that only what stands before or, of several, last counts.
fn info_number(info: &str, name: &str) -> Option<u64> {
    let (head, tail) = info.split_once("Config: ").unwrap_or((info, ""));
    let key = format!("{name}: ");
    let is_word = |text: &str, at: usize| {
        text.get(..at).is_some_and(|before| !before.ends_with(|c: char| c.is_alphanumeric()))
    };
    let value = |text: &str, at: usize| -> Option<u64> {
        let rest = text.get(at + key.len()..)?;
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    let find = |text: &str| {
        let mut all = text.rmatch_indices(key.as_str());
        all.find(|(at, _)| is_word(text, *at)).and_then(|(at, _)| value(text, at))
    };
    find(head).or_else(|| find(tail))
}

/// A device's unit serial number, malloc'ed; null if there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_dev_get_wwn(device: *mut Device) -> *mut c_char {
    // SAFETY: C code passes a device that exists, or null.
    let Some(device) = (unsafe { Device::from_ptr(device) }) else { return ptr::null_mut() };
    match uncancelled(|| device.configfs().unit_serial()) {
        Ok(Some(serial)) => malloced(&serial),
        Ok(None) => ptr::null_mut(),
        Err(error) => {
            tracing::error!("{error}");
            ptr::null_mut()
        }
    }
}

/// Sets a parameter of the kernel module.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn tcmu_cfgfs_mod_param_set_u32(name: *const c_char, value: u32) -> c_int {
    // SAFETY: C code passes a name or null.
    let Some(name) = (unsafe { text(name) }) else { return -libc::EINVAL };
    let path = Path::new("/sys/module").join(tcmu::module::NAME).join("parameters").join(name);
    done(run("write", &path, |path| write(path, value.to_string().as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceConfig;
    use std::fs;

    const INFO: &str = "Status: ACTIVATED  Max Queue Depth: 128  SectorSize: 512  HwMaxSectors: 128\
        \n        Config: file//x Size: 7 Size: 1048576 MaxDataAreaMB: 8 DataPagesPerBlk: 1 \
        CmdsInFlight: 3\n";

    #[test]
    fn a_configuration_string_cannot_pose_as_a_number_of_info() {
        assert_eq!(info_number(INFO, "Size"), Some(1 << 20));
        assert_eq!(info_number(INFO, "SectorSize"), Some(512));
        assert_eq!(info_number(INFO, "HwMaxSectors"), Some(128));
        assert_eq!(info_number(INFO, "MaxDataAreaMB"), Some(8));
        for name in ["Status", "Config", "", "Sectors", "Nothing"] {
            assert_eq!(info_number(INFO, name), None, "{name}");
        }
    }

    #[test]
    fn c_code_reads_and_sets_what_configfs_has_of_a_device() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("core/user_1/d");
        for folder in ["attrib", "action", "wwn"] {
            fs::create_dir_all(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("attrib/hw_block_size"), "4096\n").unwrap();
        fs::write(dir.join("attrib/alias"), "text\n").unwrap();
        fs::write(dir.join("action/block_dev"), "").unwrap();
        fs::write(dir.join("control"), "").unwrap();
        fs::write(dir.join("info"), INFO).unwrap();
        fs::write(dir.join("wwn/vpd_unit_serial"), "T10 VPD Unit Serial Number: a-b\n").unwrap();
        let configfs = tcmu::Configfs::new(root.path()).device(1, "d").unwrap();
        let name = tcmu::DeviceName { hba: 1, name: "d".into(), config: "x/y".into() };
        let device = Device::new(DeviceConfig { name, minor: 0, configfs });
        let (device, mut result) = (device.as_ptr(), 7);
        // SAFETY: the device exists, the names end with a NUL, results are freed.
        unsafe {
            assert_eq!(tcmu_cfgfs_dev_get_attr_int(device, c"hw_block_size".as_ptr()), 4096);
            assert_eq!(tcmu_cfgfs_dev_get_attr_int(device, c"alias".as_ptr()), -libc::EINVAL);
            assert_eq!(tcmu_cfgfs_dev_get_attr_int(device, c"none".as_ptr()), -libc::ENOENT);
            assert_eq!(tcmu_cfgfs_dev_get_attr_int(ptr::null_mut(), c"x".as_ptr()), -libc::EINVAL);
            assert_eq!(tcmu_cfgfs_dev_exec_action(device, c"block_dev".as_ptr(), 1), 0);
            assert_eq!(tcmu_cfgfs_dev_exec_action(device, c"none".as_ptr(), 1), -libc::ENOENT);
            assert_eq!(tcmu_cfgfs_dev_set_ctrl_u64(device, c"dev_size".as_ptr(), 1 << 40), 0);
            let size = tcmu_cfgfs_dev_get_info_u64(device, c"Size".as_ptr(), &raw mut result);
            assert_eq!((size, result), (1 << 20, 0));
            let none = tcmu_cfgfs_dev_get_info_u64(device, c"None".as_ptr(), &raw mut result);
            assert_eq!((none, result), (0, -libc::EINVAL));
            let serial = tcmu_cfgfs_dev_get_wwn(device);
            assert_eq!(CStr::from_ptr(serial), c"a-b");
            libc::free(serial.cast());
        }
        assert_eq!(fs::read_to_string(dir.join("action/block_dev")).unwrap(), "1");
        assert_eq!(fs::read_to_string(dir.join("control")).unwrap(), "dev_size=1099511627776");
    }
}
