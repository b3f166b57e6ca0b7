// SPDX-License-Identifier: Apache-2.0
//! Status, and sense: why a command ended in CHECK CONDITION (SPC-4 4.5). A sense is data, not an
//! error. In: one of the named triples below, perhaps with INFORMATION or a field pointer. Out:
//! sense data in fixed or descriptor format.

use std::fmt;

/// How a command ended (SAM-5 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// Done.
    Good = 0x00,
    /// There is sense data.
    CheckCondition = 0x02,
    /// PRE-FETCH: all the blocks fit into the cache.
    ConditionMet = 0x04,
    /// Try again later.
    Busy = 0x08,
    /// Another initiator holds a reservation.
    ReservationConflict = 0x18,
    /// No room for another command.
    TaskSetFull = 0x28,
    /// Aborted by a task management function.
    TaskAborted = 0x40,
}

/// Sense key, additional sense code and qualifier, with what the key says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sense {
    /// Sense key (SPC-4 table 48), 0 to 15.
    pub key: u8,
    /// Additional sense code.
    pub asc: u8,
    /// Additional sense code qualifier.
    pub ascq: u8,
    /// INFORMATION field: for a miscompare the offset in bytes, for a medium error the LBA.
    pub information: Option<u64>,
    /// Sense-key specific field: the field of the CDB or parameter list that was wrong.
    pub field: Option<FieldPointer>,
}

/// Where an illegal field is (SPC-4 4.5.2.4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldPointer {
    /// In the CDB (true) or in the parameter list.
    pub in_cdb: bool,
    /// Offset of the field's first byte.
    pub byte: u16,
    /// Its most significant bit within that byte, where that says more.
    pub bit: Option<u8>,
}

/// Names of the sense keys, by value.
const KEYS: [&str; 16] = [
    "NO SENSE",
    "RECOVERED ERROR",
    "NOT READY",
    "MEDIUM ERROR",
    "HARDWARE ERROR",
    "ILLEGAL REQUEST",
    "UNIT ATTENTION",
    "DATA PROTECT",
    "BLANK CHECK",
    "VENDOR SPECIFIC",
    "COPY ABORTED",
    "ABORTED COMMAND",
    "RESERVED",
    "VOLUME OVERFLOW",
    "MISCOMPARE",
    "COMPLETED",
];

/// One constant for each triple that is used, and the table that names them in logs.
macro_rules! triples {
    ($($name:ident = $key:literal / $asc:literal / $ascq:literal $text:literal;)*) => {
        impl Sense {
            $(
                #[doc = concat!($text, " (", stringify!($asc), "/", stringify!($ascq), ").")]
                pub const $name: Sense = Sense::new($key, $asc, $ascq);
            )*
        }
        const TRIPLES: &[(Sense, &str)] = &[$((Sense::$name, $text),)*];
    };
}

