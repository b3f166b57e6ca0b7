// SPDX-License-Identifier: Apache-2.0
/*
 * The headers' structures are laid out as plugins and programs that were built with the C daemon's
 * headers have them (x86_64). It is compiled, not run.
 */
#include "libtcmu.h"
#include "libtcmu_log.h"
#include "scsi_defs.h"
#include "tcmu-runner.h"

#define SIZE(type, size) _Static_assert(sizeof(struct type) == size, "size of " #type)
#define AT(type, field, offset) \
	_Static_assert(offsetof(struct type, field) == offset, "offset of " #type "." #field)

SIZE(tcmulib_cmd, 136);
AT(tcmulib_cmd, cmd_id, 0);
AT(tcmulib_cmd, cdb, 8);
AT(tcmulib_cmd, iovec, 16);
AT(tcmulib_cmd, iov_cnt, 24);
AT(tcmulib_cmd, sense_buf, 32);
AT(tcmulib_cmd, hm_private, 128);

SIZE(tcmulib_cfg_info, 16);
AT(tcmulib_cfg_info, type, 0);
AT(tcmulib_cfg_info, data, 8);

SIZE(tcmulib_handler, 88);
AT(tcmulib_handler, name, 0);
AT(tcmulib_handler, subtype, 8);
AT(tcmulib_handler, cfg_desc, 16);
AT(tcmulib_handler, ctx, 24);
AT(tcmulib_handler, check_config, 32);
AT(tcmulib_handler, reconfig, 40);
AT(tcmulib_handler, update_logdir, 48);
AT(tcmulib_handler, added, 56);
AT(tcmulib_handler, removed, 64);
AT(tcmulib_handler, hm_private, 72);
AT(tcmulib_handler, connection, 80);

SIZE(tcmur_cmd, 96);
AT(tcmur_cmd, lib_cmd, 0);
AT(tcmur_cmd, iovec, 8);
AT(tcmur_cmd, iov_cnt, 16);
AT(tcmur_cmd, iov_base_copy, 24);
AT(tcmur_cmd, cmd_state, 32);
AT(tcmur_cmd, requested, 40);
AT(tcmur_cmd, cmds_list_entry, 48);
AT(tcmur_cmd, start_time, 64);
AT(tcmur_cmd, timed_out, 80);
AT(tcmur_cmd, done, 88);

SIZE(tcmur_handler, 200);
AT(tcmur_handler, name, 0);
AT(tcmur_handler, subtype, 8);
AT(tcmur_handler, cfg_desc, 16);
AT(tcmur_handler, opaque, 24);
AT(tcmur_handler, check_config, 32);
AT(tcmur_handler, reconfig, 40);
AT(tcmur_handler, open, 48);
AT(tcmur_handler, close, 56);
AT(tcmur_handler, nr_threads, 64);
AT(tcmur_handler, handle_cmd, 72);
AT(tcmur_handler, read, 80);
AT(tcmur_handler, write, 88);
AT(tcmur_handler, flush, 96);
AT(tcmur_handler, unmap, 104);
AT(tcmur_handler, writesame, 112);
AT(tcmur_handler, caw, 120);
AT(tcmur_handler, report_event, 128);
AT(tcmur_handler, lock, 136);
AT(tcmur_handler, unlock, 144);
AT(tcmur_handler, get_lock_tag, 152);
AT(tcmur_handler, get_lock_state, 160);
AT(tcmur_handler, _is_dbus_handler, 168);
AT(tcmur_handler, update_logdir, 176);
AT(tcmur_handler, init, 184);
AT(tcmur_handler, destroy, 192);
