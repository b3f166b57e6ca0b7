// SPDX-License-Identifier: Apache-2.0
/*
 * RAM disks on libtcmu, in an event loop of the program's own.
 *
 *	cc -o consumer consumer.c $(pkg-config --cflags --libs libtcmu) -lpthread
 *	./consumer [-r] [-l LOGDIR]
 *
 * Subtypes, the part of a configuration string before its first slash:
 *	mem/NAME      a RAM disk; the loop itself executes its commands
 *	late/NAME     a RAM disk whose commands a thread executes, the latest first
 *	status/NAME   a RAM disk whose blocks 1 to 28 cannot be read: reading block N ends with status N
 *
 * -r registers them over D-Bus, so that targetcli knows them. SIGTERM ends the program.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libtcmu.h"
#include "libtcmu_log.h"
#include "scsi_defs.h"

#define MAX_DISKS 64

/* A RAM disk: what the program keeps with each device. */
struct disk {
	struct tcmu_device *dev;
	uint8_t *blocks;
	uint64_t len;
	pthread_rwlock_t lock;       /* of blocks and len: they change when the disk grows */
	bool late, statuses;
	bool was_read[32];           /* of a `status` disk: the block was read before */
	/* Of a `late` disk: */
	pthread_t worker;
	pthread_mutex_t jobs_lock;
	pthread_cond_t jobs_changed;
	struct job *jobs;
	bool ending;
};

/* What the program keeps with each command of a `late` disk, in the library's memory. */
struct job {
	struct tcmulib_cmd *cmd;
	struct job *next;
};

static struct disk *disks[MAX_DISKS];
static volatile sig_atomic_t ended;

static void put32(uint8_t *to, uint32_t value)
{
	for (int i = 3; i >= 0; i--, value >>= 8)
		to[i] = value;
}

static void put64(uint8_t *to, uint64_t value)
{
	put32(to, value >> 32);
	put32(to + 4, value);
}

/* Data-in: as much of it as the CDB and the initiator want. */
static int answer(struct tcmulib_cmd *cmd, uint8_t *data, size_t len, size_t wanted)
{
	tcmu_iovec_zero(cmd->iovec, cmd->iov_cnt);
	tcmu_memcpy_into_iovec(cmd->iovec, cmd->iov_cnt, data, len < wanted ? len : wanted);
	return TCMU_STS_OK;
}

static int inquiry(struct disk *disk, struct tcmulib_cmd *cmd)
{
	uint8_t data[96] = { TYPE_DISK }, *cdb = cmd->cdb;
	size_t wanted = cdb[3] << 8 | cdb[4], len;
	char *serial;

	if (!(cdb[1] & 1)) {
		if (cdb[2])
			return TCMU_STS_INVALID_CDB;
		data[2] = 5; /* SPC-3 */
		data[3] = 2; /* format of these data */
		data[4] = 31;
		data[7] = 2; /* command queueing */
		memcpy(data + 8, "LUNETTE RAM disk        1   ", 28);
		return answer(cmd, data, 36, wanted);
	}
	data[1] = cdb[2];
	switch (cdb[2]) {
	case 0x00: /* the pages that there are */
		memcpy(data + 3, "\x03\x00\x80\x83", 4);
		return answer(cmd, data, 7, wanted);
	case 0x80: /* unit serial number */
	case 0x83: /* device identification: the same, behind our name */
		serial = tcmu_cfgfs_dev_get_wwn(disk->dev);
		if (cdb[2] == 0x80) {
			len = snprintf((char *)data + 4, sizeof(data) - 4, "%s", serial ? serial : "");
		} else {
			len = snprintf((char *)data + 8, sizeof(data) - 8, "LUNETTE %s",
				       serial ? serial : "");
			len = len < sizeof(data) - 9 ? len : sizeof(data) - 9;
			data[4] = 2; /* ASCII */
			data[5] = 1; /* T10 vendor id */
			data[7] = len;
			len += 4;
		}
		free(serial);
		len = len < sizeof(data) - 5 ? len : sizeof(data) - 5;
		data[3] = len;
		return answer(cmd, data, len + 4, wanted);
	}
	return TCMU_STS_INVALID_CDB;
}

