#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# life.sh DAEMON KIND [KILLS]: the daemon's death and return, and devices that are added, removed
# and grown under verified I/O.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1 KIND=$2 KILLS=${3:-6}
IMG=/scratch/x.img
MB=64
# A handler that maps a cluster before it counts it, and is killed in between, gives it away twice, under
# the C daemon, too (handler_qcow.expected). On images that have all their clusters the rest is seen.
ALLOCATED=()
[ -z "${HANDLER:-}" ] || ALLOCATED=(-o preallocation=metadata)
blank() { image $KIND $1 $MB "${ALLOCATED[@]}"; }
blank $IMG && blank /scratch/y.img

# verified DISK MIB BS [OPTION...]: writes in random order, then reads and verifies, in the background
verified() {
    local disk=$1 mib=$2 bs=$3; shift 3
    rm -f v.out
    fio --name=v --filename=$disk --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=$bs "$@" \
        --size=${mib}M --verify=crc32c --verify_fatal=1 --randseed=$RANDOM --output=v.out >/dev/null 2>&1 &
    FIO=$!
    within 20 flowing $disk
}
fio_ok() {
    within ${1:-300} ended $FIO || { echo "fio does not end; the daemon's threads:"; threads $DAEMON_PID; kill -9 $FIO; cat v.out; return 1; }
    wait $FIO || { cat v.out; return 1; }
}

# -- a device that existed before
modprobe target_core_user
must "a device is enabled while no daemon runs" mk_dev disk0 $((MB << 20)) $KIND/$IMG
must "the daemon starts" start "$DAEMON"
must "it takes the device over" lun disk0 0
A=$DISK A_SDEV=$SDEV
note_daemon

# -- only one at a time
second() { timeout 20 $DAEMON >second.out 2>&1; local rc=$?; cat second.out; [ $rc != 0 ] && [ $rc != 124 ]; }
check "a second daemon refuses to start" second
check "the first goes on" eval '! ended $DAEMON_PID && dd if=$A of=/dev/null bs=4k count=1 iflag=direct status=none'

# -- kill -9
verified $A 24 4k
sleep 1; crash; sleep 3
must "killed under I/O, it starts again after 3 s" start "$DAEMON"
check "all that was written is there" fio_ok
check "no task is stuck in the kernel" no_stuck

verified $A 48 64k
for i in $(seq $KILLS); do
    sleep 0.$((RANDOM % 10))
    crash
    launch "$DAEMON"
    # Every other time it dies while it is starting.
    if [ $((i % 2)) = 0 ]; then sleep 0.$((RANDOM % 10)); crash; launch "$DAEMON"; fi
    within 30 ready
done
check "killed $KILLS times and more at random moments, it serves" eval '! ended $DAEMON_PID && bus_has'
check "all that was written is there" fio_ok
check "no task is stuck in the kernel" no_stuck

# -- an enable that waits for a daemon that is dead
crash
(mk_dev late $((MB << 20)) $KIND//scratch/y.img >late.out 2>&1) & LATE=$!
sleep 2
note "enable without a daemon: $(ended $LATE && echo has ended || echo waits)"
must "the next daemon starts" start "$DAEMON"
check "it frees an enable that waited for the dead one" within 20 ended $LATE
[ "$(cat $(dev late)/enable 2>/dev/null)" = 1 ] || { rmdir $(dev late) 2>/dev/null; check "the enable is tried again" mk_dev late $((MB << 20)) $KIND//scratch/y.img; }
check "its device becomes a disk" lun late 1
B=$DISK B_SDEV=$SDEV B_SG=$SG

# -- stopped for a while: the initiator aborts and tries again
echo 3 >$A_SDEV/timeout
verified $A 16 4k
kill -STOP $DAEMON_PID; sleep 6; kill -CONT $DAEMON_PID
check "after the initiator aborted commands, the daemon goes on" fio_ok
echo 30 >$A_SDEV/timeout

# -- another dev_config under I/O
# switch CONFIG: what the kernel says, in less than 5 s: emulated CPUs are slow, and who waits for a
# lock waits longer
switch() {
    local t rc; t=$(now)
    echo -n "$1" >$(dev snap)/attrib/dev_config; rc=$?
    t=$(since "$t"); echo "after ${t}0 ms"
    [ $t -lt 500 ] && return $rc
    return 9
}
# refused CONFIG TEXT: at once, with this text
refused() { switch "$1" 2>refused.out; local rc=$?; cat refused.out; [ $rc = 1 ] && grep -q "$2" refused.out; }
case $KIND in qcow) FORMAT=qcow2 ;; *) FORMAT=raw ;; esac
SNAP=/scratch/snap.img
blank $SNAP && blank /scratch/vm.img
must "a device that is going to change" eval 'mk_dev snap $((MB << 20)) $KIND/$SNAP && lun snap 2'
ln -s $SNAP /scratch/soft.img && ln $SNAP /scratch/hard.img
mkdir -p /scratch/bound && mount --bind /scratch /scratch/bound
# Another program that tries all the time to write the image that is served, and one that has another.
intruder() { while :; do qemu-io -f $FORMAT -c flush $1 >/dev/null 2>&1 && echo got $1; sleep 0.3; done; }
intruder $SNAP >intruder.out & INTRUDER=$!
qemu-nbd -f $FORMAT -t -k $WORK/nbd.socket /scratch/vm.img & NBD=$!
must "qemu-nbd has an image" within 20 test -e $WORK/nbd.socket
# On a fast machine, too, slow enough for most of what follows.
verified $DISK 24 4k --rate=,2m
check "another option of the same image" switch "$KIND/$SNAP;tcmur_cmd_time_out=60"
check "a symbolic link to it" switch "$KIND//scratch/soft.img"
check "a hard link to it" switch "$KIND//scratch/hard.img"
check "another mount of it" switch "$KIND//scratch/bound/snap.img"
check "what qemu-nbd has is refused at once" refused $KIND//scratch/vm.img "resource busy"
check "what another device has is refused at once" refused $KIND/$IMG "resource busy"
check "what is not there is refused" refused $KIND//scratch/nosuch.img "No such file"
check "also for a device that is older than the daemon" not timeout 20 bash -c "echo -n $KIND//scratch/nosuch.img >$(dev disk0)/attrib/dev_config"
if [ $KIND = qcow ]; then
    overlay() { qemu-img create -q -u -f qcow2 -F qcow2 -b $1 $2 ${MB}M; }
    check "a snapshot is taken: an overlay on the image" eval 'overlay $SNAP /scratch/s1.img && switch qcow//scratch/s1.img'
    sleep 1
    check "and one on that" eval 'overlay /scratch/s1.img /scratch/s2.img && switch qcow//scratch/s2.img'
    # Beyond what fio writes, which may be done with it by now.
    check "it is written" eval 'dd if=/dev/urandom of=$DISK bs=1M seek=$((MB - 4)) count=2 oflag=direct status=none && [ $(stat -c %s /scratch/s2.img) -gt 2000000 ]'
