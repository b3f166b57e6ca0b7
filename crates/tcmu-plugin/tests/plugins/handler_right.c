// SPDX-License-Identifier: Apache-2.0
/* A plugin that does everything right: files as disks, in every way that the interface offers. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "interface.h"

/* What the tests ask for. */
struct counts { int opened, closed, locked, unlocked, unmapped, same, compared, flushed, events, log_dirs; };
struct counts right_counts;
/* How many calls that transfer there are at once, the most that there were, and the last one's thread. */
int right_at_once, right_most_at_once, right_thread;
/* What the tests tell; the delay is that of such a call, in milliseconds. */
int right_fail_open, right_hold, right_lock_status, right_delay;
#define COUNT(WHAT) __sync_add_and_fetch(&right_counts.WHAT, 1)

struct job {
    struct job *next;
    struct tcmur_cmd *cmd;
    int write, flush, overdue;
    struct iovec *iov;
    size_t cnt;
    off_t off;
};
struct disk {
    struct tcmu_device *dev;
    int fd, held;
    uint16_t tag;
    pthread_t thread;
    pthread_mutex_t mutex;
    pthread_cond_t come;
    struct job *first, **last;
    bool ended;
};

/* What Debian's handler_rbd.so looks at when it opens a device and when it reports an event: the C daemon's own
 * structure, which it takes to be behind tcmu_dev_get_private. */
struct known {
    char before[48];
    uint64_t lock_lost, conn_lost, timed_out;
    char between[9];
    uint8_t lock_state;
};
struct { uint64_t lock_lost, conn_lost, timed_out, lock_state; } right_known;
static void look(struct tcmu_device *dev)
{
    struct known *known = tcmu_dev_get_private(dev);
    right_known.lock_lost = known->lock_lost;
    right_known.conn_lost = known->conn_lost;
    right_known.timed_out = known->timed_out;
    right_known.lock_state = known->lock_state;
}

static struct disk *disk(struct tcmu_device *dev) { return tcmur_dev_get_private(dev); }

static bool check(const char *config, char **reason)
{
    const char *path = strchr(config, '/') + 1;
    if (path[0] == '/' && access(path, F_OK) == 0)
        return true;
    if (asprintf(reason, "no such file: %s", path) < 0)
        *reason = NULL;
    return false;
}

static ssize_t transfer(int fd, int write, struct iovec *iov, size_t cnt, off_t off)
{
    ssize_t done = 0;
    for (size_t i = 0; i < cnt; i++) {
        ssize_t n = write ? pwrite(fd, iov[i].iov_base, iov[i].iov_len, off + done)
                          : pread(fd, iov[i].iov_base, iov[i].iov_len, off + done);
        if (n < 0)
            return n;
        if (!write && (size_t)n < iov[i].iov_len)
            memset((char *)iov[i].iov_base + n, 0, iov[i].iov_len - n);
        done += iov[i].iov_len;
    }
    return done;
}

/* Waits until the daemon says that a command has taken too long, for ten seconds at most. */
static int wait_overdue(struct tcmur_cmd *cmd)
{
    for (int i = 0; i < 10000; i++, usleep(1000))
        if (__atomic_load_n(&cmd->timed_out, __ATOMIC_RELAXED))
            return OK;
    return WR_ERR;
}

static int run(struct disk *d, struct job *job)
{
    if (job->overdue)
        return wait_overdue(job->cmd);
    if (job->flush)
        return fdatasync(d->fd) ? WR_ERR : OK;
    if (transfer(d->fd, job->write, job->iov, job->cnt, job->off) < 0)
        return job->write ? WR_ERR : RD_ERR;
    return OK;
}

static void *worker(void *arg)
{
    struct disk *d = arg;
    pthread_mutex_lock(&d->mutex);
    for (;;) {
        while (!d->first && !d->ended)
            pthread_cond_wait(&d->come, &d->mutex);
        struct job *job = d->first;
        if (!job)
            break;
        d->first = job->next;
        if (!d->first)
            d->last = &d->first;
        pthread_mutex_unlock(&d->mutex);
        while (right_hold)
            usleep(1000);
        tcmur_cmd_complete(d->dev, job->cmd, run(d, job));
        free(job);
        pthread_mutex_lock(&d->mutex);
    }
    pthread_mutex_unlock(&d->mutex);
    return NULL;
}

static int begin(struct tcmu_device *dev, struct job with)
{
    struct disk *d = disk(dev);
    struct job *job = malloc(sizeof *job);
    if (!job)
        return BUSY;
    *job = with;
    pthread_mutex_lock(&d->mutex);
    *d->last = job;
    d->last = &job->next;
    pthread_cond_signal(&d->come);
    pthread_mutex_unlock(&d->mutex);
    return OK;
}

