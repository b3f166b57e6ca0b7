#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bench.sh DAEMON KIND RUNTIME MB MANY: the guest's part of `cargo xtask bench tcmu`. fio on a LUN of
# the backstore KIND, and what the daemon used meanwhile; `zeroes` is the example serve_zeroes, of
# which fio's jobs alone are of interest. PLUGIN in the environment says where Debian's
# handler_qcow.so has to be: `inside` of the daemon's process, in one that it has `apart`, or with its
# own daemon, which is `theirs`; its image has all of its clusters from the start, as it syncs the file
# twice for each new one. Raw figures go to /share (see fio.sh), and:
#   smaps-1, smaps-MANY              /proc/PID/smaps, idle with one device and with MANY
#   ready                            microseconds from the start to the answer to a waiting command
#   about                            kernel and versions
#   met                              with PLUGIN, what the jobs meet: the disk, the image, its pages
. "$(dirname "$(realpath "$0")")/fio.sh"
DAEMON=$1 KIND=$2 RUNTIME=$3 MB=$4 MANY=$5
IMG=/scratch/x.img

listens() { grep -q ^listening $DAEMON_LOG; }
image $KIND $IMG $MB
[ -z "${PLUGIN:-}" ] || qemu-img create -q -f qcow2 -o preallocation=metadata $IMG ${MB}M
case ${PLUGIN:-} in
inside) configure 'plugins_first = "qcow"' ;;
apart) configure 'plugins_first = "qcow"' 'plugin_isolation = true' ;;
esac
if [ $KIND = zeroes ]; then
    launch "$DAEMON"
    must "the daemon starts" within 600 listens
else
    must "the daemon starts" start "$DAEMON"
fi
must "a device becomes a disk" export_disk $KIND $MB $IMG
# Who has the image open; what is built in would discard.
holder() { local p; for p in $(<$GROUP/cgroup.procs); do ! ls -l /proc/$p/fd | grep -q " $IMG\$" || echo $p; done; }
has_plugin() { grep -q /handler_qcow.so /proc/$(holder)/maps && [ $(</sys/block/${DISK#/dev/}/queue/discard_max_bytes) = 0 ]; }
case ${PLUGIN:-} in
inside) must "the plugin serves it, in the daemon's process" eval 'has_plugin && [ $(holder) = $DAEMON_PID ]' ;;
apart) must "the plugin serves it, in a process of its own" eval 'has_plugin && [ $(holder) != $DAEMON_PID ]' ;;
esac
must "it is filled" fill $MB
# While the host is busy, much of the guest's time can pass here, and the kernel writes pages back; a
# write to a page that is clean is dearer. So all are dirty, and stay so.
echo 0 >/proc/sys/vm/dirty_writeback_centisecs
must "it is filled again" fill $MB
if [ -n "${PLUGIN:-}" ]; then
    {
        echo "the most KiB of a request: $(<$SDEV/block/${DISK#/dev/}/queue/max_sectors_kb)"
        echo "commands under way at most: $(<$SDEV/queue_depth)"
        echo "512-byte blocks of the image: $(stat -c %b $IMG)"
        echo "extents of the image: $(filefrag $IMG | sed 's/.*: \([0-9]*\) extent.*/\1/')"
        echo "pages of the image in the cache: $(fincore -n -b -o PAGES $IMG | tr -d ' ')"
        echo "dirty MiB: $(($(awk '/^Dirty:/ { print $2 }' /proc/meminfo) / 1024))"
    } >/share/met
fi
run_jobs $RUNTIME $MB /share

if [ $KIND = zeroes ]; then
    check "the ring was never broken" ring_is_whole
    finish
    exit
fi

# Ready: a command waits for a daemon, and is answered; three times.
for _ in 1 2 3; do
    must "SIGTERM ends the daemon" stop 10
    dd if=$DISK of=/dev/null bs=4k count=1 iflag=direct status=none & DD=$!
    sleep 0.5
    t0=${EPOCHREALTIME/./}
    launch "$DAEMON"
    wait $DD
    t1=${EPOCHREALTIME/./}
    echo "$((t1 - t0))" >>/share/ready
    within 600 bus_has
    sleep 1
done
cat /proc/$DAEMON_PID/smaps >/share/smaps-1
if [ "$MANY" != 0 ]; then
    image $KIND empty.img $MB
    for i in $(seq 2 $MANY); do
        cp --sparse=always empty.img /scratch/$i.img
        # While a busy host reads the disk, the guest's clock may pass any time limit.
        for _ in 1 2 3; do
            mk_dev d$i $((MB << 20)) $KIND//scratch/$i.img && break
            rmdir $(dev d$i)
        done
    done
    check "there are $MANY devices" [ "$(ls -d /sys/class/uio/uio* | wc -l)" = $MANY ]
    sleep 1
    cat /proc/$DAEMON_PID/smaps >/share/smaps-$MANY
fi
{
    echo "kernel $(uname -r)"
    echo "fio $(fio --version)"
    echo "daemon $($DAEMON -V 2>&1 | head -1)"
} >/share/about
check "the ring was never broken" ring_is_whole
# The daemon stays: the kernel flushes its disks when it ends, and waits for it without a limit.
finish
