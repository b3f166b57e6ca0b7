#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# many.sh DAEMON [N]: N devices at once, each with its own bytes, and all of them after kill -9.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1 N=${2:-64}
must "the daemon starts" start "$DAEMON"
kind() { [ $(($1 % 2)) = 0 ] && echo file || echo qcow; }
qemu-img create -q -f qcow2 empty.qcow2 8M
for i in $(seq $N); do
    if [ $(kind $i) = qcow ]; then cp empty.qcow2 /scratch/$i.img; else truncate -s 8M /scratch/$i.img; fi
done
enable_all() {
    local pids=() rc=0 i
    for i in $(seq $N); do mk_dev d$i $((8 << 20)) $(kind $i)//scratch/$i.img & pids+=($!); done
    for i in "${pids[@]}"; do wait $i || rc=1; done
    return $rc
}
t=$(now)
must "$N devices are enabled at the same time" enable_all
note "in $(since $t) hundredths of a second"
note_daemon
DISKS=()
export_all() { local i; for i in $(seq $N); do lun d$i $i || return 1; DISKS[$i]=$DISK; done; }
must "all of them become disks" export_all
each() { local i; for i in $(seq $N); do "$1" $i || { echo "device $i"; return 1; }; done; }
put() { printf 'device %08d\n%.0s' $(yes $1 | head -240) | dd of=${DISKS[$1]} bs=4096 seek=$1 conv=sync oflag=direct status=none; }
get() { dd if=${DISKS[$1]} bs=4096 skip=$1 count=1 iflag=direct status=none | head -1 | grep -qx "device $(printf %08d $1)"; }
check "each is written" each put
check "each reads its own bytes" each get
crash
must "killed, the daemon starts again" start "$DAEMON"
check "each reads its own bytes again" each get
note_daemon
gone() { unlun d$1 $1 && rm_dev d$1; }
check "all of them are removed" each gone
check "no UIO device is left" eval '! ls /sys/class/uio/uio* 2>/dev/null'
check "the images are clean" eval '(for i in $(seq 1 2 $N); do sound_image /scratch/$i.img || exit 1; done)'
check "SIGTERM ends the daemon in 5 s" stop 5
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
