# SPDX-License-Identifier: Apache-2.0
# The guest's parts of `cargo xtask bench tcmu` share this; sourced. What is measured goes to a
# directory, one file each:
#   fio-RW-BS-QD.json, cpu-RW-BS-QD  fio's report; CPU time of the daemon's cgroup, microseconds
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../tests/vm/lib.sh"
GROUP=/sys/fs/cgroup/daemon
mount -t cgroup2 none /sys/fs/cgroup && mkdir $GROUP || exit 1

# The daemon in a cgroup of its own, whose cpu.stat counts in microseconds, threads that have ended
# and io_uring's workers included.
launch() { (echo $BASHPID >$GROUP/cgroup.procs; exec $1) >>$DAEMON_LOG 2>&1 </dev/null & DAEMON_PID=$!; }
cpu() { local k v; while read -r k v; do [ "$k" = usage_usec ] && echo "$v"; done <$GROUP/cpu.stat; }

# export_disk KIND MB IMG: the disk to measure on; sets DISK. Its commands have time: where a clock
# counts instructions and the host is busy, a wait for its disk can be half a minute.
export_disk() {
    mk_dev disk0 $(($2 << 20)) $1/$3 && echo 0 >$(dev disk0)/attrib/cmd_time_out &&
        lun disk0 0 && echo 3600 >$SDEV/timeout &&
        echo none >/sys/block/${DISK#/dev/}/queue/scheduler
}
# Filled: reads find data, and clusters of qcow2 are allocated.
fill() {
    dd if=/dev/zero bs=1M count=$1 status=none | tr '\0' '\125' |
        dd of=$DISK bs=1M oflag=direct iflag=fullblock status=none
}
# run_jobs RUNTIME MB DIR: those of the sizes in SIZES, and the ways in WAYS
SIZES="4k 64k" WAYS="randread randwrite read"
run_jobs() {
    local qd bs rw job before
    for qd in 1 32; do
        for bs in $SIZES; do
            for rw in $WAYS; do
                job=$rw-$bs-$qd
                before=$(cpu)
                check "fio $job" fio --name=j --filename=$DISK --direct=1 --ioengine=libaio --rw=$rw \
                    --bs=$bs --iodepth=$qd --time_based --runtime=$1 --norandommap --randrepeat=1 \
                    --size=${2}M --output-format=json --output=$3/fio-$job.json
                echo $(($(cpu) - before)) >$3/cpu-$job
            done
        done
    done
}
