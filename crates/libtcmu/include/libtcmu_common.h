/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs on libtcmu and plugins of tcmu-runner have in common: statuses, commands, what can be
 * asked of a device, helpers for CDBs, data and sense.
 *
 * A device is known by its pointer alone. Any thread may call these functions; a command belongs to
 * one thread at a time. Unless it says otherwise, an int is 0 or a negative errno.
 */
#ifndef LIBTCMU_COMMON_H
#define LIBTCMU_COMMON_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SENSE_BUFFERSIZE 96
#define CFGFS_ROOT "/sys/kernel/config/target"
#define CFGFS_CORE CFGFS_ROOT "/core"

struct tcmu_device;
struct tcmulib_handler;

/* How a command has ended. */
enum {
	TCMU_STS_ASYNC_HANDLED = -2,          /* it has not: a call will end it */
	TCMU_STS_NOT_HANDLED = -1,            /* an opcode that is not ours */
	TCMU_STS_OK = 0,
	TCMU_STS_NO_RESOURCE = 1,             /* TASK SET FULL */
	TCMU_STS_PASSTHROUGH_ERR = 2,         /* sense_buf says how */
	TCMU_STS_BUSY = 3,                    /* BUSY */
	TCMU_STS_WR_ERR = 4,
	TCMU_STS_RD_ERR = 5,
	TCMU_STS_MISCOMPARE = 6,
	TCMU_STS_INVALID_CMD = 7,
	TCMU_STS_INVALID_CDB = 8,
	TCMU_STS_INVALID_PARAM_LIST = 9,
	TCMU_STS_INVALID_PARAM_LIST_LEN = 10,
	TCMU_STS_TIMEOUT = 11,
	TCMU_STS_FENCED = 12,
	TCMU_STS_HW_ERR = 13,
	TCMU_STS_RANGE = 14,
	TCMU_STS_FRMT_IN_PROGRESS = 15,
	TCMU_STS_CAPACITY_CHANGED = 16,
	TCMU_STS_NOTSUPP_SAVE_PARAMS = 17,
	TCMU_STS_WR_ERR_INCOMPAT_FRMT = 18,
	TCMU_STS_TRANSITION = 19,
	TCMU_STS_IMPL_TRANSITION_ERR = 20,
	TCMU_STS_EXPL_TRANSITION_ERR = 21,
	TCMU_STS_NO_LOCK_HOLDERS = 22,
	TCMU_STS_NOTSUPP_SEG_DESC_TYPE = 23,
	TCMU_STS_NOTSUPP_TGT_DESC_TYPE = 24,
	TCMU_STS_CP_TGT_DEV_NOTCONN = 25,
	TCMU_STS_INVALID_CP_TGT_DEV_TYPE = 26,
	TCMU_STS_TOO_MANY_SEG_DESC = 27,
	TCMU_STS_TOO_MANY_TGT_DESC = 28,
};

/* A SCSI command. */
struct tcmulib_cmd {
	uint16_t cmd_id;                      /* the kernel's name for it */
	uint8_t *cdb;
	struct iovec *iovec;                  /* its data, in memory shared with the kernel */
	size_t iov_cnt;
	uint8_t sense_buf[SENSE_BUFFERSIZE];  /* for TCMU_STS_PASSTHROUGH_ERR */
	void *hm_private;                     /* the holder's */
};

/* What a reconfig function is asked for. */
enum tcmulib_cfg_type {
	TCMULIB_CFG_DEV_CFGSTR = 0,
	TCMULIB_CFG_DEV_SIZE = 1,
	TCMULIB_CFG_WRITE_CACHE = 2,
};

struct tcmulib_cfg_info {
	enum tcmulib_cfg_type type;
	union {
		uint64_t dev_size;            /* bytes */
		char *dev_cfgstring;          /* with the subtype */
		bool write_cache;
	} data;
};

/* A device. Strings and pointers that are not said to be malloc'ed are the device's. */
void *tcmu_dev_get_private(struct tcmu_device *dev);
void tcmu_dev_set_private(struct tcmu_device *dev, void *priv);
const char *tcmu_dev_get_uio_name(struct tcmu_device *dev); /* "uio0" */
int tcmu_dev_get_fd(struct tcmu_device *dev);               /* to poll for commands */
char *tcmu_dev_get_cfgstring(struct tcmu_device *dev);      /* "subtype/..." */
struct tcmulib_handler *tcmu_dev_get_handler(struct tcmu_device *dev);
/* Where the memory shared with the kernel is mapped, and of what file (malloc'ed). */
char *tcmu_dev_get_memory_info(struct tcmu_device *dev, void **base, size_t *len, off_t *offset);

/* Properties of a device. They begin as 0 and false, but for block size, capacity and the longest
 * transfer, which are what the kernel has. */