static int open_disk(struct tcmu_device *dev, bool reopen)
{
    (void)reopen;
    if (right_fail_open) {
        right_fail_open--;
        return -ENODEV;
    }
    struct disk *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    d->dev = dev;
    d->last = &d->first;
    d->fd = open(strchr(tcmu_dev_get_cfgstring(dev), '/') + 1, O_RDWR | O_CLOEXEC);
    if (d->fd < 0) {
        int error = -errno;
        free(d);
        return error;
    }
    pthread_mutex_init(&d->mutex, NULL);
    pthread_cond_init(&d->come, NULL);
    pthread_create(&d->thread, NULL, worker, d);
    tcmur_dev_set_private(dev, d);
    tcmu_dev_set_max_unmap_len(dev, 16);
    tcmu_info_message(dev, __func__, __LINE__, "opened %s\n", tcmu_dev_get_cfgstring(dev));
    look(dev);
    COUNT(opened);
    return 0;
}

static void close_disk(struct tcmu_device *dev)
{
    struct disk *d = disk(dev);
    pthread_mutex_lock(&d->mutex);
    d->ended = true;
    pthread_cond_signal(&d->come);
    pthread_mutex_unlock(&d->mutex);
    pthread_join(d->thread, NULL);
    close(d->fd);
    free(d);
    COUNT(closed);
}