fi
check "the I/O went on meanwhile, and what was written is there" fio_ok
if [ $KIND = qcow ]; then
    dd if=$DISK of=whole bs=1M iflag=direct status=none
    check "back to the image itself" switch qcow/$SNAP
    check "qemu-img finds the snapshots clean" eval 'qemu-img check -U -f qcow2 /scratch/s1.img && qemu-img check -U -f qcow2 /scratch/s2.img'
    check "and in the last one what the disk was" eval 'qemu-img convert -U -f qcow2 -O raw /scratch/s2.img s2.raw && cmp s2.raw whole'
    check "the image is written again" dd if=whole of=$DISK bs=1M count=4 oflag=direct status=none
    rm -f s2.raw whole
fi
check "it takes the option away again" switch "$KIND/$SNAP"
kill $INTRUDER; wait $INTRUDER 2>/dev/null
check "no other program got the image in between" not grep got intruder.out
kill $NBD; wait $NBD 2>/dev/null
umount /scratch/bound
check "the device is removed" eval 'unlun snap 2 && rm_dev snap'
[ $KIND != qcow ] || check "qemu-img check finds a clean image" clean_image $SNAP
rm -f /scratch/{soft,hard,snap,vm,s1,s2}.img

# -- resize under I/O
verified $A 16 4k
resized() { [ "$(($(cat $A_SDEV/block/*/size) * 512))" = "$1" ]; }
ua() { sg_turs /dev/sg${1##*/sg} 2>&1; dmesg | grep -ci 'capacity data has changed'; }
check "a device grows under I/O" eval 'echo -n $(((MB + 32) << 20)) >$(dev disk0)/attrib/dev_size'
check "the initiator learns that its capacity has changed" within 10 eval 'dmesg | grep -i "capacity data has changed"'
check "it sees the new capacity" eval 'echo 1 >$A_SDEV/rescan; resized $(((MB + 32) << 20))'
check "the I/O went on meanwhile" fio_ok
check "the new part is written and reads back" eval 'dd if=/dev/urandom of=r64k bs=64k count=1 status=none; dd if=r64k of=$A bs=64k seek=$(((MB + 31) * 16)) oflag=direct status=none && dd if=$A of=back bs=64k skip=$(((MB + 31) * 16)) count=1 iflag=direct status=none && cmp back r64k'

# -- hot removal under I/O
fio --name=h --filename=$B --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bs=4k --size=${MB}M --time_based --runtime=300 --output=h.out >/dev/null 2>&1 & HOT=$!
within 20 flowing $B
check "a LUN is removed under I/O" timeout 60 rm $LOOP/tpgt_1/lun/lun_1/late
check "its I/O ends" within 60 ended $HOT
check "its device is removed" eval 'rmdir $LOOP/tpgt_1/lun/lun_1 && rm_dev late'
check "the other LUN goes on" dd if=$A of=/dev/null bs=4k count=1 iflag=direct status=none

# -- the log
log_there() { [ -s /var/log/tcmu-runner.log ]; }
if log_there; then
    mv /var/log/tcmu-runner.log old.log
    kill -HUP $DAEMON_PID
    check "SIGHUP makes it reopen its log" eval 'within 5 test -e /var/log/tcmu-runner.log'
else
    check "there is a log in /var/log/tcmu-runner.log" log_there
fi

# -- SIGTERM
verified $A 16 4k
check "SIGTERM under I/O ends the daemon in 10 s" stop 10
sleep 1
must "it starts again" start "$DAEMON"
check "all that was written is there" fio_ok
unlun disk0 0
check "the device is removed" rm_dev disk0
check "SIGTERM ends the daemon in 5 s" stop 5
[ $KIND != qcow ] || check "qemu-img check finds no errors after the kills" eval 'sound_image $IMG && sound_image /scratch/y.img'
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
