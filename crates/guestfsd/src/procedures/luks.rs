// SPDX-License-Identifier: Apache-2.0
//! Encrypted devices: LUKS, and what else cryptsetup(8) opens.
//!
//! Keys go to the program by pipes: never as an argument or a file. They are read to their end, line ends and all.

use super::numbers::not_negative;
use crate::contents;
use crate::devices::Device;
use crate::keys::KeyPipe;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Context, Errno, Error, Result};
use guestfs_api::options;
use probe::device_mapper;
use probe::luks::{self, Found};
use rustix::fs::OFlags;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where opened devices are.
const MAPPER: &str = "/dev/mapper";
/// What the types of encrypted devices are to blkid, and to cryptsetup.
const TYPES: &[(&str, &str)] = &[("crypto_LUKS", "luks"), ("BitLocker", "bitlk")];
/// The type whose keys are passphrases, and whose files of keys are something else.
const TCRYPT: &str = "tcrypt";

/// What the exit statuses of cryptsetup(8) mean, which with a key from a pipe may be all that it says.
const STATUSES: &[(i32, &str)] = &[
    (1, "wrong parameters"),
    (2, "no key slot is opened by this key"),
    (3, "out of memory"),
    (4, "wrong device, or it cannot be opened"),
    (5, "the device exists already or is in use"),
];

/// How an encrypted device is opened.
#[derive(Clone, Copy, Debug, Default)]
struct How<'a> {
    readonly: bool,
    crypttype: Option<&'a OsStr>,
    cipher: Option<&'a OsStr>,
}

/// Opens an encrypted device: what is in it is /dev/mapper/NAME.
pub(crate) fn cryptsetup_open(
    s: &mut Session,
    device: Device,
    key: &OsStr,
    mapname: &OsStr,
    options: &options::CryptsetupOpen,
) -> Result<()> {
    let readonly = options.readonly == Some(true);
    open(
        s,
        &device,
        key,
        mapname,
        How { readonly, crypttype: options.crypttype, cipher: options.cipher },
    )
}

/// Opens a LUKS device.
pub(crate) fn luks_open(
    s: &mut Session,
    device: Device,
    key: &OsStr,
    mapname: &OsStr,
) -> Result<()> {
    open(s, &device, key, mapname, How { crypttype: Some("luks".as_ref()), ..How::default() })
}

/// Opens a LUKS device, to be read only.
pub(crate) fn luks_open_ro(
    s: &mut Session,
    device: Device,
    key: &OsStr,
    mapname: &OsStr,
) -> Result<()> {
    let how = How { readonly: true, crypttype: Some("luks".as_ref()), cipher: None };
    open(s, &device, key, mapname, how)
}

fn open(
    s: &mut Session,
    device: &Device,
    key: &OsStr,
    mapname: &OsStr,
    how: How<'_>,
) -> Result<()> {
    check_name(mapname)?;
    let crypttype = match how.crypttype {
        Some(given) => given.to_owned(),
        None => type_of(device)?.into(),
    };
    let mut tool = cryptsetup("open").arg(option("--type", &crypttype));
    if how.readonly {
        tool = tool.arg("--readonly");
    }
    if let Some(cipher) = how.cipher {
        tool = tool.arg(option("--cipher", cipher));
    }
    let names = [device.path().as_os_str(), mapname];
    made(s, device, |_| match crypttype == TCRYPT {
        true => tool.arg("--").args(names).run_with(&mut key.as_bytes(), None)?.success().map(drop),
        false => run(tool, key, &names),
    })
}

/// Closes what `luks_open` has opened.
pub(crate) fn luks_close(s: &mut Session, device: Device) -> Result<()> {
    close(s, &device)
}

/// Closes what `cryptsetup_open` has opened.
pub(crate) fn cryptsetup_close(s: &mut Session, device: Device) -> Result<()> {
    close(s, &device)
}

fn close(s: &mut Session, device: &Device) -> Result<()> {
    let name = Path::new(device.name()).strip_prefix(MAPPER).map_err(|_| {
        let why = "must be called on the /dev/mapper device that was made by opening";
        Error::argument("device", device, why)
    })?;
    s.udev().settle();
    let closed = cryptsetup("close").arg("--").arg(name).ok();
    s.udev().changed();
    closed.map_err(|e| e.within(device))
}

/// Makes a device LUKS, with this key in a slot.
pub(crate) fn luks_format(
    s: &mut Session,
    device: Device,
    key: &OsStr,
    keyslot: i32,
) -> Result<()> {
    format(s, &device, key, keyslot, None)
}

/// The same with this cipher.
pub(crate) fn luks_format_cipher(
    s: &mut Session,
    device: Device,
    key: &OsStr,
    keyslot: i32,
    cipher: &OsStr,
) -> Result<()> {
    format(s, &device, key, keyslot, Some(cipher))
}

fn format(
    s: &mut Session,
    device: &Device,
    key: &OsStr,
    keyslot: i32,
    cipher: Option<&OsStr>,
) -> Result<()> {
    let slot: u32 = not_negative("keyslot", keyslot)?;
    let mut tool = cryptsetup("luksFormat").arg(option("--key-slot", slot.to_string()));
    if let Some(cipher) = cipher {
        tool = tool.arg(option("--cipher", cipher));
    }
    let done = run(tool, key, &[device.path().as_os_str()]);
    s.udev().changed();
    done.map_err(|e| e.within(device))
}

