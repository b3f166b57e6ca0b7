/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plugins of tcmu-runner: files handler_*.so of its handler path. The daemon calls
 *
 *	int handler_init(void);
 *
 * of each, which calls tcmur_register_handler and returns what that returned.
 */
#ifndef TCMU_RUNNER_H
#define TCMU_RUNNER_H

#include <time.h>

#include "libtcmu_common.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What get_lock_tag answers when there is no tag. */
#define TCMU_INVALID_LOCK_TAG 65535

/* What get_lock_state answers. */
enum {
	TCMUR_DEV_LOCK_UNKNOWN = 0,
	TCMUR_DEV_LOCK_UNLOCKED = 1,
	TCMUR_DEV_LOCK_READ_LOCKING = 2,
	TCMUR_DEV_LOCK_READ_LOCKED = 3,
	TCMUR_DEV_LOCK_WRITE_LOCKING = 4,
	TCMUR_DEV_LOCK_WRITE_LOCKED = 5,
};

struct tcmur_cmd {
	struct tcmulib_cmd *lib_cmd;     /* CDB, data, sense buffer */
	struct iovec *iovec;             /* data of compound commands */
	size_t iov_cnt;
	void *iov_base_copy;
	void *cmd_state;                 /* the plugin's */
	size_t requested;
	struct {
		void *next, *prev;
	} cmds_list_entry;               /* the daemon's, as all that follows */
	struct timespec start_time;
	bool timed_out;
	void (*done)(struct tcmu_device *dev, struct tcmur_cmd *cmd, int ret);
};

/*
 * A handler. Calls that take a command answer with a TCMU_STS_* status, or with TCMU_STS_ASYNC_HANDLED
 * and later with tcmur_cmd_complete. If nr_threads is 0, then 0 (TCMU_STS_OK) means "later", too, except
 * from handle_cmd: a command that is done is completed with tcmur_cmd_complete all the same. The daemon
 * does without those that are null, from read to caw. Offsets and lengths are in bytes.
 */
struct tcmur_handler {
	const char *name;                /* for people */
	const char *subtype;             /* what configuration strings begin with, before a slash */
	const char *cfg_desc;            /* what people read about configuration strings */
	void *opaque;                    /* the plugin's */

	/* May be null. If not valid, *reason may be set to malloc'ed text. */
	bool (*check_config)(const char *cfgstring, char **reason);
	/* May be null. 0, or a negative errno that refuses the change. */
	int (*reconfig)(struct tcmu_device *dev, struct tcmulib_cfg_info *cfg);
	int (*open)(struct tcmu_device *dev, bool reopen);
	void (*close)(struct tcmu_device *dev);

	/* So many threads run the calls below; 0: the device's own thread does, and they must not
	 * wait. */
	int nr_threads;

	/* Sees each command first; TCMU_STS_NOT_HANDLED leaves it to the daemon. */
	int (*handle_cmd)(struct tcmu_device *dev, struct tcmur_cmd *cmd);
	int (*read)(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iovec,
		    size_t iov_cnt, size_t len, off_t off);
	int (*write)(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iovec,
		     size_t iov_cnt, size_t len, off_t off);
	int (*flush)(struct tcmu_device *dev, struct tcmur_cmd *cmd);
	int (*unmap)(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off, uint64_t len);
	int (*writesame)(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off,
			 uint64_t len, struct iovec *iovec, size_t iov_cnt);
	int (*caw)(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off, uint64_t len,
		   struct iovec *iovec, size_t iov_cnt);

	/* Storage that nodes share. May all be null. */
	int (*report_event)(struct tcmu_device *dev);
	int (*lock)(struct tcmu_device *dev, uint16_t tag);
	int (*unlock)(struct tcmu_device *dev);
	int (*get_lock_tag)(struct tcmu_device *dev, uint16_t *tag);
	int (*get_lock_state)(struct tcmu_device *dev);

	bool _is_dbus_handler;           /* the daemon's */
	/* May be null, as what follows. */
	bool (*update_logdir)(void);
	int (*init)(void);
	void (*destroy)(void);
};

int handler_init(void);

int tcmur_register_handler(struct tcmur_handler *handler);

/* Ends a command that was answered with "later", from any thread. */
void tcmur_cmd_complete(struct tcmu_device *dev, void *data, int rc);

void *tcmur_dev_get_private(struct tcmu_device *dev);
void tcmur_dev_set_private(struct tcmu_device *dev, void *priv);
void tcmur_dev_update_size(struct tcmu_device *dev, uint64_t new_size);

/* What handle_cmd may call for WRITE SAME and COMPARE AND WRITE. */
typedef int (*tcmur_writesame_fn_t)(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off,
				    uint64_t len, struct iovec *iovec, size_t iov_cnt);
typedef int (*tcmur_caw_fn_t)(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off,
			      uint64_t len, struct iovec *iovec, size_t iov_cnt);
int tcmur_handle_writesame(struct tcmu_device *dev, struct tcmur_cmd *cmd, tcmur_writesame_fn_t fn);
int tcmur_handle_caw(struct tcmu_device *dev, struct tcmur_cmd *cmd, tcmur_caw_fn_t fn);

/* What happened to the storage. */
void tcmu_notify_lock_lost(struct tcmu_device *dev);
void tcmu_notify_conn_lost(struct tcmu_device *dev);
void tcmu_notify_cmd_timed_out(struct tcmu_device *dev);

#ifdef __cplusplus
}
#endif

#endif