static int read_capacity(struct disk *disk, struct tcmulib_cmd *cmd, bool is_long)
{
	uint32_t block_size = tcmu_dev_get_block_size(disk->dev);
	uint64_t last = disk->len / block_size - 1;
	uint8_t data[32] = { 0 };

	if (!is_long) {
		put32(data, last > UINT32_MAX ? UINT32_MAX : last);
		put32(data + 4, block_size);
		return answer(cmd, data, 8, 8);
	}
	put64(data, last);
	put32(data + 8, block_size);
	return answer(cmd, data, sizeof(data), tcmu_cdb_get_xfer_length(cmd->cdb));
}

static int mode_sense(struct tcmulib_cmd *cmd, bool is_long)
{
	/* The header and the caching page, which says that there is no cache. */
	uint8_t data[28] = { 0 }, *cdb = cmd->cdb;
	size_t header = is_long ? 8 : 4, len = header;

	if ((cdb[2] & 0x3f) == 0x08 || (cdb[2] & 0x3f) == 0x3f) {
		data[len] = 0x08;
		data[len + 1] = 18;
		len += 20;
	}
	if (is_long)
		data[1] = len - 2;
	else
		data[0] = len - 1;
	return answer(cmd, data, len, is_long ? cdb[7] << 8 | cdb[8] : cdb[4]);
}

/* Of a `status` disk: how reading of this block ends. */
static int status_of(struct disk *disk, struct tcmulib_cmd *cmd, uint64_t block)
{
	if (block > 28)
		return TCMU_STS_OK;
	switch (block) {
	case TCMU_STS_NO_RESOURCE:
	case TCMU_STS_BUSY:
	case TCMU_STS_TIMEOUT:
		/* The initiator may try again: the second time it succeeds. */
		if (disk->was_read[block])
			block = TCMU_STS_OK;
		else
			disk->was_read[block] = true;
		break;
	case TCMU_STS_PASSTHROUGH_ERR:
		return tcmu_sense_set_data(cmd->sense_buf, DATA_PROTECT, ASC_WRITE_PROTECTED);
	case TCMU_STS_MISCOMPARE:
		tcmu_sense_set_info(cmd->sense_buf, 0x01020304);
		break;
	case TCMU_STS_FRMT_IN_PROGRESS:
		tcmu_sense_set_key_specific_info(cmd->sense_buf, 0x8000);
		break;
	}
	return block;
}

static int read_write(struct disk *disk, struct tcmulib_cmd *cmd, bool is_write)
{
	uint64_t offset = tcmu_cdb_to_byte(disk->dev, cmd->cdb);
	uint64_t len = tcmu_lba_to_byte(disk->dev, tcmu_cdb_get_xfer_length(cmd->cdb));
	uint8_t *blocks = disk->blocks + offset;
	int status;

	if (offset > disk->len || len > disk->len - offset)
		return TCMU_STS_RANGE;
	if (len > tcmu_iovec_length(cmd->iovec, cmd->iov_cnt))
		return TCMU_STS_INVALID_CDB;
	if (is_write) {
		tcmu_memcpy_from_iovec(blocks, len, cmd->iovec, cmd->iov_cnt);
		return TCMU_STS_OK;
	}
	status = disk->statuses ? status_of(disk, cmd, tcmu_cdb_get_lba(cmd->cdb)) : TCMU_STS_OK;
	if (status == TCMU_STS_OK)
		tcmu_memcpy_into_iovec(cmd->iovec, cmd->iov_cnt, blocks, len);
	return status;
}

static int execute_locked(struct disk *disk, struct tcmulib_cmd *cmd)
{
	switch (cmd->cdb[0]) {
	case TEST_UNIT_READY:
	case START_STOP:
	case SYNCHRONIZE_CACHE:
	case SYNCHRONIZE_CACHE_16:
		return TCMU_STS_OK;
	case INQUIRY:
		return inquiry(disk, cmd);
	case READ_CAPACITY:
		return read_capacity(disk, cmd, false);
	case SERVICE_ACTION_IN_16:
		if ((cmd->cdb[1] & 0x1f) != SAI_READ_CAPACITY_16)
			return TCMU_STS_INVALID_CDB;
		return read_capacity(disk, cmd, true);
	case MODE_SENSE:
		return mode_sense(cmd, false);
	case MODE_SENSE_10:
		return mode_sense(cmd, true);
	case READ_6:
	case READ_10:
	case READ_12:
	case READ_16:
		return read_write(disk, cmd, false);
	case WRITE_6:
	case WRITE_10:
	case WRITE_12:
	case WRITE_16:
		return read_write(disk, cmd, true);
	}
	return TCMU_STS_NOT_HANDLED;
}

