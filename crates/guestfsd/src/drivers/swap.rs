// SPDX-License-Identifier: Apache-2.0
//! Swap space, which is no filesystem, but has a label and a UUID as one has.

use super::driver::{Driver, Maker, NewUuid, check_length, check_uuid};
use crate::devices::Device;
use crate::tool::Tool;
use guest_error::Result;
use std::ffi::{OsStr, OsString};

/// Bytes that a label may have.
const MAX_LABEL: usize = 16;

/// Its driver.
pub(super) const DRIVER: Driver = Driver {
    set_label: Some(set_label),
    set_uuid: Some(set_uuid),
    ..Driver::made(&["swap"], Maker::USUAL)
};

fn set_label(device: &Device, label: &OsStr) -> Result<()> {
    check_length(label, MAX_LABEL, "Linux swap")?;
    let tool = Tool::new("swaplabel").arg("-L").arg(label).arg(device.path());
    tool.ok().map_err(|e| e.within(device))
}

fn set_uuid(device: &Device, uuid: NewUuid<'_>) -> Result<()> {
    let uuid: OsString = match uuid {
        NewUuid::To(uuid) => check_uuid(uuid)?.to_owned(),
        NewUuid::Random => uuid::Uuid::new_v4().to_string().into(),
    };
    let tool = Tool::new("swaplabel").arg("-U").arg(uuid).arg(device.path());
    tool.ok().map_err(|e| e.within(device))
}
