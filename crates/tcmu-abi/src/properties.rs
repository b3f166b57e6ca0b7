// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to export functions to C.
//!
//! The properties of a device that handlers set and ask for: one row each, with the C functions
//! that get and set it. They begin as 0 and false; what serves the device gives them their values.
//! Any thread may use them at any time.
#![allow(unsafe_code)]
#![allow(clippy::missing_safety_doc, reason = "a device that exists, or null, is what C passes")]

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::Device;

macro_rules! properties {
    ($($doc:literal $field:ident $set_field:ident: $type:ty, $atomic:ty
        $(, $get:ident $(, $set:ident)?)?;)*) => {
        /// The properties.
        #[derive(Debug, Default)]
        pub struct Properties {
            $($field: $atomic,)*
        }

        impl Properties {
            $(
                #[doc = $doc]
                pub fn $field(&self) -> $type {
                    self.$field.load(Ordering::Relaxed)
                }

                #[doc = concat!("Sets: ", $doc)]
                pub fn $set_field(&self, value: $type) {
                    self.$field.store(value, Ordering::Relaxed);
                }
            )*
        }

        $($(
            #[doc = concat!("`", stringify!($get), "`: ", $doc)]
            #[unsafe(no_mangle)]
            pub unsafe extern "C" fn $get(device: *mut Device) -> $type {
                // SAFETY: C code passes a device that exists, or null.
                let device = unsafe { Device::from_ptr(device) };
                device.map(|device| device.properties().$field()).unwrap_or_default()
            }

            $(
                #[doc = concat!("`", stringify!($set), "`: ", $doc)]
                #[unsafe(no_mangle)]
                pub unsafe extern "C" fn $set(device: *mut Device, value: $type) {
                    // SAFETY: C code passes a device that exists, or null.
                    if let Some(device) = unsafe { Device::from_ptr(device) } {
                        device.properties().$set_field(value);
                    }
                }
            )?
        )?)*
    };
}

#[rustfmt::skip]
properties! {
    "capacity in logical blocks."
        num_lbas set_num_lbas: u64, AtomicU64, tcmu_dev_get_num_lbas, tcmu_dev_set_num_lbas;
    "bytes of a logical block."
        block_size set_block_size: u32, AtomicU32, tcmu_dev_get_block_size, tcmu_dev_set_block_size;
    "the most blocks of a transfer."
        max_xfer_len set_max_xfer_len: u32, AtomicU32, tcmu_dev_get_max_xfer_len, tcmu_dev_set_max_xfer_len;
    "the best number of blocks of a copy."
        opt_xcopy_rw_len set_opt_xcopy_rw_len: u32, AtomicU32, tcmu_dev_get_opt_xcopy_rw_len, tcmu_dev_set_opt_xcopy_rw_len;
    "the most blocks of an UNMAP."
        max_unmap_len set_max_unmap_len: u32, AtomicU32, tcmu_dev_get_max_unmap_len, tcmu_dev_set_max_unmap_len;
    "the granularity of UNMAP in blocks."
        opt_unmap_gran set_opt_unmap_gran: u32, AtomicU32, tcmu_dev_get_opt_unmap_gran;
    "whether UNMAPs are split at that granularity."
        split_unmaps set_split_unmaps: bool, AtomicBool;
    "where that granularity begins, in blocks."
        unmap_gran_align set_unmap_gran_align: u32, AtomicU32, tcmu_dev_get_unmap_gran_align, tcmu_dev_set_unmap_gran_align;
    "whether there is a volatile write cache."
        write_cache_enabled set_write_cache_enabled: bool, AtomicBool, tcmu_dev_get_write_cache_enabled, tcmu_dev_set_write_cache_enabled;
    "whether the medium does not rotate."
        solid_state_media set_solid_state_media: bool, AtomicBool, tcmu_dev_get_solid_state_media, tcmu_dev_set_solid_state_media;
    "whether UNMAP is offered."
        unmap_enabled set_unmap_enabled: bool, AtomicBool, tcmu_dev_get_unmap_enabled, tcmu_dev_set_unmap_enabled;
    "whether writes are refused (of version 1.6)."
        write_protect_enabled set_write_protect_enabled: bool, AtomicBool, tcmu_dev_get_write_protect_enabled, tcmu_dev_set_write_protect_enabled;
}
