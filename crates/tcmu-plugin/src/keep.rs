// SPDX-License-Identifier: Apache-2.0
//! The functions that plugins find in the program that loads them, beside those of `tcmu-abi`.
use crate::exports;

tcmu_abi::exported! {
    exports: tcmu_event_name tcmu_notify_cmd_timed_out tcmu_notify_conn_lost tcmu_notify_lock_lost
        tcmur_cmd_complete tcmur_dev_get_private tcmur_dev_set_private tcmur_dev_update_size
        tcmur_handle_caw tcmur_handle_writesame tcmur_register_handler;
}
