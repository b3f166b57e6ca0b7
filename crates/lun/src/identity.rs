// SPDX-License-Identifier: Apache-2.0
//! Who a logical unit is.
use scsi::vpd;

/// Who a logical unit is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// T10 vendor identification, at most 8 characters.
    pub vendor: String,
    /// Product identification, at most 16 characters.
    pub product: String,
    /// Product revision, at most 4 characters.
    pub revision: String,
    /// Unit serial number, as in configfs: usually a UUID.
    pub serial: String,
}

impl Identity {
    /// The one that tcmu-runner's devices have.
    pub fn new(serial: &str) -> Self {
        Identity {
            vendor: "LIO-ORG".into(),
            product: "TCMU device".into(),
            revision: "0002".into(),
            serial: serial.into(),
        }
    }

    /// The NAA designator that is made from the serial number: what EXTENDED COPY names us by.
    pub fn naa(&self) -> [u8; 16] {
        vpd::naa(&self.serial)
    }
}
