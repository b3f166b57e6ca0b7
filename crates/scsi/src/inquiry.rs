// SPDX-License-Identifier: Apache-2.0
//! Standard INQUIRY data (SPC-4 6.6.2). In: who the device is. Out: 96 bytes.

use crate::answer::Answer;

/// Who a logical unit is: what INQUIRY and the identification pages tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// PERIPHERAL DEVICE TYPE (SPC-4 table 149).
    pub device_type: u8,
    /// T10 vendor identification, at most 8 characters ("LIO-ORG").
    pub vendor: String,
    /// Product identification, at most 16 characters.
    pub product: String,
    /// Product revision, at most 4 characters.
    pub revision: String,
    /// Unit serial number as configfs has it (`wwn/vpd_unit_serial`): usually a UUID.
    pub serial: String,
    /// The target port that asks, where it is known.
    pub target_port: Option<TargetPort>,
    /// TPGS: states change by themselves.
    pub implicit_alua: bool,
    /// TPGS: SET TARGET PORT GROUPS changes states.
    pub explicit_alua: bool,
    /// 3PC: EXTENDED COPY is served.
    pub third_party_copy: bool,
}

/// A target port, for the device identification page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetPort {
    /// Relative target port identifier.
    pub relative: u16,
    /// Its target port group.
    pub group: Option<u16>,
}

/// Length of the data, reserved bytes at its end included.
const LEN: u8 = 96;

/// Standard INQUIRY data of a device that follows standards of these version descriptors, of which
/// there is room for eight.
pub fn standard(identity: &Identity, versions: &[u16]) -> Answer {
    let mut a = Answer::new();
    a.bytes(&[
        identity.device_type, // and connected
        0x00,                 // the medium is not removable
        0x06,                 // SPC-4
        0x02,                 // response data format
        LEN - 5,
        u8::from(identity.explicit_alua) << 5
            | u8::from(identity.implicit_alua) << 4
            | u8::from(identity.third_party_copy) << 3,
        0x00,
        0x02, // CMDQUE
    ]);
    a.text(&identity.vendor, 8);
    a.text(&identity.product, 16);
    a.text(&identity.revision, 4);
    a.zeroes(58 - 36);
    for version in versions.iter().take(8) {
        a.be16(*version);
    }
    a.zeroes(usize::from(LEN).saturating_sub(a.len()));
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::identity;

    #[test]
    fn inquiry_data_says_who_the_device_is_and_how_long_it_is() {
        let a = standard(&identity(), &[0x00a0, 0x0460, 0x0600]);
        assert_eq!(a.len(), usize::from(a[4]) + 5);
        assert_eq!(a[..8], [0, 0, 6, 2, 91, 0x08, 0, 2]);
        assert_eq!(&a[8..36], b"LIO-ORG disk0           0002");
        assert_eq!(a[58..64], [0x00, 0xa0, 0x04, 0x60, 0x06, 0x00]);
        let both = Identity { implicit_alua: true, explicit_alua: true, ..identity() };
        assert_eq!(standard(&both, &[])[5], 0x38);
        let many = standard(&Identity { device_type: 5, ..identity() }, &[0x0460; 9]);
        assert_eq!((many[0], many.len(), many[74]), (5, 96, 0));
    }
}
