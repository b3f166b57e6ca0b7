// SPDX-License-Identifier: Apache-2.0
/* A plugin that serves files as disks as it should, until a file NAME.fault appears beside one: it says
 * what to do wrong, once, at the next command. A write is half done by then. NAME.open fails the
 * opening for as long as it is there. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "interface.h"

struct disk { int fd; char name[4096]; };
static struct disk *disk(struct tcmu_device *dev) { return tcmur_dev_get_private(dev); }

static void go_wrong(struct disk *d, struct iovec *iov)
{
    char name[4200], what[16] = "";
    snprintf(name, sizeof name, "%s.fault", d->name);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t len = read(fd, what, sizeof what - 1);
    close(fd);
    /* Of several threads, one does it. */
    if (len <= 0 || unlink(name) != 0)
        return;
    if (!strncmp(what, "segv", 4))
        *(volatile int *)16 = 1;
    if (!strncmp(what, "abort", 5))
        abort();
    if (!strncmp(what, "exit", 4))
        exit(3);
    if (!strncmp(what, "beyond", 6))
        memset(iov[0].iov_base, 0xee, iov[0].iov_len + 65536);
    if (!strncmp(what, "never", 5))
        for (;;)
            pause();
}

static int frail_open(struct tcmu_device *dev, bool reopen)
{
    char name[4200];
    struct disk *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    snprintf(d->name, sizeof d->name, "%s", strchr(tcmu_dev_get_cfgstring(dev), '/') + 1);
    snprintf(name, sizeof name, "%s.open", d->name);
    d->fd = access(name, F_OK) == 0 ? (errno = EAGAIN, -1) : open(d->name, O_RDWR | O_CLOEXEC);
    if (d->fd < 0) {
        int error = errno;
        free(d);
        return -error;
    }
    tcmur_dev_set_private(dev, d);
    tcmu_info_message(dev, __func__, __LINE__, "opened %s%s\n", d->name, reopen ? " again" : "");
    return 0;
}
static void frail_close(struct tcmu_device *dev)
{
    close(disk(dev)->fd);
    free(disk(dev));
}

static ssize_t move(struct disk *d, bool write, struct iovec *iov, size_t cnt, off_t off)
{
    for (size_t i = 0; i < cnt; i++) {
        size_t half = write ? iov[i].iov_len / 2 : 0;
        if (half && pwrite(d->fd, iov[i].iov_base, half, off) != (ssize_t)half)
            return -1;
        if (i == 0)
            go_wrong(d, iov);
        char *base = (char *)iov[i].iov_base + half;
        size_t rest = iov[i].iov_len - half;
        ssize_t n = write ? pwrite(d->fd, base, rest, off + half) : pread(d->fd, base, rest, off + half);
        if (n != (ssize_t)rest)
            return -1;
        off += iov[i].iov_len;
    }
    return 0;
}
static int frail_read(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    (void)cmd, (void)len;
    return move(disk(dev), false, iov, cnt, off) ? RD_ERR : OK;
}
static int frail_write(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    (void)cmd, (void)len;
    return move(disk(dev), true, iov, cnt, off) ? WR_ERR : OK;
}
static int frail_flush(struct tcmu_device *dev, struct tcmur_cmd *cmd)
{
    (void)cmd;
    return fdatasync(disk(dev)->fd) ? WR_ERR : OK;
}

static struct tcmur_handler handler = {
    .name = "Frail", .subtype = "frail", .cfg_desc = "/path: a file", .open = frail_open, .close = frail_close,
    .nr_threads = 2, .read = frail_read, .write = frail_write, .flush = frail_flush,
};

int handler_init(void) { return tcmur_register_handler(&handler); }
