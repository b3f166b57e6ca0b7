// SPDX-License-Identifier: Apache-2.0
//! Vital product data (SPC-4 7.8). In: the facts of a device, and the pages that its type has. Out:
//! pages. Those that all types have (SPC-4) are here.

use crate::answer::{Answer, printable};
use crate::capacity::Provisioning;
use crate::inquiry::Identity;
use crate::sense::Sense;

/// What the pages tell of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Who it is.
    pub identity: Identity,
    /// How much a command may ask for.
    pub limits: BlockLimits,
    /// How its space is provisioned.
    pub provisioning: Provisioning,
    /// Rotations per minute; 1: it does not rotate; 0: not known.
    pub rotation_rate: u16,
    /// Whether there is a volatile write cache.
    pub write_cache: bool,
}

/// Limits of commands, in logical blocks; 0 where there is none, or none is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BlockLimits {
    /// COMPARE AND WRITE; 0: it is not served.
    pub max_compare_and_write: u8,
    /// Transfers should be a multiple of this.
    pub transfer_granularity: u16,
    /// READ, WRITE, VERIFY ...
    pub max_transfer: u32,
    /// Longer ones are slower.
    pub optimal_transfer: u32,
    /// PRE-FETCH.
    pub max_prefetch: u32,
    /// All descriptors of an UNMAP together; longer lists are refused, so 0 refuses all.
    pub max_unmap_blocks: u32,
    /// Descriptors of an UNMAP; the same.
    pub max_unmap_descriptors: u32,
    /// What UNMAP frees, it frees in multiples of this.
    pub unmap_granularity: u32,
    /// The first LBA at which such a multiple begins.
    pub unmap_alignment: Option<u32>,
    /// WRITE SAME.
    pub max_write_same: u64,
    /// WSNZ: WRITE SAME refuses a length of 0 (which else means: to the end).
    pub write_same_non_zero: bool,
}

/// A page that a device type has: its code, and what follows its header. Page 00h, the list of the
/// others, is not among them.
pub type Page = (u8, fn(&Device) -> Answer);

/// The list of pages.
const SUPPORTED_PAGES: u8 = 0x00;

/// A page of vital product data, out of those that a device type has.
///
/// # Errors
/// INVALID FIELD IN CDB for a page that is not there.
pub fn page(pages: &[Page], code: u8, device: &Device) -> Result<Answer, Sense> {
    let body = match pages.iter().find(|(page, _)| *page == code) {
        Some((_, body)) => body(device),
        None if code == SUPPORTED_PAGES => list(pages),
        None => return Err(const { Sense::cdb_field(2, Some(7)) }),
    };
    let mut a = Answer::new();
    a.bytes(&[device.identity.device_type, code, 0, 0]);
    a.bytes(&body);
    a.set_length16(2);
    Ok(a)
}

fn list(pages: &[Page]) -> Answer {
    let mut a = Answer::new();
    a.u8(SUPPORTED_PAGES);
    for (code, _) in pages {
        a.u8(*code);
    }
    a
}

/// Longest serial number that is told, so that every length field holds it.
pub(crate) const MAX_SERIAL: usize = 200;

/// Unit serial number (80h).
pub(crate) fn unit_serial_number(device: &Device) -> Answer {
    let mut a = Answer::new();
    let serial = &device.identity.serial;
    a.text(serial, serial.chars().count().min(MAX_SERIAL));
    a
}

/// Code sets and types of designators (SPC-4 tables 22 and 23).
const BINARY: u8 = 1;
const ASCII: u8 = 2;
const T10_VENDOR: u8 = 1;
const NAA: u8 = 3;
const RELATIVE_PORT: u8 = 4;
const PORT_GROUP: u8 = 5;
/// ASSOCIATION: with the target port.
const OF_PORT: u8 = 1 << 4;

/// Device identification (83h).
pub(crate) fn device_identification(device: &Device) -> Answer {
    let identity = &device.identity;
    let mut a = Answer::new();
    let mut designator = |code_set, kind, bytes: &[u8]| {
        a.bytes(&[code_set, kind, 0]);
        // The longest is vendor, product and serial: below 255.
        a.u8(u8::try_from(bytes.len()).unwrap_or(u8::MAX));
        a.bytes(bytes);
    };
    designator(BINARY, NAA, &naa(&identity.serial));

    let mut t10 = Answer::new();
    t10.text(&identity.vendor, 8);
    t10.bytes(&printable(&identity.product).take(16).collect::<Vec<_>>());
    t10.u8(b':');
    t10.bytes(&printable(&identity.serial).take(MAX_SERIAL).collect::<Vec<_>>());
    designator(ASCII, T10_VENDOR, &t10);

    if let Some(port) = identity.target_port {
        let of = |n: u16| [[0, 0], n.to_be_bytes()].concat();
        designator(BINARY, OF_PORT | RELATIVE_PORT, &of(port.relative));
        if let Some(group) = port.group {
            designator(BINARY, OF_PORT | PORT_GROUP, &of(group));
        }
    }
    a
}

/// NAA IEEE Registered Extended designator (SPC-4 7.8.6.6.5) as LIO makes it: 6h, the OUI 001405h,
/// then the first 25 hexadecimal digits of the unit serial number (zeroes where there are fewer).
pub fn naa(serial: &str) -> [u8; 16] {
    let digits = serial.chars().filter_map(|c| c.to_digit(16)).filter_map(|d| u8::try_from(d).ok());
    let mut nibbles = [6, 0, 0, 1, 4, 0, 5].into_iter().chain(digits);
    std::array::from_fn(|_| {
        let high = nibbles.next().unwrap_or(0);
        high << 4 | nibbles.next().unwrap_or(0)
    })
}

/// Extended INQUIRY data (86h).
pub(crate) fn extended_inquiry(device: &Device) -> Answer {
    let mut a = Answer::new();
    a.u8(0);
    a.u8(0x07); // HEADSUP, ORDSUP, SIMPSUP
    a.u8(u8::from(device.write_cache)); // V_SUP
    a.zeroes(60 - 3);
    a
}
