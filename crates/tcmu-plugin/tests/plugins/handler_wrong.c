// SPDX-License-Identifier: Apache-2.0
/* A plugin whose devices do one thing wrong each: what their configuration string names. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "interface.h"

static char memory[1 << 20];

static int wrong_open(struct tcmu_device *dev, bool reopen)
{
    (void)reopen;
    if (strstr(tcmu_dev_get_cfgstring(dev), "open"))
        return 12345;
    return 0;
}
static void wrong_close(struct tcmu_device *dev) { (void)dev; }
static bool does(struct tcmu_device *dev, const char *what) { return strstr(tcmu_dev_get_cfgstring(dev), what) != NULL; }

static struct { struct tcmu_device *dev; struct tcmur_cmd *cmd; } earlier;

static int transfer(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off, bool write)
{
    if ((size_t)off + len > sizeof memory)
        return RD_ERR;
    if (write)
        tcmu_memcpy_from_iovec(memory + off, len, iov, cnt);
    else
        tcmu_memcpy_into_iovec(iov, cnt, memory + off, len);
    if (does(dev, "twice")) {
        tcmur_cmd_complete(dev, cmd, OK);
        tcmur_cmd_complete(dev, cmd, OK);
        cmd->done(dev, cmd, RD_ERR);
        return OK;
    }
    if (does(dev, "late")) { /* completes the command before this one again */
        if (earlier.cmd)
            tcmur_cmd_complete(earlier.dev, earlier.cmd, WR_ERR);
        earlier.dev = dev;
        earlier.cmd = cmd;
        return OK;
    }
    if (does(dev, "unknown")) {
        struct tcmur_cmd none;
        tcmur_cmd_complete(dev, &none, OK);
        tcmur_cmd_complete(dev, NULL, OK);
        tcmur_cmd_complete((struct tcmu_device *)&none, cmd, OK);
        tcmur_cmd_complete(NULL, cmd, OK);
        return OK;
    }
    if (does(dev, "garbage"))
        return 0x7fff0000;
    if (does(dev, "sense")) /* says that there is sense, and leaves none */
        return PASSTHROUGH_ERR;
    if (does(dev, "never") && off == 131072) /* the kernel looks for partitions elsewhere */
        for (;;)
            pause();
    if (does(dev, "forget") && off == 131072) /* will complete it, but never does */
        return ASYNC_HANDLED;
    if (does(dev, "nothandled"))
        return NOT_HANDLED;
    if (does(dev, "move")) { /* has moved the iovecs by the copy, and loses the pointer to them */
        cmd->lib_cmd->iovec = NULL;
        cmd->lib_cmd->iov_cnt = 1000;
        cmd->iovec = NULL;
    }
    return OK;
}
static int wrong_read(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    return transfer(dev, cmd, iov, cnt, len, off, false);
}
static int wrong_write(struct tcmu_device *dev, struct tcmur_cmd *cmd, struct iovec *iov, size_t cnt, size_t len, off_t off)
{
    return transfer(dev, cmd, iov, cnt, len, off, true);
}

static struct tcmur_handler handler = {
    .name = "Wrong", .subtype = "wrong", .cfg_desc = "/FAULT", .open = wrong_open, .close = wrong_close, .nr_threads = 1,
    .read = wrong_read, .write = wrong_write,
};

int handler_init(void) { return tcmur_register_handler(&handler); }