static int reconfig(struct tcmu_device *dev, struct tcmulib_cfg_info *cfg)
{
    switch (cfg->type) {
    case 1:
        return ftruncate(disk(dev)->fd, cfg->data.dev_size) ? -errno : 0;
    case 2:
        return 0;
    default: {
        int fd = open(strchr(cfg->data.dev_cfgstring, '/') + 1, O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        dup2(fd, disk(dev)->fd);
        close(fd);
        return 0;
    }
    }
}

/* With threads: each call does what it is for. */
static ssize_t sync_transfer(struct tcmu_device *dev, int write, struct iovec *iov, size_t cnt, off_t off)
{
    int now = __sync_add_and_fetch(&right_at_once, 1);
    if (now > right_most_at_once)
        right_most_at_once = now;
    right_thread = gettid();
    if (right_delay)
        usleep(right_delay * 1000);
    ssize_t done = transfer(disk(dev)->fd, write, iov, cnt, off);
    __sync_sub_and_fetch(&right_at_once, 1);
    return done;
}
static int sync_read(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    (void)cmd, (void)len;
    return sync_transfer(dev, 0, iov, cnt, off) < 0 ? RD_ERR : OK;
}
static int sync_write(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    (void)cmd, (void)len;
    return sync_transfer(dev, 1, iov, cnt, off) < 0 ? WR_ERR : OK;
}
static int sync_flush(struct tcmu_device *dev, struct tcmur_cmd *cmd)
{
    (void)cmd;
    COUNT(flushed);
    return fdatasync(disk(dev)->fd) ? WR_ERR : OK;
}
static int sync_unmap(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off, uint64_t len)
{
    (void)cmd;
    COUNT(unmapped);
    return fallocate(disk(dev)->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len) ? WR_ERR : OK;
}
static int sync_same(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off, uint64_t len, struct iovec *iov, size_t cnt)
{
    (void)cmd;
    COUNT(same);
    uint64_t unit = 0;
    for (size_t i = 0; i < cnt; i++)
        unit += iov[i].iov_len;
    for (uint64_t at = 0; unit && at < len; at += unit)
        if (transfer(disk(dev)->fd, 1, iov, cnt, off + at) < 0)
            return WR_ERR;
    return OK;
}
static int sync_caw(struct tcmu_device *dev, struct tcmur_cmd *cmd, uint64_t off, uint64_t len, struct iovec *iov, size_t cnt)
{
    static pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;
    char *buf = malloc(3 * len);
    int ret = OK;
    if (!buf)
        return BUSY;
    COUNT(compared);
    tcmu_memcpy_from_iovec(buf, 2 * len, iov, cnt);
    pthread_mutex_lock(&one);
    if (pread(disk(dev)->fd, buf + 2 * len, len, off) != (ssize_t)len)
        ret = RD_ERR;
    for (uint64_t i = 0; i < len && ret == OK; i++)
        if (buf[i] != buf[2 * len + i]) {
            tcmu_sense_set_info(cmd->lib_cmd->sense_buf, i);
            ret = MISCOMPARE;
        }
    if (ret == OK && pwrite(disk(dev)->fd, buf + len, len, off) != (ssize_t)len)
        ret = WR_ERR;
    pthread_mutex_unlock(&one);
    free(buf);
    return ret;
}

/* Without threads: each call begins what another thread ends. */
static int async_read(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    (void)len;
    return begin(dev, (struct job){ .cmd = cmd, .iov = iov, .cnt = cnt, .off = off });
}
static int async_write(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    (void)len;
    return begin(dev, (struct job){ .cmd = cmd, .write = 1, .iov = iov, .cnt = cnt, .off = off });
}
static int async_flush(struct tcmu_device *dev, struct tcmur_cmd *cmd)
{
    return begin(dev, (struct job){ .cmd = cmd, .flush = 1 });
}

static int larger(struct tcmu_device *dev)
{
    uint64_t size = tcmu_dev_get_num_lbas(dev) * tcmu_dev_get_block_size(dev) / 2 * 3;
    if (ftruncate(disk(dev)->fd, size))
        return WR_ERR;
    return tcmur_dev_update_size(dev, size), OK;
}

/* Sees every CDB. C0h: sense of its own; C1h: later; C2h: larger by half; C3h: the connection is lost;
 * C4h: the lock is; C5h: a command timed out; C7h: taking the lock ends with the status of byte 1;
 * C8h: ends when it has taken too long. */
static int first_look(struct tcmu_device *dev, struct tcmur_cmd *cmd)
{
    uint8_t *cdb = cmd->lib_cmd->cdb;
    switch (cdb[0]) {
    case 0xc0:
        return tcmu_sense_set_data(cmd->lib_cmd->sense_buf, 0x0b, 0x1234), PASSTHROUGH_ERR;
    case 0xc1:
        begin(dev, (struct job){ .cmd = cmd, .flush = 1 });
        return ASYNC_HANDLED;
    case 0xc2:
        return larger(dev);
    case 0xc3:
        return tcmu_notify_conn_lost(dev), OK;
    case 0xc4:
        return tcmu_notify_lock_lost(dev), OK;
    case 0xc5:
        return tcmu_notify_cmd_timed_out(dev), OK;
    case 0xc6:
        return tcmur_handle_writesame(dev, cmd, sync_same);
    case 0xc7:
        right_lock_status = cdb[1];
        return OK;
    case 0xc8:
        begin(dev, (struct job){ .cmd = cmd, .overdue = 1 });
        return ASYNC_HANDLED;
    default:
        return NOT_HANDLED;
    }
}

/* Answers everything: a medium changer that knows three commands, WRITE SAME and COMPARE AND WRITE, and
 * C2h: larger by half. */
static int changer(struct tcmu_device *dev, struct tcmur_cmd *cmd)
{
    uint8_t *cdb = cmd->lib_cmd->cdb;
    uint8_t answer[36] = { 8, 0x80, 6, 2, 31 };
    memcpy(answer + 8, "LUNETTE TEST CHANGER    1   ", 28);
    switch (cdb[0]) {
    case 0x00:
        return OK;
    case 0x12:
        if (cdb[1] & 1)
            return tcmu_sense_set_data(cmd->lib_cmd->sense_buf, 5, 0x2400), PASSTHROUGH_ERR;
        tcmu_memcpy_into_iovec(cmd->lib_cmd->iovec, cmd->lib_cmd->iov_cnt, answer, sizeof answer);
        return OK;
    case 0xc2:
        return larger(dev);
    case 0x93:
        return tcmur_handle_writesame(dev, cmd, sync_same);
    case 0x89:
        return tcmur_handle_caw(dev, cmd, sync_caw);
    default:
        return NOT_HANDLED;
    }
}

static int lock(struct tcmu_device *dev, uint16_t tag)
{
    COUNT(locked);
    if (right_lock_status)
        return right_lock_status;
    disk(dev)->held = 1;
    disk(dev)->tag = tag;
    return OK;
}
static int unlock(struct tcmu_device *dev) { COUNT(unlocked); disk(dev)->held = 0; return OK; }
static int lock_tag(struct tcmu_device *dev, uint16_t *tag) { *tag = disk(dev)->held ? disk(dev)->tag : 0xffff; return OK; }
static int lock_state(struct tcmu_device *dev) { return disk(dev)->held ? 5 : 1; }
static int event(struct tcmu_device *dev) { look(dev); COUNT(events); return 0; }
static bool log_dir(void) { COUNT(log_dirs); return true; }

#define FILES .check_config = check, .reconfig = reconfig, .open = open_disk, .close = close_disk
static struct tcmur_handler handlers[] = {
    { .name = "Files by threads", .subtype = "psync", .cfg_desc = "/path: a file, by threads", FILES, .nr_threads = 2,
      .read = sync_read, .write = sync_write, .flush = sync_flush, .unmap = sync_unmap, .writesame = sync_same,
      .caw = sync_caw, .update_logdir = log_dir },
    { .name = "Files, later", .subtype = "pasync", .cfg_desc = "/path: a file, later", FILES,
      .read = async_read, .write = async_write, .flush = async_flush },
    { .name = "Files, and commands", .subtype = "pcmd", .cfg_desc = "/path: a file, and commands", FILES,
      .handle_cmd = first_look, .nr_threads = 1, .read = sync_read, .write = sync_write, .flush = sync_flush,
      .report_event = event },
    { .name = "A changer", .subtype = "ppass", .cfg_desc = "/path: a changer", FILES, .handle_cmd = changer, .nr_threads = 1 },
    { .name = "Files with a lock", .subtype = "plock", .cfg_desc = "/path: a file with a lock", FILES, .nr_threads = 1,
      .handle_cmd = first_look, .read = sync_read, .write = sync_write, .lock = lock, .unlock = unlock,
      .get_lock_tag = lock_tag, .get_lock_state = lock_state, .report_event = event },
    { .name = "A file to be read", .subtype = "pread", .cfg_desc = "/path: a file, to be read", FILES, .nr_threads = 1,
      .read = sync_read },
};

int handler_init(void)
{
    for (size_t i = 0; i < sizeof handlers / sizeof *handlers; i++) {
        int error = tcmur_register_handler(&handlers[i]);
        if (error)
            return error;
    }
    return 0;
}
