/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libtcmu: serves devices of the kernel's TCM-User in a program's own event loop.
 *
 *	ctx = tcmulib_initialize(handlers, count);
 *	poll the master descriptor: tcmulib_master_fd_ready(ctx);
 *	poll tcmu_dev_get_fd(dev) of each device that `added` told of:
 *		tcmulib_processing_start(dev);
 *		while ((cmd = tcmulib_get_next_command(dev, 0)))
 *			tcmulib_command_complete(dev, cmd, status);
 *		tcmulib_processing_complete(dev);
 *	tcmulib_close(ctx);
 *
 * Callbacks are called from within tcmulib_initialize, tcmulib_master_fd_ready and tcmulib_close, and
 * from nowhere else.
 */
#ifndef LIBTCMU_H
#define LIBTCMU_H

#include "libtcmu_common.h"

#ifdef __cplusplus
extern "C" {
#endif

struct tcmulib_context;

/* What a program serves: the devices whose configuration strings begin with "subtype/". The library
 * keeps a copy of it; strings have to stay. */
struct tcmulib_handler {
	const char *name;                /* for people */
	const char *subtype;
	const char *cfg_desc;            /* what people read about the configuration string */

	struct tcmulib_context *ctx;     /* the library's */

	/* May be null. Whether a configuration string makes sense; if not, *reason may be set to
	 * malloc'ed text. */
	bool (*check_config)(const char *cfgstring, char **reason);
	/* May be null: nothing can be changed. 0, or a negative errno that refuses the change. */
	int (*reconfig)(struct tcmu_device *dev, struct tcmulib_cfg_info *cfg);
	/* May be null. The directory of logs has changed. */
	bool (*update_logdir)(void);

	/* A device is there: 0, or a negative errno that refuses it. */
	int (*added)(struct tcmu_device *dev);
	/* A device goes: after the return its pointer is invalid, and its commands are, too. */
	void (*removed)(struct tcmu_device *dev);

	void *hm_private;                /* the program's */
	void *connection;                /* the library's */
};

/* Begins; null if it cannot. Devices that are there already are reported from within. */
struct tcmulib_context *tcmulib_initialize(struct tcmulib_handler *handlers, size_t handler_count);
/* Announces the handlers over D-Bus, so that targetcli knows of them, as long as ctx is there. Does
 * not wait, and does no harm where there is no bus. */
void tcmulib_register(struct tcmulib_context *ctx);
/* The descriptor to poll for reading, and what to call when it is readable. */
int tcmulib_get_master_fd(struct tcmulib_context *ctx);
int tcmulib_master_fd_ready(struct tcmulib_context *ctx);
/* Ends: `removed` is called for each device. */
void tcmulib_close(struct tcmulib_context *ctx);

/* Commands of a device. To be called when its descriptor is readable, before commands are taken. */
void tcmulib_processing_start(struct tcmu_device *dev);
/* The next command, or null. hm_private points to hm_cmd_size bytes of zeros, or is null for 0. */
struct tcmulib_cmd *tcmulib_get_next_command(struct tcmu_device *dev, int hm_cmd_size);
/* Ends a command, in any order, from any thread; its pointer is invalid then. */
void tcmulib_command_complete(struct tcmu_device *dev, struct tcmulib_cmd *cmd, int status);
/* Tells the kernel of the commands that were completed. */
void tcmulib_processing_complete(struct tcmu_device *dev);

#ifdef __cplusplus
}
#endif

#endif