triples! {
    NO_SENSE = 0x0/0x00/0x00 "no additional sense information";

    LUN_BECOMING_READY = 0x2/0x04/0x01 "logical unit is in process of becoming ready";
    LUN_NOT_READY_ALUA_TRANSITION = 0x2/0x04/0x0a
        "logical unit not accessible, asymmetric access state transition";
    LUN_NOT_READY_ALUA_STANDBY = 0x2/0x04/0x0b
        "logical unit not accessible, target port in standby state";
    LUN_NOT_READY_ALUA_UNAVAILABLE = 0x2/0x04/0x0c
        "logical unit not accessible, target port in unavailable state";
    LUN_NOT_READY_OFFLINE = 0x2/0x04/0x12 "logical unit not ready, offline";
    LUN_COMMUNICATION_FAILURE = 0x2/0x08/0x00 "logical unit communication failure";

    WRITE_ERROR = 0x3/0x0c/0x00 "write error";
    UNRECOVERED_READ_ERROR = 0x3/0x11/0x00 "unrecovered read error";

    INTERNAL_TARGET_FAILURE = 0x4/0x44/0x00 "internal target failure";
    SET_TARGET_PORT_GROUPS_COMMAND_FAILED = 0x4/0x67/0x0a "set target port groups command failed";

    PARAMETER_LIST_LENGTH_ERROR = 0x5/0x1a/0x00 "parameter list length error";
    INVALID_COMMAND_OPERATION_CODE = 0x5/0x20/0x00 "invalid command operation code";
    LBA_OUT_OF_RANGE = 0x5/0x21/0x00 "logical block address out of range";
    INVALID_FIELD_IN_CDB = 0x5/0x24/0x00 "invalid field in CDB";
    INVALID_FIELD_IN_PARAMETER_LIST = 0x5/0x26/0x00 "invalid field in parameter list";
    TOO_MANY_TARGET_DESCRIPTORS = 0x5/0x26/0x06 "too many target descriptors";
    UNSUPPORTED_TARGET_DESCRIPTOR_TYPE = 0x5/0x26/0x07 "unsupported target descriptor type code";
    TOO_MANY_SEGMENT_DESCRIPTORS = 0x5/0x26/0x08 "too many segment descriptors";
    UNSUPPORTED_SEGMENT_DESCRIPTOR_TYPE = 0x5/0x26/0x09 "unsupported segment descriptor type code";
    INLINE_DATA_LENGTH_EXCEEDED = 0x5/0x26/0x0b "inline data length exceeded";
    SAVING_PARAMETERS_NOT_SUPPORTED = 0x5/0x39/0x00 "saving parameters not supported";

    NOT_READY_TO_READY_CHANGE = 0x6/0x28/0x00
        "not ready to ready change, medium may have changed";
    POWER_ON_OR_RESET = 0x6/0x29/0x00 "power on, reset, or bus device reset occurred";
    MODE_PARAMETERS_CHANGED = 0x6/0x2a/0x01 "mode parameters changed";
    IMPLICIT_ALUA_TRANSITION_FAILED = 0x6/0x2a/0x07
        "implicit asymmetric access state transition failed";
    CAPACITY_DATA_HAS_CHANGED = 0x6/0x2a/0x09 "capacity data has changed";
    INQUIRY_DATA_HAS_CHANGED = 0x6/0x3f/0x03 "inquiry data has changed";

    WRITE_PROTECTED = 0x7/0x27/0x00 "write protected";
    SPACE_ALLOCATION_FAILED_WRITE_PROTECT = 0x7/0x27/0x07 "space allocation failed write protect";

    COPY_ABORTED = 0xa/0x00/0x00 "copy aborted, no additional sense information";
    UNREACHABLE_COPY_TARGET = 0xa/0x08/0x04 "unreachable copy target";
    COPY_THIRD_PARTY_DEVICE_FAILURE = 0xa/0x0d/0x01 "third party device failure";
    COPY_TARGET_DEVICE_NOT_REACHABLE = 0xa/0x0d/0x02 "copy target device not reachable";
    COPY_SEGMENT_GRANULARITY_VIOLATION = 0xa/0x26/0x0d "copy segment granularity violation";
    COPY_DESTINATION_WRITE_PROTECTED = 0xa/0x27/0x00 "write protected";

    COMMAND_TIMEOUT_DURING_PROCESSING = 0xb/0x2e/0x02 "command timeout during processing";

    MISCOMPARE_DURING_VERIFY = 0xe/0x1d/0x00 "miscompare during verify operation";
}

impl Sense {
    /// A triple without INFORMATION and field pointer.
    pub const fn new(key: u8, asc: u8, ascq: u8) -> Self {
        Sense { key, asc, ascq, information: None, field: None }
    }

    /// The same with an INFORMATION field.
    pub const fn with_information(self, information: u64) -> Self {
        Sense { information: Some(information), ..self }
    }

    /// INVALID FIELD IN CDB: the field that begins at `byte`, its highest bit being `bit`.
    pub const fn cdb_field(byte: u16, bit: Option<u8>) -> Self {
        let field = Some(FieldPointer { in_cdb: true, byte, bit });
        Sense { field, ..Sense::INVALID_FIELD_IN_CDB }
    }

    /// INVALID FIELD IN PARAMETER LIST: the field that begins at `byte`. Offsets past 65535 cannot
    /// be told and are left out.
    pub fn list_field(byte: usize, bit: Option<u8>) -> Self {
        Sense::INVALID_FIELD_IN_PARAMETER_LIST.in_list(byte, bit)
    }

    /// The same with a pointer to a field of the parameter list.
    pub fn in_list(self, byte: usize, bit: Option<u8>) -> Self {
        let field = u16::try_from(byte).ok().map(|byte| FieldPointer { in_cdb: false, byte, bit });
        Sense { field, ..self }
    }

    /// Current sense data in fixed format (70h, SPC-4 4.5.3): 18 bytes. INFORMATION that does not
    /// fit into 32 bits is left out, VALID being zero.
    pub fn fixed(&self) -> SenseData {
        let mut out = SenseData { bytes: [0; SenseData::MAX], len: 18 };
        let b = &mut out.bytes;
        b[0] = 0x70;
        b[2] = self.key & 0x0f;
        if let Some(information) = self.information.and_then(|i| u32::try_from(i).ok()) {
            b[0] |= 0x80;
            b[3..7].copy_from_slice(&information.to_be_bytes());
        }
        b[7] = 10;
        b[12] = self.asc;
        b[13] = self.ascq;
        if let Some(field) = self.field {
            b[15..18].copy_from_slice(&field.encode());
        }
        out
    }

