// SPDX-License-Identifier: Apache-2.0
//! XFS.
//!
//! `xfs_admin` is a script that gives what it is told to a shell: what it starts is started here directly.

use super::driver::{Block, Driver, Maker, NewUuid, Twin, check_length, check_uuid, unreadable};
use super::xfs_geometry::geometry;
use crate::devices::Device;
use crate::mountable::DevOrPath;
use crate::session::Session;
use crate::tool::{Output, Tool};
use guest_error::{Errno, Error, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// Bytes that a label may have.
const MAX_LABEL: usize = 12;

/// Its driver.
pub(super) const DRIVER: Driver = Driver {
    types: &["xfs"],
    set_label: Some(set_label),
    set_uuid: Some(set_uuid),
    minimum_size: Some(minimum_size),
    twin: Some(Twin::MountedWith("nouuid")),
    maker: Maker { always: &["-f"], label: Some("-L"), block: Block::Named, ..Maker::USUAL },
};

/// `xfs_db`, as `xfs_admin` starts it.
pub(crate) fn expert() -> Tool {
    Tool::new("xfs_db").args(["-x", "-p", "xfs_admin"])
}

/// Whether it has said that all was done: of some it says so in its output only.
pub(crate) fn done(output: Output, expected: &[&str]) -> Result<()> {
    let output = output.success()?;
    let text = output.text();
    if expected.iter().all(|e| text.contains(e)) {
        return Ok(());
    }
    let said = format!("{}{}", text, output.stderr);
    Err(Error::new(Errno::EINVAL, said.trim()))
}

/// `xfs_db` has no way to quote.
pub(crate) fn label_command(label: &OsStr) -> Result<OsString> {
    check_length(label, MAX_LABEL, "xfs")?;
    if label.is_empty() {
        return Ok("label --".into());
    }
    let fits = |b: &u8| (b.is_ascii_graphic() || *b >= 0x80) && !b"\"'\\;".contains(b);
    if !label.as_bytes().iter().all(fits) {
        let why = "spaces, quotes and backslashes cannot be set in xfs labels";
        return Err(Error::argument("label", label, why));
    }
    let mut command = OsString::from("label ");
    command.push(label);
    Ok(command)
}

/// A UUID, or what xfs_admin(8) has instead: `generate`, `nil`, `restore`, `rewrite`.
pub(crate) fn uuid_command(uuid: &OsStr) -> Result<OsString> {
    if ["generate", "nil", "restore", "rewrite"].iter().all(|word| uuid != *word) {
        check_uuid(uuid)?;
    }
    let mut command = OsString::from("uuid ");
    command.push(uuid);
    Ok(command)
}

/// Sets the label.
fn set_label(device: &Device, label: &OsStr) -> Result<()> {
    let output = expert().arg("-c").arg(label_command(label)?).arg(device.path()).run()?;
    done(output, &["new label ="]).map_err(|e| e.within(device))
}

/// Sets the UUID.
fn set_uuid(device: &Device, uuid: NewUuid<'_>) -> Result<()> {
    let uuid = match uuid {
        NewUuid::To(uuid) => uuid,
        NewUuid::Random => OsStr::new("generate"),
    };
    let output = expert().arg("-c").arg(uuid_command(uuid)?).arg(device.path()).run()?;
    done(output, &["UUID"]).map_err(|e| e.within(device))
}

/// The size in bytes that a filesystem can be made smaller to: XFS cannot be made smaller.
fn minimum_size(s: &mut Session, device: &Device) -> Result<i64> {
    let all = geometry(s, &DevOrPath::Device(device.clone()))?;
    all.number::<i64>("data.bsize")
        .zip(all.number("data.blocks"))
        .and_then(|(size, blocks)| size.checked_mul(blocks))
        .ok_or_else(|| unreadable("xfs_info", device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_be_another_command_is_no_label() {
        assert_eq!(label_command(OsStr::new("root")).unwrap(), "label root");
        assert_eq!(label_command(OsStr::new("")).unwrap(), "label --");
        for bad in ["a b", "a\"b", "a'b", "a;b", "a\nb", "1234567890123"] {
            assert!(label_command(OsStr::new(bad)).is_err(), "{bad}");
        }
        assert!(uuid_command(OsStr::new("generate")).is_ok());
        assert!(uuid_command(OsStr::new("xx")).is_err());
    }
}
