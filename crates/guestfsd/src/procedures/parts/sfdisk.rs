// SPDX-License-Identifier: Apache-2.0
//! The program sfdisk, as such: calls that are kept for old callers.

use super::parted::{Listing, named, with_client_names};
use super::table::{check_number, listing, no_partition, not_mbr};
use crate::devices::Device;
use crate::session::Session;
use crate::tool::Tool;
use guest_error::{Error, Result};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Makes partitions as these lines say.
pub(crate) fn sfdisk(
    s: &mut Session,
    device: Device,
    cyls: i32,
    heads: i32,
    sectors: i32,
    lines: &[&OsStr],
) -> Result<()> {
    let tool = with_geometry(Tool::new("sfdisk"), cyls, heads, sectors)?;
    change(s, tool, &device, &[], &script(lines))
}

/// Changes one partition as this line says.
pub(crate) fn sfdisk_n(
    s: &mut Session,
    device: Device,
    partnum: i32,
    cyls: i32,
    heads: i32,
    sectors: i32,
    line: &OsStr,
) -> Result<()> {
    let number = check_number(partnum)?.to_string();
    let tool = with_geometry(Tool::new("sfdisk"), cyls, heads, sectors)?;
    change(s, tool.args(["-N", &number]), &device, &[], &script(&[line]))
}

/// Makes partitions as these lines say, in which numbers are megabytes.
pub(crate) fn sfdisk_m(s: &mut Session, device: Device, lines: &[&OsStr]) -> Result<()> {
    let lines: Vec<OsString> = lines.iter().map(|line| in_megabytes(line)).collect();
    let lines: Vec<&OsStr> = lines.iter().map(|l| l.as_os_str()).collect();
    change(s, Tool::new("sfdisk"), &device, &[], &script(&lines))
}

/// Gives plain numbers of a line's first two fields, start and size, the unit MiB.
fn in_megabytes(line: &OsStr) -> OsString {
    let mut out = Vec::new();
    for (i, field) in line.as_bytes().split(|&b| b == b',').enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(field);
        let number = field.trim_ascii();
        // A start of 0 is the first place there is.
        let plain = !number.is_empty() && number.iter().all(u8::is_ascii_digit);
        if i < 2 && plain && number.iter().any(|&b| b != b'0') {
            out.truncate(out.trim_ascii_end().len());
            out.push(b'M');
        }
    }
    OsStr::from_bytes(&out).to_owned()
}

/// What sfdisk is to read.
fn script(lines: &[&OsStr]) -> Vec<u8> {
    lines.iter().flat_map(|line| line.as_bytes().iter().chain(b"\n")).copied().collect()
}

fn with_geometry(mut tool: Tool, cyls: i32, heads: i32, sectors: i32) -> Result<Tool> {
    for (name, option, value) in
        [("cyls", "-C", cyls), ("heads", "-H", heads), ("sectors", "-S", sectors)]
    {
        match value {
            0 => {}
            1.. => tool = tool.arg(option).arg(value.to_string()),
            _ => return Err(Error::argument(name, value.to_string(), "must not be negative")),
        }
    }
    Ok(tool)
}

/// Runs sfdisk so that it changes a disk.
pub(super) fn change(
    s: &mut Session,
    tool: Tool,
    device: &Device,
    after: &[&str],
    mut input: &[u8],
) -> Result<()> {
    s.udev().changed();
    let tool = tool.arg("--").arg(device.path()).args(after);
    let done = tool.run_with(&mut input, None)?.success();
    done.map(drop).map_err(|e| named(e, device))
}

/// The table for people to read.
pub(crate) fn sfdisk_l(s: &mut Session, device: Device) -> Result<PathBuf> {
    // A `PathBuf` because the table has the result as the name of a device.
    Ok(show(s, "--list", &device)?.into())
}

/// The geometry that the kernel knows.
pub(crate) fn sfdisk_kernel_geometry(s: &mut Session, device: Device) -> Result<String> {
    show(s, "-g", &device)
}

/// The geometry that the partition table implies.
pub(crate) fn sfdisk_disk_geometry(s: &mut Session, device: Device) -> Result<String> {
    show(s, "-G", &device)
}

fn show(s: &mut Session, option: &str, device: &Device) -> Result<String> {
    let output = Tool::new("sfdisk").args([option, "--"]).arg(device.path()).output();
    let output = output.map_err(|e| named(e, device))?;
    let client = |path: &std::path::Path| s.client_name(path).to_string_lossy().into_owned();
    Ok(with_client_names(&String::from_utf8_lossy(&output), device.path(), client))
}

/// What sfdisk says the type byte of a partition is: of tables that are not beyond doubt, too.
pub(super) fn part_type(device: &Device, number: u32) -> Result<u8> {
    let listing: Listing = listing(device)?;
    if listing.label != "msdos" {
        return Err(not_mbr(device));
    }
    let tool = Tool::new("sfdisk").args(["--part-type", "--"]).arg(device.path());
    let output = tool.arg(number.to_string()).output().map_err(|e| named(e, device))?;
    let text = String::from_utf8_lossy(&output);
    u8::from_str_radix(text.trim(), 16).map_err(|_| no_partition(device, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_numbers_become_megabytes() {
        for (line, expected) in [
            (",10", ",10M"),
            ("0,10,83", "0,10M,83"),
            ("5 , 6 ,7", "5M, 6M,7"),
            (",", ","),
            ("", ""),
            (",+,L", ",+,L"),
            (",10G", ",10G"),
        ] {
            assert_eq!(in_megabytes(OsStr::new(line)), expected);
        }
    }
}
