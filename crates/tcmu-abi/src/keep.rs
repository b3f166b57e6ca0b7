// SPDX-License-Identifier: Apache-2.0
//! This module uses `unsafe` to keep addresses of functions in a table.
//!
//! The table refers to all functions that are exported, so that no linker leaves one out.
#![allow(unsafe_code)]

use crate::exports::{cdb, cfgfs, device, iovec, log, sense, thread};
use crate::properties;

/// The address of a function; it is not called through this.
#[derive(Clone, Copy, Debug)]
pub struct Address(pub *const ());

// SAFETY: nothing is done with it but comparing.
unsafe impl Sync for Address {}

/// A table of all functions that a crate exports, by module, and the function `keep` that makes the
/// linker look at it. A test compares it with the crate's list `symbols.txt`, which its function
/// `symbols`, beside the module, reads; with UPDATE_SYMBOLS in the environment, it writes the list.
#[macro_export]
macro_rules! exported {
    ($($module:ident: $($function:ident)*;)*) => {
        #[used]
        static TABLE: &[(&str, $crate::Address)] = &[
            $($((stringify!($function), $crate::Address($module::$function as *const ())),)*)*
        ];

        /// Makes the linker look at this crate; returns how many functions it exports.
        pub fn keep() -> usize {
            std::hint::black_box(TABLE).iter().filter(|row| !row.1.0.is_null()).count()
        }

        #[cfg(test)]
        mod tests {
            use super::super::symbols;
            use super::{TABLE, keep};

            #[test]
            fn the_list_of_symbols_is_the_table() {
                let mut names: Vec<&str> = TABLE.iter().map(|row| row.0).collect();
                names.sort_unstable();
                if std::env::var_os("UPDATE_SYMBOLS").is_some() {
                    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/symbols.txt");
                    std::fs::write(file, names.join("\n") + "\n").unwrap();
                }
                assert_eq!(symbols().collect::<Vec<_>>(), names, "UPDATE_SYMBOLS=1 writes it");
            }

            #[test]
            fn no_function_is_left_out() {
                assert_eq!(keep(), TABLE.len());
            }
        }
    };
}

exported! {
    cdb: tcmu_cdb_get_length tcmu_cdb_get_lba tcmu_cdb_get_xfer_length tcmu_cdb_to_byte
        tcmu_cdb_print_info;
    cfgfs: tcmu_cfgfs_get_str tcmu_cfgfs_set_str tcmu_cfgfs_get_int tcmu_cfgfs_set_u32
        tcmu_cfgfs_dev_get_attr_int tcmu_cfgfs_dev_exec_action tcmu_cfgfs_dev_set_ctrl_u64
        tcmu_cfgfs_dev_get_info_u64 tcmu_cfgfs_dev_get_wwn tcmu_cfgfs_mod_param_set_u32;
    device: tcmu_dev_get_private tcmu_dev_set_private tcmu_dev_get_uio_name tcmu_dev_get_fd
        tcmu_dev_get_cfgstring tcmu_dev_get_handler tcmu_dev_get_memory_info
        tcmu_dev_set_opt_unmap_gran tcmu_lba_to_byte tcmu_byte_to_lba tcmu_dev_flush_ring
        tcmu_dev_oooc_supported;
    iovec: tcmu_iovec_length tcmu_iovec_compare tcmu_iovec_seek tcmu_cmd_seek tcmu_iovec_zero
        tcmu_iovec_zeroed tcmu_memcpy_into_iovec tcmu_memcpy_from_iovec;
    log: tcmu_crit_message tcmu_err_message tcmu_warn_message tcmu_info_message tcmu_dbg_message
        tcmu_dbg_scsi_cmd_message tcmu_set_log_level tcmu_get_log_level tcmu_make_absolute_logfile;
    sense: __tcmu_sense_set_data tcmu_sense_set_data tcmu_sense_set_info
        tcmu_sense_set_key_specific_info;
    thread: tcmu_set_thread_name tcmu_thread_cancel;
    properties: tcmu_dev_get_num_lbas tcmu_dev_set_num_lbas tcmu_dev_get_block_size
        tcmu_dev_set_block_size tcmu_dev_get_max_xfer_len tcmu_dev_set_max_xfer_len
        tcmu_dev_get_opt_xcopy_rw_len tcmu_dev_set_opt_xcopy_rw_len tcmu_dev_get_max_unmap_len
        tcmu_dev_set_max_unmap_len tcmu_dev_get_opt_unmap_gran tcmu_dev_get_unmap_gran_align
        tcmu_dev_set_unmap_gran_align tcmu_dev_get_write_cache_enabled
        tcmu_dev_set_write_cache_enabled tcmu_dev_get_solid_state_media
        tcmu_dev_set_solid_state_media tcmu_dev_get_unmap_enabled tcmu_dev_set_unmap_enabled
        tcmu_dev_get_write_protect_enabled tcmu_dev_set_write_protect_enabled;
}
