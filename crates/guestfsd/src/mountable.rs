// SPDX-License-Identifier: Apache-2.0
//! Mountables: what can be mounted is a block device or a btrfs subvolume on one, written
//! `btrfsvol:DEVICE/SUBVOLUME`.

use crate::devices::{Device, Devices};
use guest_error::{Error, Result};
use guest_fs::paths::GuestPath;
use probe::mountable::MountableName;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

const BTRFSVOL: &[u8] = b"btrfsvol:";

/// A mountable that a client named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mountable {
    /// The device.
    pub device: Device,
    /// The btrfs subvolume, where it is one.
    pub volume: Option<OsString>,
    /// As the client gave it: for errors.
    pub name: OsString,
}

impl AsRef<OsStr> for Mountable {
    fn as_ref(&self) -> &OsStr {
        &self.name
    }
}

impl From<&Mountable> for MountableName {
    fn from(m: &Mountable) -> Self {
        Self { device: m.device.path().to_owned(), volume: m.volume.clone() }
    }
}

/// A place as the client writes it.
pub(crate) fn to_client(place: &MountableName, devices: &mut Devices) -> OsString {
    let device = devices.to_client(&place.device);
    let Some(volume) = &place.volume else { return device };
    let mut text = BTRFSVOL.to_vec();
    text.extend_from_slice(device.as_bytes());
    text.push(b'/');
    text.extend_from_slice(volume.as_bytes());
    OsString::from_vec(text)
}

impl Mountable {
    /// The mountable of this name, if its device is there; `argument` is what errors say.
    pub(crate) fn find(devices: &mut Devices, argument: &str, name: &OsStr) -> Result<Self> {
        let Some(rest) = name.as_bytes().strip_prefix(BTRFSVOL) else {
            let device = devices.find(argument, name)?;
            return Ok(Self { device, volume: None, name: name.to_owned() });
        };
        // The device's name ends at the first slash before which there is a device: /dev/vg/lv/vol.
        let after_dev = rest.iter().skip(5).enumerate().filter(|(_, c)| **c == b'/');
        for (slash, _) in after_dev {
            let (device, volume) = rest.split_at(slash + 5);
            if let Ok(device) = devices.find(argument, OsStr::from_bytes(device))
                && volume.len() > 1
            {
                let volume = Some(OsStr::from_bytes(&volume[1..]).to_owned());
                return Ok(Self { device, volume, name: name.to_owned() });
            }
        }
        Err(Error::argument(argument, name, "expecting a btrfs volume"))
    }
}

/// A block device, or a file or directory of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum DevOrPath<'a> {
    /// A device.
    Device(Device),
    /// An absolute path in the guest.
    Path(GuestPath<'a>),
}

impl AsRef<OsStr> for DevOrPath<'_> {
    fn as_ref(&self) -> &OsStr {
        match self {
            Self::Device(d) => d.as_ref(),
            Self::Path(p) => p.as_ref(),
        }
    }
}

/// A mountable, or a file or directory of the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountableOrPath<'a> {
    /// A mountable.
    Mountable(Mountable),
    /// An absolute path in the guest.
    Path(GuestPath<'a>),
}

impl AsRef<OsStr> for MountableOrPath<'_> {
    fn as_ref(&self) -> &OsStr {
        match self {
            Self::Mountable(m) => m.as_ref(),
            Self::Path(p) => p.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subvolumes_device_has_the_clients_name_in_answers() {
        let mut devices = Devices::new(false);
        let name = MountableName { device: "/dev/sda1".into(), volume: Some("a/b".into()) };
        assert_eq!(to_client(&name, &mut devices), "btrfsvol:/dev/sda1/a/b");
    }

    #[test]
    fn a_subvolume_without_a_device_is_refused() {
        for name in ["btrfsvol:", "btrfsvol:/dev", "btrfsvol:/dev/null/x", "btrfsvol:x/y/z/a/b"] {
            let e = Mountable::find(&mut Devices::new(false), "mountable", OsStr::new(name));
            assert_eq!(
                e.unwrap_err().message(),
                format!("mountable: {name}: expecting a btrfs volume")
            );
        }
    }
}