void tcmu_dev_set_num_lbas(struct tcmu_device *dev, uint64_t num_lbas);
uint64_t tcmu_dev_get_num_lbas(struct tcmu_device *dev);
void tcmu_dev_set_block_size(struct tcmu_device *dev, uint32_t block_size);
uint32_t tcmu_dev_get_block_size(struct tcmu_device *dev);
void tcmu_dev_set_max_xfer_len(struct tcmu_device *dev, uint32_t len);
uint32_t tcmu_dev_get_max_xfer_len(struct tcmu_device *dev);
void tcmu_dev_set_opt_xcopy_rw_len(struct tcmu_device *dev, uint32_t len);
uint32_t tcmu_dev_get_opt_xcopy_rw_len(struct tcmu_device *dev);
void tcmu_dev_set_max_unmap_len(struct tcmu_device *dev, uint32_t len);
uint32_t tcmu_dev_get_max_unmap_len(struct tcmu_device *dev);
void tcmu_dev_set_opt_unmap_gran(struct tcmu_device *dev, uint32_t len, bool split);
uint32_t tcmu_dev_get_opt_unmap_gran(struct tcmu_device *dev);
void tcmu_dev_set_unmap_gran_align(struct tcmu_device *dev, uint32_t len);
uint32_t tcmu_dev_get_unmap_gran_align(struct tcmu_device *dev);
void tcmu_dev_set_unmap_enabled(struct tcmu_device *dev, bool enabled);
bool tcmu_dev_get_unmap_enabled(struct tcmu_device *dev);
void tcmu_dev_set_write_cache_enabled(struct tcmu_device *dev, bool enabled);
bool tcmu_dev_get_write_cache_enabled(struct tcmu_device *dev);
void tcmu_dev_set_solid_state_media(struct tcmu_device *dev, bool solid_state);
bool tcmu_dev_get_solid_state_media(struct tcmu_device *dev);
void tcmu_dev_set_write_protect_enabled(struct tcmu_device *dev, bool enabled);
bool tcmu_dev_get_write_protect_enabled(struct tcmu_device *dev);

uint64_t tcmu_lba_to_byte(struct tcmu_device *dev, uint64_t lba);
uint64_t tcmu_byte_to_lba(struct tcmu_device *dev, uint64_t byte);

/* Answers all commands that were not taken yet with BUSY. */
void tcmu_dev_flush_ring(struct tcmu_device *dev);
/* Whether this kernel takes completions in any order (ours may be called in any order anyway). */
bool tcmu_dev_oooc_supported(struct tcmu_device *dev);

/* Files of configfs. What is returned as char * is malloc'ed; null if there is nothing. */
char *tcmu_cfgfs_get_str(const char *path);
int tcmu_cfgfs_set_str(const char *path, const char *val, int val_len);
int tcmu_cfgfs_get_int(const char *path);                       /* not negative, or -errno */
int tcmu_cfgfs_set_u32(const char *path, uint32_t val);
int tcmu_cfgfs_dev_get_attr_int(struct tcmu_device *dev, const char *name); /* the same */
int tcmu_cfgfs_dev_exec_action(struct tcmu_device *dev, const char *name, uint32_t val);
int tcmu_cfgfs_dev_set_ctrl_u64(struct tcmu_device *dev, const char *key, uint64_t val);
uint64_t tcmu_cfgfs_dev_get_info_u64(struct tcmu_device *dev, const char *name, int *fn_ret);
char *tcmu_cfgfs_dev_get_wwn(struct tcmu_device *dev);
int tcmu_cfgfs_mod_param_set_u32(const char *name, uint32_t val);

/* CDBs. */
int tcmu_cdb_get_length(uint8_t *cdb);                          /* bytes, or -EINVAL */
uint64_t tcmu_cdb_get_lba(uint8_t *cdb);
uint32_t tcmu_cdb_get_xfer_length(uint8_t *cdb);
uint64_t tcmu_cdb_to_byte(struct tcmu_device *dev, uint8_t *cdb);
void tcmu_cdb_print_info(struct tcmu_device *dev, const struct tcmulib_cmd *cmd, const char *info);

/* Data. Seeking and copying move the beginning of the pieces on. */
off_t tcmu_iovec_compare(void *mem, struct iovec *iovec, size_t size); /* first difference, or -1 */
size_t tcmu_iovec_seek(struct iovec *iovec, size_t count);      /* pieces used up */
void tcmu_cmd_seek(struct tcmulib_cmd *cmd, size_t count);
void tcmu_iovec_zero(struct iovec *iovec, size_t iov_cnt);
bool tcmu_iovec_zeroed(struct iovec *iovec, size_t iov_cnt);
size_t tcmu_iovec_length(struct iovec *iovec, size_t iov_cnt);
size_t tcmu_memcpy_into_iovec(struct iovec *iovec, size_t iov_cnt, void *src, size_t len);
size_t tcmu_memcpy_from_iovec(void *dest, size_t len, struct iovec *iovec, size_t iov_cnt);

/* Sense. The first returns TCMU_STS_PASSTHROUGH_ERR. The others clear what was set before; the status
 * that the command then ends with, such as TCMU_STS_MISCOMPARE, adds sense key and code. */
int tcmu_sense_set_data(uint8_t *sense_buf, uint8_t key, uint16_t asc_ascq);
void tcmu_sense_set_info(uint8_t *sense_buf, uint32_t info);
void tcmu_sense_set_key_specific_info(uint8_t *sense_buf, uint16_t info);

/* Threads. The second cancels one and waits for its end. */
void tcmu_set_thread_name(const char *prefix, struct tcmu_device *dev);
void tcmu_thread_cancel(pthread_t thread);

#ifdef __cplusplus
}
#endif

#endif
