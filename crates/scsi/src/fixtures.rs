// SPDX-License-Identifier: Apache-2.0
//! A device for the tests of answers.

use crate::capacity::{Capacity, Provisioning};
use crate::inquiry::{Identity, TargetPort};
use crate::vpd::{BlockLimits, Device};

pub(crate) fn identity() -> Identity {
    Identity {
        device_type: 0,
        vendor: "LIO-ORG".into(),
        product: "disk0".into(),
        revision: "0002".into(),
        serial: "3a0b5b32-6bd4-4a58-8a14-0d9ee1f0a1c7".into(),
        target_port: None,
        implicit_alua: false,
        explicit_alua: false,
        third_party_copy: true,
    }
}

pub(crate) fn device() -> Device {
    Device {
        identity: Identity {
            target_port: Some(TargetPort { relative: 1, group: Some(16) }),
            ..identity()
        },
        limits: BlockLimits {
            max_compare_and_write: 1,
            transfer_granularity: 8,
            max_transfer: 8192,
            optimal_transfer: 2048,
            max_prefetch: 0,
            max_unmap_blocks: 0x0040_0000,
            max_unmap_descriptors: 64,
            unmap_granularity: 8,
            unmap_alignment: Some(0),
            max_write_same: 0x0040_0000,
            write_same_non_zero: false,
        },
        provisioning: provisioning(),
        rotation_rate: 1,
        write_cache: true,
    }
}

pub(crate) fn provisioning() -> Provisioning {
    Provisioning { thin: true, unmap: true, write_same_unmap: true, reads_zeroes: true }
}

pub(crate) fn capacity() -> Capacity {
    Capacity { blocks: 0x8_0000, block_size: 512, physical_exponent: 3, lowest_aligned: 0 }
}