    /// Current sense data in descriptor format (72h, SPC-4 4.5.2).
    pub fn descriptor(&self) -> SenseData {
        let mut out = SenseData { bytes: [0; SenseData::MAX], len: 8 };
        let b = &mut out.bytes;
        b[0] = 0x72;
        b[1] = self.key & 0x0f;
        b[2] = self.asc;
        b[3] = self.ascq;
        if let Some(information) = self.information {
            // Type 00h, length 0Ah, VALID.
            b[8..11].copy_from_slice(&[0x00, 0x0a, 0x80]);
            b[12..20].copy_from_slice(&information.to_be_bytes());
            b[7] += 12;
            out.len += 12;
        }
        if let Some(field) = self.field {
            let at = out.len;
            b[at..at + 2].copy_from_slice(&[0x02, 0x06]);
            b[at + 4..at + 7].copy_from_slice(&field.encode());
            b[7] += 8;
            out.len += 8;
        }
        out
    }
}

impl FieldPointer {
    /// SKSV, C/D, BPV, bit pointer and field pointer.
    fn encode(self) -> [u8; 3] {
        let [high, low] = self.byte.to_be_bytes();
        let cd = if self.in_cdb { 0x40 } else { 0 };
        [0x80 | cd | self.bit.map_or(0, |bit| 0x08 | (bit & 7)), high, low]
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", KEYS[usize::from(self.key & 0x0f)])?;
        let named = |s: &Sense| (s.key, s.asc, s.ascq) == (self.key, self.asc, self.ascq);
        if let Some((_, text)) = TRIPLES.iter().find(|(s, _)| named(s)) {
            write!(f, ", {text}")?;
        }
        write!(f, " ({:02X}/{:02X})", self.asc, self.ascq)?;
        if let Some(FieldPointer { in_cdb, byte, bit }) = self.field {
            write!(f, " at {} byte {byte}", if in_cdb { "CDB" } else { "parameter list" })?;
            if let Some(bit) = bit {
                write!(f, " bit {bit}")?;
            }
        }
        if let Some(information) = self.information {
            write!(f, ", information {information}")?;
        }
        Ok(())
    }
}

/// Encoded sense data; derefs to its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenseData {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl SenseData {
    /// Longest sense data: header, information and sense-key specific descriptor.
    pub const MAX: usize = 8 + 12 + 8;
}

impl std::ops::Deref for SenseData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fixed_format_carries_information_of_32_bits_and_no_more() {
        let sense = Sense::MISCOMPARE_DURING_VERIFY.with_information(0x1234_5678);
        let b = sense.fixed();
        assert_eq!(b.len(), 18);
        assert_eq!(b[..8], [0xf0, 0, 0x0e, 0x12, 0x34, 0x56, 0x78, 10]);
        assert_eq!(b[12..14], [0x1d, 0x00]);
        let b = sense.with_information(1 << 32).fixed();
        assert_eq!(b[..8], [0x70, 0, 0x0e, 0, 0, 0, 0, 10]);
    }

    #[test]
    fn fixed_format_points_at_the_illegal_field() {
        let b = Sense::cdb_field(1, Some(7)).fixed();
        assert_eq!(b[15..18], [0xcf, 0, 1]);
        let b = Sense::list_field(0x0102, None).fixed();
        assert_eq!(b[15..18], [0x80, 1, 2]);
    }

    #[test]
    fn descriptor_format_carries_information_of_64_bits_and_the_field() {
        let b = Sense::LBA_OUT_OF_RANGE.with_information(u64::MAX - 1).descriptor();
        assert_eq!(
            b[..],
            [0x72, 5, 0x21, 0, 0, 0, 0, 12, 0, 10, 0x80, 0, 255, 255, 255, 255, 255, 255, 255, 254]
        );
        let b = Sense::cdb_field(9, None).descriptor();
        assert_eq!(b[..], [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xc0, 0, 9, 0]);
        let all = Sense::list_field(1, Some(0)).with_information(1).descriptor();
        assert_eq!(all.len(), SenseData::MAX);
        assert_eq!(usize::from(all[7]), all.len() - 8);
    }

    #[test]
    fn a_sense_reads_as_its_key_name_and_place() {
        assert_eq!(
            Sense::cdb_field(1, Some(4)).to_string(),
            "ILLEGAL REQUEST, invalid field in CDB (24/00) at CDB byte 1 bit 4"
        );
        assert_eq!(Sense::new(9, 0x80, 1).to_string(), "VENDOR SPECIFIC (80/01)");
    }

    #[test]
    fn no_triple_is_named_twice() {
        for (i, (a, _)) in TRIPLES.iter().enumerate() {
            assert!(TRIPLES[..i].iter().all(|(b, _)| a != b), "{a}");
        }
    }
}
