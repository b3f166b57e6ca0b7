// SPDX-License-Identifier: Apache-2.0
//! NTFS.

use super::driver::{Block, Driver, Maker, unreadable};
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Error, Result};
use std::ffi::OsStr;

/// Characters that a label may have.
const MAX_LABEL: usize = 128;

/// Its driver.
pub(super) const DRIVER: Driver = Driver {
    types: &["ntfs"],
    set_label: Some(set_label),
    set_uuid: None,
    minimum_size: Some(minimum_size),
    twin: None,
    maker: Maker {
        always: &["-Q", "-F"],
        label: Some("-L"),
        block: Block::Bytes("-c"),
        ..Maker::USUAL
    },
};

fn set_label(device: &Device, label: &OsStr) -> Result<()> {
    if label.to_string_lossy().encode_utf16().count() > MAX_LABEL {
        let why = "labels of ntfs filesystems have at most 128 characters";
        return Err(Error::argument("label", label, why));
    }
    Tool::new("ntfslabel").arg(device.path()).arg(label).ok().map_err(|e| e.within(device))
}

/// The size in bytes that a filesystem can be made smaller to.
fn minimum_size(_: &mut Session, device: &Device) -> Result<i64> {
    // Forced twice: the filesystem may be marked to be checked, and nothing is changed here.
    let output = Tool::new("ntfsresize").args(["--info", "-ff"]).arg(device.path()).run()?;
    let text = output.text();
    if let Some(size) = number_after(&text, "You might resize at ") {
        return Ok(size);
    }
    // One that is full is as small as it can be.
    let full = text.contains("Volume is full") || output.stderr.contains("Volume is full");
    match number_after(&text, "Current volume size:").filter(|_| full) {
        Some(size) => Ok(size),
        None => Err(match output.code {
            0 => unreadable("ntfsresize --info", device),
            _ => output.failure().within(device),
        }),
    }
}

fn number_after(text: &str, mark: &str) -> Option<i64> {
    let rest = text[text.find(mark)? + mark.len()..].trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_found_in_what_ntfsresize_says() {
        let text = "Current volume size: 67105280 bytes (68 MB)\n\
            You might resize at 2564096 bytes or 3 MB (freeing 64 MB).\n";
        assert_eq!(number_after(text, "You might resize at "), Some(2_564_096));
        assert_eq!(number_after(text, "Current volume size:"), Some(67_105_280));
        assert_eq!(number_after(text, "Nothing"), None);
        assert_eq!(number_after("Nothing", "Nothing"), None);
    }
}
