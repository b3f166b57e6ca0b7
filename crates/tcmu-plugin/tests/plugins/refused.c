// SPDX-License-Identifier: Apache-2.0
/* Plugins that are refused, one for each value of CASE. */
#include <stdlib.h>
#include <unistd.h>

#include "interface.h"

static __attribute__((unused)) int opens(struct tcmu_device *dev, bool reopen) { (void)dev, (void)reopen; return 0; }
static __attribute__((unused)) void closes(struct tcmu_device *dev) { (void)dev; }
static __attribute__((unused)) int commands(struct tcmu_device *dev, struct tcmur_cmd *cmd) { (void)dev, (void)cmd; return 0; }
static __attribute__((unused)) int fails(void) { return -5; }

#define GOOD .name = "x", .cfg_desc = "x", .open = opens, .close = closes, .handle_cmd = commands
static __attribute__((unused)) struct tcmur_handler handler = {
    GOOD,
#if CASE == 1
    .subtype = "r1", .init = fails,
#elif CASE == 2 /* a subtype that is built in */
    .subtype = "file",
#elif CASE == 3
    .subtype = "a/b",
#elif CASE == 4
    .subtype = NULL,
#elif CASE == 5
    .subtype = "r5", .nr_threads = -1,
#else
    .subtype = "again",
#endif
};
static __attribute__((unused)) struct tcmur_handler no_open = { .name = "x", .subtype = "r6", .close = closes, .handle_cmd = commands };
static __attribute__((unused)) struct tcmur_handler no_close = { .name = "x", .subtype = "r7", .open = opens, .handle_cmd = commands };
static __attribute__((unused)) struct tcmur_handler nothing = { .name = "x", .subtype = "r8", .open = opens, .close = closes };

extern int not_exported_by_anybody(void);

#if CASE != 9
int handler_init(void)
{
#if CASE == 6
    return tcmur_register_handler(&no_open);
#elif CASE == 7
    return tcmur_register_handler(&no_close);
#elif CASE == 8
    return tcmur_register_handler(&nothing);
#elif CASE == 10
    return 0;
#elif CASE == 11
    return tcmur_register_handler(NULL);
#elif CASE == 12
    return not_exported_by_anybody();
#elif CASE == 13 /* twice; the first counts */
    tcmur_register_handler(&handler);
    tcmur_register_handler(&handler);
    return 0;
#elif CASE == 14
    return -17;
#elif CASE == 15 /* only where it is isolated, as what follows */
    abort();
#elif CASE == 16
    exit(7);
#elif CASE == 17
    tcmur_register_handler(&handler);
    abort();
#elif CASE == 18
    for (;;)
        pause();
#elif CASE == 20 /* a child, which has what its parent has open */
    if (fork() == 0)
        for (;;)
            pause();
    return tcmur_register_handler(&handler);
#else
    return tcmur_register_handler(&handler);
#endif
}
#endif

#if CASE == 19
static __attribute__((destructor)) void never_ends(void)
{
    for (;;)
        pause();
}
#endif
