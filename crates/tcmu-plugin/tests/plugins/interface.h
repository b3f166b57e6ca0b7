// SPDX-License-Identifier: Apache-2.0
/* The plugin interface, with short names for what these plugins answer. */
#include "libtcmu_log.h"
#include "tcmu-runner.h"

enum {
    ASYNC_HANDLED = TCMU_STS_ASYNC_HANDLED,
    NOT_HANDLED = TCMU_STS_NOT_HANDLED,
    OK = TCMU_STS_OK,
    PASSTHROUGH_ERR = TCMU_STS_PASSTHROUGH_ERR,
    BUSY = TCMU_STS_BUSY,
    WR_ERR = TCMU_STS_WR_ERR,
    RD_ERR = TCMU_STS_RD_ERR,
    MISCOMPARE = TCMU_STS_MISCOMPARE,
};
