/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: of tcmu-runner for its plugins, of its own for a program on libtcmu.
 */
#ifndef LIBTCMU_LOG_H
#define LIBTCMU_LOG_H

#include <syslog.h>

#ifdef __cplusplus
extern "C" {
#endif

struct tcmu_device;
struct tcmu_config;

#define TCMU_LOG_FILENAME "tcmu-runner.log"
#define TCMU_LOG_DIR_DEFAULT "/var/log"

/* What tcmu_set_log_level takes. */
enum {
	TCMU_CONF_LOG_CRIT = 0,
	TCMU_CONF_LOG_ERROR = 1,
	TCMU_CONF_LOG_WARN = 2,
	TCMU_CONF_LOG_INFO = 3,
	TCMU_CONF_LOG_DEBUG = 4,
	TCMU_CONF_LOG_DEBUG_SCSI_CMD = 5,
};

/* What tcmu_get_log_level returns. */
#define TCMU_LOG_CRIT LOG_CRIT
#define TCMU_LOG_ERROR LOG_ERR
#define TCMU_LOG_WARN LOG_WARNING
#define TCMU_LOG_INFO LOG_INFO
#define TCMU_LOG_DEBUG LOG_DEBUG
#define TCMU_LOG_DEBUG_SCSI_CMD (LOG_DEBUG + 1)

void tcmu_set_log_level(int level);
unsigned int tcmu_get_log_level(void);

/* For programs: begins to log to a file in log_dir (null: the default) and to the system's log; ends
 * it; goes on in another directory. */
int tcmu_setup_log(char *log_dir);
void tcmu_destroy_log(void);
int tcmu_resetup_log_file(struct tcmu_config *cfg, char *log_dir);
/* The path of a file in the directory of logs; path has room for PATH_MAX bytes. */
int tcmu_make_absolute_logfile(char *path, const char *filename);

#define TCMU_LOG_ARGUMENTS \
	(struct tcmu_device * dev, const char *funcname, int linenr, const char *fmt, ...) \
	__attribute__((format(printf, 4, 5)))
void tcmu_crit_message TCMU_LOG_ARGUMENTS;
void tcmu_err_message TCMU_LOG_ARGUMENTS;
void tcmu_warn_message TCMU_LOG_ARGUMENTS;
void tcmu_info_message TCMU_LOG_ARGUMENTS;
void tcmu_dbg_message TCMU_LOG_ARGUMENTS;
void tcmu_dbg_scsi_cmd_message TCMU_LOG_ARGUMENTS;
#undef TCMU_LOG_ARGUMENTS

/* About a device, and about none. */
#define tcmu_dev_crit(dev, ...) tcmu_crit_message(dev, __func__, __LINE__, __VA_ARGS__)
#define tcmu_dev_err(dev, ...) tcmu_err_message(dev, __func__, __LINE__, __VA_ARGS__)
#define tcmu_dev_warn(dev, ...) tcmu_warn_message(dev, __func__, __LINE__, __VA_ARGS__)
#define tcmu_dev_info(dev, ...) tcmu_info_message(dev, __func__, __LINE__, __VA_ARGS__)
#define tcmu_dev_dbg(dev, ...) tcmu_dbg_message(dev, __func__, __LINE__, __VA_ARGS__)
#define tcmu_dev_dbg_scsi_cmd(dev, ...) \
	tcmu_dbg_scsi_cmd_message(dev, __func__, __LINE__, __VA_ARGS__)
#define tcmu_crit(...) tcmu_dev_crit(NULL, __VA_ARGS__)
#define tcmu_err(...) tcmu_dev_err(NULL, __VA_ARGS__)
#define tcmu_warn(...) tcmu_dev_warn(NULL, __VA_ARGS__)
#define tcmu_info(...) tcmu_dev_info(NULL, __VA_ARGS__)
#define tcmu_dbg(...) tcmu_dev_dbg(NULL, __VA_ARGS__)
#define tcmu_dbg_scsi_cmd(...) tcmu_dev_dbg_scsi_cmd(NULL, __VA_ARGS__)

#ifdef __cplusplus
}
#endif

#endif
