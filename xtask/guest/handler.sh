#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# handler.sh OURS C RUNTIME MB ROUNDS: the guest's part of `cargo xtask bench tcmu --handler rbd`. One
# image of a cluster in this VM, whose OSD keeps its data in memory, under both daemons in turns; the
# order turns from round to round. What is measured goes to /share/ROUND-ours and /share/ROUND-c (see
# fio.sh); what Ceph's own tool does with the image in each round to /share/ROUND-ceiling/JOB, in I/Os per
# second; and to /share/about kernel and versions.
. "$(dirname "$(realpath "$0")")/fio.sh"
OBJECT_STORE=memstore
. "$REPO/tests/vm/ceph.sh"
declare -A DAEMON=([ours]=$1 [c]=$2)
RUNTIME=$3 MB=$4 ROUNDS=$5
SIZES=4k WAYS="randread randwrite"

must "a cluster of one monitor and one OSD" start_cluster
must "an image of it" rbd create image --size ${MB}M
device() { start "$1" && export_disk rbd $MB "rbd/image;conf=$CEPH_CONF"; }
no_device() { unlun disk0 0 && rm_dev disk0 && stop 30; }
must "ours starts, and has a disk" device "$1"
must "it is filled" fill $MB
must "it is removed" no_device

# ceiling DIR: librbd alone, without a kernel's target
ceiling() {
    local way qd
    mkdir $1
    for qd in 1 32; do
        for way in read write; do
            check "rbd bench $way, $qd" eval 'timeout 120 rbd bench --io-type $way --io-pattern rand --io-size 4096 --io-threads $qd --io-total $((qd == 1 ? 4 : 8))M --rbd-cache false image >bench.out' || cat bench.out
            sed -n 's/.*ops\/sec: \([0-9.]*\).*/\1/p' bench.out >$1/rand$way-4k-$qd
        done
    done
}
for round in $(seq 0 $((ROUNDS - 1))); do
    turns=(ours c)
    [ $((round % 2)) = 0 ] || turns=(c ours)
    for who in "${turns[@]}"; do
        note "round $round: $who"
        mkdir /share/$round-$who
        must "the daemon starts, and has a disk" device "${DAEMON[$who]}"
        run_jobs $RUNTIME $MB /share/$round-$who
        must "it is removed" no_device
    done
    ceiling /share/$round-ceiling
done
{
    echo "kernel $(uname -r)"
    echo "fio $(fio --version)"
    echo "ceph $(ceph-osd --version | cut -d' ' -f3)"
    echo "ours $($1 -V 2>&1 | head -1)"
    echo "c $($2 -V 2>&1 | head -1)"
} >/share/about
check "the ring was never broken" ring_is_whole
stop_cluster
finish