/// Adds a key, for which one that is there already is needed.
pub(crate) fn luks_add_key(
    _: &mut Session,
    device: Device,
    key: &OsStr,
    newkey: &OsStr,
    keyslot: i32,
) -> Result<()> {
    let slot: u32 = not_negative("keyslot", keyslot)?;
    let new = KeyPipe::new(newkey.as_bytes()).on("newkey")?;
    let tool = cryptsetup("luksAddKey").arg(option("--key-slot", slot.to_string()));
    run(tool, key, &[device.path().as_os_str(), new.path().as_os_str()])
        .map_err(|e| e.within(&device))
}

/// Removes the key in a slot, for which one of the others is needed.
pub(crate) fn luks_kill_slot(
    _: &mut Session,
    device: Device,
    key: &OsStr,
    keyslot: i32,
) -> Result<()> {
    let slot: u32 = not_negative("keyslot", keyslot)?;
    let slot = slot.to_string();
    let tool = cryptsetup("luksKillSlot");
    run(tool, key, &[device.path().as_os_str(), slot.as_ref()]).map_err(|e| e.within(&device))
}

/// UUID of a LUKS device. `cryptsetup` is asked where the header is not beyond doubt.
pub(crate) fn luks_uuid(_: &mut Session, device: Device) -> Result<String> {
    let file = device.open(OFlags::RDONLY)?;
    match luks::read(&file).on(&device)? {
        Found::Uuid(uuid) => Ok(uuid),
        Found::Nothing => Err(Error::new(Errno::EINVAL, "not a LUKS device").within(&device)),
        Found::Unsure => {
            let tool = cryptsetup("luksUUID").arg("--").arg(device.path());
            let output = tool.output().map_err(|e| e.within(&device))?;
            Ok(String::from_utf8_lossy(&output).trim().to_owned())
        }
    }
}

/// Opens a LUKS device with the key that Clevis gets for it: from a server in the network, or a TPM.
pub(crate) fn clevis_luks_unlock(s: &mut Session, device: Device, mapname: &OsStr) -> Result<()> {
    check_name(mapname)?;
    let tool = Tool::new("clevis-luks-unlock").arg("-d").arg(device.path()).arg("-n").arg(mapname);
    made(s, &device, |_| tool.ok())
}

/// Does what makes a device of this one.
fn made(
    s: &mut Session,
    device: &Device,
    work: impl FnOnce(&mut Session) -> Result<()>,
) -> Result<()> {
    let done = s.noting(work);
    s.udev().changed();
    done.map_err(|e| e.within(device))
}

/// `cryptsetup`, which asks no questions.
fn cryptsetup(action: &str) -> Tool {
    Tool::new("cryptsetup").arg(action).arg("--batch-mode").statuses(STATUSES)
}

/// `NAME=VALUE`, whatever the value begins with.
fn option(name: &str, value: impl AsRef<OsStr>) -> OsString {
    let mut whole = OsString::from(name);
    whole.push("=");
    whole.push(value);
    whole
}

/// Runs it with a key.
fn run(tool: Tool, key: &OsStr, arguments: &[&OsStr]) -> Result<()> {
    let key = KeyPipe::new(key.as_bytes()).on("key")?;
    tool.arg(option("--key-file", key.path())).arg("--").args(arguments).ok()
}

/// What the device mapper would make of other names is another device, or none.
fn check_name(mapname: &OsStr) -> Result<()> {
    let refuse = |why| Err(Error::argument("mapname", mapname, why));
    if mapname.is_empty() || mapname == "." || mapname == ".." || mapname.as_bytes().contains(&b'/')
    {
        return refuse("not the name of a device");
    }
    let is_taken = Path::new(MAPPER).join(mapname).symlink_metadata().is_ok()
        || device_mapper::all().iter().any(|map| mapname == map.name.as_str());
    if is_taken { refuse("there is a device of this name") } else { Ok(()) }
}

/// The type of an encrypted device, as cryptsetup calls it.
fn type_of(device: &Device) -> Result<&'static str> {
    let contents = contents::of_device(device)?.unwrap_or_default();
    let known = TYPES.iter().find(|(blkid, _)| *blkid == contents.fstype());
    known.map(|(_, crypttype)| *crypttype).ok_or_else(|| {
        let why = format!("'{}' is not the type of an encrypted device", contents.fstype());
        Error::new(Errno::EINVAL, why).within(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_devices_are_refused() {
        for name in ["", ".", "..", "a/b", "../sda", "/dev/mapper/x"] {
            let e = check_name(name.as_ref()).unwrap_err();
            assert_eq!(e.errno(), Errno::EINVAL, "{name}");
        }
        check_name("-a b".as_ref()).unwrap();
    }

    #[test]
    fn an_options_value_stays_its_value() {
        assert_eq!(option("--type", "-x y"), "--type=-x y");
    }
}
