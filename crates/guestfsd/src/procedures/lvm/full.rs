// SPDX-License-Identifier: Apache-2.0
//! All that LVM knows of its volumes, groups and physical volumes.

use crate::lvm;
use crate::lvm::report::{Report, Row};
use crate::session::Session;
use guest_error::Result;
use guestfs_api::structs::{LvmLv, LvmPv, LvmVg};
use std::path::Path;

#[rustfmt::skip]
const PHYSICAL: &[&str] = &[
    "pv_name", "pv_uuid", "pv_fmt", "pv_size", "dev_size", "pv_free", "pv_used", "pv_attr", "pv_pe_count",
    "pv_pe_alloc_count", "pv_tags", "pe_start", "pv_mda_count", "pv_mda_free",
];
#[rustfmt::skip]
const GROUPS: &[&str] = &[
    "vg_name", "vg_uuid", "vg_fmt", "vg_attr", "vg_size", "vg_free", "vg_sysid", "vg_extent_size",
    "vg_extent_count", "vg_free_count", "max_lv", "max_pv", "pv_count", "lv_count", "snap_count", "vg_seqno",
    "vg_tags", "vg_mda_count", "vg_mda_free",
];
#[rustfmt::skip]
const VOLUMES: &[&str] = &[
    "lv_name", "lv_uuid", "lv_attr", "lv_major", "lv_minor", "lv_kernel_major", "lv_kernel_minor", "lv_size",
    "seg_count", "origin", "snap_percent", "copy_percent", "move_pv", "lv_tags", "mirror_log", "lv_modules",
];

/// Physical volumes.
pub(crate) fn pvs_full(s: &mut Session) -> Result<Vec<LvmPv>> {
    let mut found = table(s, "pvs", PHYSICAL, physical)?;
    for volume in &mut found {
        volume.pv_name = s.client_name(Path::new(&volume.pv_name));
    }
    Ok(found)
}

/// Volume groups.
pub(crate) fn vgs_full(s: &mut Session) -> Result<Vec<LvmVg>> {
    table(s, "vgs", GROUPS, group)
}

/// Logical volumes.
pub(crate) fn lvs_full(s: &mut Session) -> Result<Vec<LvmLv>> {
    table(s, "lvs", VOLUMES, volume)
}

fn table<T>(
    s: &mut Session,
    command: &str,
    fields: &[&str],
    read: fn(Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    if !lvm::is_in_use(s) {
        return Ok(Vec::new());
    }
    lvm::need_program()?;
    // In the order in which LVM finds them.
    Report::run(lvm::command(s, command)?.arg("--unbuffered"), fields, &[])?
        .rows()
        .map(read)
        .collect()
}

fn physical(row: Row<'_>) -> Result<LvmPv> {
    Ok(LvmPv {
        pv_name: row.text("pv_name")?.into(),
        pv_uuid: row.uuid("pv_uuid")?,
        pv_fmt: row.text("pv_fmt")?.into(),
        pv_size: row.number("pv_size")?,
        dev_size: row.number("dev_size")?,
        pv_free: row.number("pv_free")?,
        pv_used: row.number("pv_used")?,
        pv_attr: row.text("pv_attr")?.into(),
        pv_pe_count: row.number("pv_pe_count")?,
        pv_pe_alloc_count: row.number("pv_pe_alloc_count")?,
        pv_tags: row.text("pv_tags")?.into(),
        pe_start: row.number("pe_start")?,
        pv_mda_count: row.number("pv_mda_count")?,
        pv_mda_free: row.number("pv_mda_free")?,
    })
}

fn group(row: Row<'_>) -> Result<LvmVg> {
    Ok(LvmVg {
        vg_name: row.text("vg_name")?.into(),
        vg_uuid: row.uuid("vg_uuid")?,
        vg_fmt: row.text("vg_fmt")?.into(),
        vg_attr: row.text("vg_attr")?.into(),
        vg_size: row.number("vg_size")?,
        vg_free: row.number("vg_free")?,
        vg_sysid: row.text("vg_sysid")?.into(),
        vg_extent_size: row.number("vg_extent_size")?,
        vg_extent_count: row.number("vg_extent_count")?,
        vg_free_count: row.number("vg_free_count")?,
        max_lv: row.number("max_lv")?,
        max_pv: row.number("max_pv")?,
        pv_count: row.number("pv_count")?,
        lv_count: row.number("lv_count")?,
        snap_count: row.number("snap_count")?,
        vg_seqno: row.number("vg_seqno")?,
        vg_tags: row.text("vg_tags")?.into(),
        vg_mda_count: row.number("vg_mda_count")?,
        vg_mda_free: row.number("vg_mda_free")?,
    })
}

fn volume(row: Row<'_>) -> Result<LvmLv> {
    Ok(LvmLv {
        lv_name: row.text("lv_name")?.into(),
        lv_uuid: row.uuid("lv_uuid")?,
        lv_attr: row.text("lv_attr")?.into(),
        lv_major: row.number("lv_major")?,
        lv_minor: row.number("lv_minor")?,
        lv_kernel_major: row.number("lv_kernel_major")?,
        lv_kernel_minor: row.number("lv_kernel_minor")?,
        lv_size: row.number("lv_size")?,
        seg_count: row.number("seg_count")?,
        origin: row.text("origin")?.into(),
        snap_percent: row.percent("snap_percent")?,
        copy_percent: row.percent("copy_percent")?,
        move_pv: row.text("move_pv")?.into(),
        lv_tags: row.text("lv_tags")?.into(),
        mirror_log: row.text("mirror_log")?.into(),
        modules: row.text("lv_modules")?.into(),
    })
}
