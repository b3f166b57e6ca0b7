// SPDX-License-Identifier: Apache-2.0
/*
 * The functions of the log that take variable arguments, which stable Rust cannot define: they
 * format, at most so many bytes, and hand the text on to Rust (log.rs).
 */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>

#define TEXT_LEN 4096

struct tcmu_device;

typedef int wanted_fn(int level);
typedef void log_fn(int level, struct tcmu_device *dev, const char *function, int line,
                    const char *text);

static wanted_fn *_Atomic is_wanted;
static log_fn *_Atomic write_line;

/* Rust's side of it; until it is there, nothing is logged. */
void tcmu_abi_log_connect(wanted_fn *wanted, log_fn *log)
{
    write_line = log;
    is_wanted = wanted;
}

static void message(int level, struct tcmu_device *dev, const char *function, int line,
                    const char *format, va_list arguments)
{
    char text[TEXT_LEN];
    wanted_fn *wanted = is_wanted;
    int error = errno, state;

    if (!format || !wanted || !wanted(level))
        goto out;
    errno = error; /* for %m */
    if (vsnprintf(text, sizeof(text), format, arguments) < 0)
        snprintf(text, sizeof(text), "a message that cannot be formatted: %s", format);
    /* The log may wait, and Rust's frames cannot be unwound by a cancellation. */
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    write_line(level, dev, function, line, text);
    pthread_setcancelstate(state, NULL);
out:
    errno = error;
}

/* The levels are those of log.rs, which exports these functions under their own names. */
#define LEVEL_FUNCTION(NAME, LEVEL)                                                              \
    __attribute__((format(printf, 4, 5))) void tcmu_abi_##NAME##_message(                        \
        struct tcmu_device *dev, const char *function, int line, const char *format, ...);       \
    void tcmu_abi_##NAME##_message(struct tcmu_device *dev, const char *function, int line,      \
                                   const char *format, ...)                                      \
    {                                                                                            \
        va_list arguments;                                                                       \
        va_start(arguments, format);                                                             \
        message(LEVEL, dev, function, line, format, arguments);                                  \
        va_end(arguments);                                                                       \
    }

LEVEL_FUNCTION(crit, 0)
LEVEL_FUNCTION(err, 1)
LEVEL_FUNCTION(warn, 2)
LEVEL_FUNCTION(info, 3)
LEVEL_FUNCTION(dbg, 4)
LEVEL_FUNCTION(dbg_scsi_cmd, 5)