static int execute(struct disk *disk, struct tcmulib_cmd *cmd)
{
	int status;

	pthread_rwlock_rdlock(&disk->lock);
	status = execute_locked(disk, cmd);
	pthread_rwlock_unlock(&disk->lock);
	return status;
}

/* The thread of a `late` disk. */
static void *work(void *argument)
{
	struct disk *disk = argument;
	struct tcmulib_cmd *cmd;
	bool more;

	tcmu_set_thread_name("late", disk->dev);
	pthread_mutex_lock(&disk->jobs_lock);
	for (;;) {
		while (!disk->jobs && !disk->ending)
			pthread_cond_wait(&disk->jobs_changed, &disk->jobs_lock);
		if (!disk->jobs)
			break;
		cmd = disk->jobs->cmd;
		disk->jobs = disk->jobs->next;
		more = disk->jobs;
		pthread_mutex_unlock(&disk->jobs_lock);
		tcmulib_command_complete(disk->dev, cmd, execute(disk, cmd));
		if (!more)
			tcmulib_processing_complete(disk->dev);
		pthread_mutex_lock(&disk->jobs_lock);
	}
	pthread_mutex_unlock(&disk->jobs_lock);
	return NULL;
}

static void serve(struct disk *disk)
{
	struct tcmulib_cmd *cmd;
	struct job *job;

	tcmulib_processing_start(disk->dev);
	while ((cmd = tcmulib_get_next_command(disk->dev, disk->late ? sizeof(*job) : 0))) {
		if (!disk->late) {
			tcmulib_command_complete(disk->dev, cmd, execute(disk, cmd));
			continue;
		}
		job = cmd->hm_private;
		job->cmd = cmd;
		pthread_mutex_lock(&disk->jobs_lock);
		job->next = disk->jobs;
		disk->jobs = job;
		pthread_cond_signal(&disk->jobs_changed);
		pthread_mutex_unlock(&disk->jobs_lock);
	}
	tcmulib_processing_complete(disk->dev);
}

static bool check_config(const char *cfgstring, char **reason)
{
	const char *name = strchr(cfgstring, '/');

	if (name && name[1])
		return true;
	if (asprintf(reason, "there is no name in '%s'", cfgstring) < 0)
		*reason = NULL;
	return false;
}

/* What the kernel has as the device's size. */
static uint64_t configured_size(struct tcmu_device *dev)
{
	int result;
	uint64_t size = tcmu_cfgfs_dev_get_info_u64(dev, "Size", &result);

	return result < 0 ? 0 : size;
}

static int added(struct tcmu_device *dev)
{
	struct tcmulib_handler *handler = tcmu_dev_get_handler(dev);
	struct disk *disk;
	char *reason = NULL;
	int slot = 0, block_size = tcmu_cfgfs_dev_get_attr_int(dev, "hw_block_size");

	while (slot < MAX_DISKS && disks[slot])
		slot++;
	if (slot == MAX_DISKS)
		return -ENOSPC;
	if (!check_config(tcmu_dev_get_cfgstring(dev), &reason)) {
		tcmu_dev_err(dev, "%s\n", reason ? reason : "no memory");
		free(reason);
		return -EINVAL;
	}
	disk = calloc(1, sizeof(*disk));
	if (!disk)
		return -ENOMEM;
	disk->len = configured_size(dev);
	disk->blocks = calloc(1, disk->len);
	if (!disk->blocks || block_size <= 0 || disk->len < (uint64_t)block_size) {
		free(disk->blocks);
		free(disk);
		return -EINVAL;
	}
	disk->dev = dev;
	disk->late = !strcmp(handler->subtype, "late");
	disk->statuses = !strcmp(handler->subtype, "status");
	pthread_rwlock_init(&disk->lock, NULL);
	pthread_mutex_init(&disk->jobs_lock, NULL);
	pthread_cond_init(&disk->jobs_changed, NULL);
	tcmu_dev_set_block_size(dev, block_size);
	tcmu_dev_set_num_lbas(dev, disk->len / block_size);
	tcmu_dev_set_private(dev, disk);
	if (disk->late && pthread_create(&disk->worker, NULL, work, disk)) {
		free(disk->blocks);
		free(disk);
		return -EAGAIN;
	}
	disks[slot] = disk;
	tcmu_dev_info(dev, "added %s, %llu bytes\n", tcmu_dev_get_cfgstring(dev),
		      (unsigned long long)disk->len);
	return 0;
}

