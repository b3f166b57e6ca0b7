// SPDX-License-Identifier: Apache-2.0
//! What a logical unit says of itself: INQUIRY and its pages, READ CAPACITY. All of it is made
//! from the facts of the disk, so that the answers agree with each other and with what
//! `provisioning` does.
use block::Store;
use scsi::capacity::{Capacity, Provisioning, read_capacity10, read_capacity16};
use scsi::inquiry::standard;
use scsi::vpd::{self, BlockLimits, Device};
use sgl::Sgl;

use crate::buffer::reply;
use crate::failure::Answer;
use crate::identity::Identity;
use crate::provisioning::MAX_UNMAP_DESCRIPTORS;
use crate::unit::Lun;

/// The largest physical block that is told, in bytes: what is larger (a cluster of an image) is no
/// unit that is written at once.
const MAX_PHYSICAL: u32 = 4096;

impl<S: Store> Lun<S> {
    /// INQUIRY. It is never longer than what there is to say.
    pub(crate) fn inquiry(&self, page: Option<u8>, alloc: usize, data: &Sgl<'_>) -> Answer {
        let device = self.device();
        match page {
            Some(page) => reply(data, &vpd::page(self.device_type.vpd, page, &device)?, alloc),
            None => reply(data, &standard(&device.identity, self.device_type.versions), alloc),
        }
    }

    /// READ CAPACITY (10).
    pub(crate) fn read_capacity10(&self, data: &Sgl<'_>) -> Answer {
        reply(data, &read_capacity10(&self.capacity()), usize::MAX)
    }

    /// READ CAPACITY (16).
    pub(crate) fn read_capacity16(&self, alloc: usize, data: &Sgl<'_>) -> Answer {
        reply(data, &read_capacity16(&self.capacity(), &self.thin_provisioning()), alloc)
    }

    /// All that the pages of vital product data tell.
    fn device(&self) -> Device {
        let ports = self.port_groups();
        let Identity { vendor, product, revision, serial } = self.identity.clone();
        Device {
            identity: scsi::inquiry::Identity {
                device_type: self.device_type.code,
                vendor,
                product,
                revision,
                serial,
                target_port: ports.port,
                implicit_alua: ports.implicit,
                explicit_alua: ports.explicit,
                third_party_copy: true,
            },
            limits: self.limits(),
            provisioning: self.thin_provisioning(),
            rotation_rate: 1,
            write_cache: self.write_cache(),
        }
    }

    pub(crate) fn capacity(&self) -> Capacity {
        let physical = self.disk.facts().optimal_io.min(MAX_PHYSICAL) >> self.block_shift;
        Capacity {
            blocks: self.blocks(),
            block_size: self.block_size(),
            physical_exponent: if physical.is_power_of_two() {
                physical.trailing_zeros().try_into().unwrap_or(0)
            } else {
                0
            },
            lowest_aligned: 0,
        }
    }

    pub(crate) fn limits(&self) -> BlockLimits {
        let facts = self.disk.facts();
        let blocks = |bytes: u32| bytes >> self.block_shift;
        let cut = |blocks: u64| u32::try_from(blocks).unwrap_or(u32::MAX);
        BlockLimits {
            max_compare_and_write: self.max_compare_and_write(),
            transfer_granularity: u16::try_from(blocks(facts.optimal_io)).unwrap_or(0),
            max_transfer: cut(self.max_blocks),
            optimal_transfer: 0,
            max_prefetch: 0,
            max_unmap_blocks: cut(self.max_unmap_blocks()),
            max_unmap_descriptors: MAX_UNMAP_DESCRIPTORS,
            unmap_granularity: facts.discard.map_or(0, |d| blocks(d.granularity).max(1)),
            unmap_alignment: facts.discard.map(|_| 0),
            max_write_same: self.max_write_same_blocks(),
            write_same_non_zero: false,
        }
    }

    fn thin_provisioning(&self) -> Provisioning {
        let discard = self.disk.facts().discard;
        Provisioning {
            thin: discard.is_some(),
            unmap: discard.is_some(),
            write_same_unmap: discard.is_some(),
            reads_zeroes: discard.is_some_and(|discard| discard.zeroes),
        }
    }
}
