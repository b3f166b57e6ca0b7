// SPDX-License-Identifier: Apache-2.0
//! All that is known of a subvolume, as `btrfs subvolume show` names it.

use super::subvolumes::top_directory;
use crate::btrfs::qgroups::{self, QgroupId};
use crate::btrfs::subvolume::{self, Info, Timespec};
use crate::btrfs::subvolumes::{self, TOP};
use crate::localtime;
use crate::session::Session;
use guest_error::{Context, Result};
use guest_fs::paths::GuestPath;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;

/// What one call returns.
type Fields = Vec<(&'static str, OsString)>;

/// All that is known of a subvolume.
pub(crate) fn btrfs_subvolume_show(s: &mut Session, subvolume: GuestPath<'_>) -> Result<Fields> {
    let file = top_directory(s, subvolume)?;
    fields(&file).on(subvolume)
}

fn fields(file: &File) -> rustix::io::Result<Fields> {
    let info = subvolume::info(file)?;
    let all = subvolumes::list(file, TOP)?;
    let path = |id| all.iter().find(|s| s.id == id).map(|s| s.path.clone());
    let snapshots: Vec<_> = subvolumes::snapshots(file, &info.uuid)?
        .into_iter()
        .filter_map(path)
        .map(OsStringExt::into_vec)
        .collect();
    let (path, name) = match info.id {
        TOP => ("/".into(), "<FS_TREE>".into()),
        id => (path(id).unwrap_or_default(), info.name().to_owned()),
    };
    let mut fields = vec![("path", path), ("Name", name)];
    fields.extend(numbers(&info));
    fields.push(("Snapshot(s)", OsString::from_vec(snapshots.join(&b','))));
    fields.extend(quotas(file, info.id)?);
    Ok(fields)
}

fn numbers(info: &Info) -> Fields {
    let flags = if info.is_read_only() { "readonly" } else { "" };
    vec![
        ("UUID", uuid(&info.uuid)),
        ("Parent UUID", uuid(&info.parent_uuid)),
        ("Received UUID", uuid(&info.received_uuid)),
        ("Creation time", time(info.otime)),
        ("Subvolume ID", info.id.to_string().into()),
        ("Generation", info.generation.to_string().into()),
        ("Gen at creation", info.otransid.to_string().into()),
        ("Parent ID", info.parent_id.to_string().into()),
        ("Top level ID", info.parent_id.to_string().into()),
        ("Flags", flags.into()),
        ("Send transid", info.stransid.to_string().into()),
        ("Send time", time(info.stime)),
        ("Receive transid", info.rtransid.to_string().into()),
        ("Receive time", time(info.rtime)),
    ]
}

/// Empty where there is none.
fn uuid(bytes: &[u8; 16]) -> OsString {
    if *bytes == [0; 16] {
        return OsString::new();
    }
    uuid::Uuid::from_bytes(*bytes).to_string().into()
}

/// Empty where there is none.
fn time(time: Timespec) -> OsString {
    let seconds = i64::try_from(time.sec).ok().filter(|sec| *sec != 0);
    seconds.and_then(localtime::text).unwrap_or_default().into()
}

/// What the subvolume uses, and its limits; nothing if quotas are not enabled.
fn quotas(file: &File, id: u64) -> rustix::io::Result<Fields> {
    let qgroup = QgroupId::of_subvolume(id);
    let all = match qgroups::list(file) {
        Err(rustix::io::Errno::NOENT) => return Ok(Vec::new()),
        all => all?,
    };
    let Some(usage) = all.into_iter().find(|usage| usage.id == qgroup) else {
        return Ok(Vec::new());
    };
    let [referenced, exclusive] = qgroups::limits(file, qgroup)?;
    let limit = |bytes: Option<u64>| bytes.map(size).unwrap_or_default();
    Ok(vec![
        ("Quota group", qgroup.to_string().into()),
        ("Limit referenced", limit(referenced)),
        ("Limit exclusive", limit(exclusive)),
        ("Usage referenced", size(usage.referenced)),
        ("Usage exclusive", size(usage.exclusive)),
    ])
}

/// `16.00KiB`.
fn size(bytes: u64) -> OsString {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let unit = (63 - bytes.max(1).leading_zeros() as usize) / 10;
    let hundredths = (u128::from(bytes) * 100 + (1 << (10 * unit)) / 2) >> (10 * unit);
    format!("{}.{:02}{}", hundredths / 100, hundredths % 100, UNITS[unit]).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_decimals_and_a_unit() {
        assert_eq!(size(0), "0.00B");
        assert_eq!(size(1023), "1023.00B");
        assert_eq!(size(16384), "16.00KiB");
        assert_eq!(size(1536 << 20), "1.50GiB");
        assert_eq!(size(u64::MAX), "16.00EiB");
    }

    #[test]
    fn what_there_is_not_is_empty() {
        assert_eq!(uuid(&[0; 16]), "");
        assert_eq!(uuid(&[1; 16]), "01010101-0101-0101-0101-010101010101");
        assert_eq!(time(Timespec::default()), "");
    }
}