static void removed(struct tcmu_device *dev)
{
	struct disk *disk = tcmu_dev_get_private(dev);

	tcmu_dev_info(dev, "removed %s\n", tcmu_dev_get_cfgstring(dev));
	if (disk->late) {
		pthread_mutex_lock(&disk->jobs_lock);
		disk->ending = true;
		pthread_cond_signal(&disk->jobs_changed);
		pthread_mutex_unlock(&disk->jobs_lock);
		pthread_join(disk->worker, NULL);
	}
	for (int i = 0; i < MAX_DISKS; i++)
		if (disks[i] == disk)
			disks[i] = NULL;
	free(disk->blocks);
	free(disk);
}

static int reconfig(struct tcmu_device *dev, struct tcmulib_cfg_info *cfg)
{
	struct disk *disk = tcmu_dev_get_private(dev);
	uint8_t *blocks;

	switch (cfg->type) {
	case TCMULIB_CFG_DEV_SIZE:
		if (cfg->data.dev_size < disk->len)
			return -EINVAL;
		pthread_rwlock_wrlock(&disk->lock);
		blocks = realloc(disk->blocks, cfg->data.dev_size);
		if (blocks) {
			memset(blocks + disk->len, 0, cfg->data.dev_size - disk->len);
			disk->blocks = blocks;
			disk->len = cfg->data.dev_size;
			tcmu_dev_set_num_lbas(dev, tcmu_byte_to_lba(dev, disk->len));
		}
		pthread_rwlock_unlock(&disk->lock);
		tcmu_dev_info(dev, "grown to %llu bytes\n", (unsigned long long)disk->len);
		return blocks ? 0 : -ENOMEM;
	case TCMULIB_CFG_DEV_CFGSTR:
		tcmu_dev_info(dev, "renamed to %s\n", cfg->data.dev_cfgstring);
		return 0;
	case TCMULIB_CFG_WRITE_CACHE:
		break;
	}
	return -EOPNOTSUPP;
}

static void end(int signal)
{
	(void)signal;
	ended = 1;
}

int main(int argc, char **argv)
{
	struct tcmulib_handler handlers[] = {
		{ .name = "RAM disk", .subtype = "mem", .cfg_desc = "any name" },
		{ .name = "late RAM disk", .subtype = "late", .cfg_desc = "any name" },
		{ .name = "statuses", .subtype = "status", .cfg_desc = "any name" },
	};
	struct sigaction action = { .sa_handler = end };
	struct tcmulib_context *ctx;
	struct pollfd fds[MAX_DISKS + 1];
	struct disk *of_fd[MAX_DISKS + 1];
	bool is_registered = false, has_log = false;
	int option, count;

	while ((option = getopt(argc, argv, "rl:")) != -1) {
		if (option == 'r')
			is_registered = true;
		else if (option == 'l' && !tcmu_setup_log(optarg))
			has_log = true;
		else
			return 2;
	}
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	for (size_t i = 0; i < sizeof(handlers) / sizeof(*handlers); i++) {
		handlers[i].check_config = check_config;
		handlers[i].added = added;
		handlers[i].removed = removed;
		handlers[i].reconfig = reconfig;
	}
	ctx = tcmulib_initialize(handlers, sizeof(handlers) / sizeof(*handlers));
	if (!ctx) {
		fprintf(stderr, "libtcmu cannot begin: is target_core_user loaded, are we root?\n");
		return 1;
	}
	if (is_registered)
		tcmulib_register(ctx);
	puts("ready");
	fflush(stdout);
	while (!ended) {
		count = 0;
		fds[count++] = (struct pollfd){ tcmulib_get_master_fd(ctx), POLLIN, 0 };
		for (int i = 0; i < MAX_DISKS; i++) {
			if (!disks[i])
				continue;
			of_fd[count] = disks[i];
			fds[count++] = (struct pollfd){ tcmu_dev_get_fd(disks[i]->dev), POLLIN, 0 };
		}
		if (poll(fds, count, 1000) < 0)
			continue;
		for (int i = 1; i < count; i++)
			if (fds[i].revents)
				serve(of_fd[i]);
		/* Last: disks may be gone afterwards. */
		if (fds[0].revents)
			tcmulib_master_fd_ready(ctx);
	}
	tcmulib_close(ctx);
	if (has_log)
		tcmu_destroy_log();
	puts("ended");
	return 0;
}
