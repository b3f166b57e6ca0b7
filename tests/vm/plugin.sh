#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# plugin.sh DAEMON PACKAGE: handlers written in C, in our daemon: those of Debian's package
# tcmu-runner, which is unpacked in PACKAGE, and those of crates/tcmu-plugin/tests/plugins: a disk by
# each way of the interface, and what a wrong plugin does. Zoned disks and discs are in media.sh.
. "$(dirname "$(realpath "$0")")/lib.sh"
PLUGINS=/scratch/plugins
BINARY=$1
DAEMON="$BINARY --handler-path $PLUGINS"
LOG=/var/log/tcmu-runner.log
MB=48
mkdir $PLUGINS
must "Debian's package has its plugins" cp $2/usr/lib/*/tcmu-runner/handler_{qcow,file_zbc,file_optical}.so $PLUGINS/
for plugin in handler_right handler_wrong; do
    must "$plugin.c is compiled" cc -std=gnu11 -O1 -fPIC -shared -pthread -I $REPO/crates/libtcmu/include \
        -o $PLUGINS/$plugin.so $REPO/crates/tcmu-plugin/tests/plugins/$plugin.c
done
echo "this is no library" >$PLUGINS/handler_text.so
mkdir -p $MNT
configure 'plugins_first = "qcow"'
note "plugins: $(cd $PLUGINS; echo *.so)"
t=$(now)
must "the daemon starts with plugins" start "$DAEMON"
note "it took $(since $t) hundredths of a second"
note_daemon

objects() { call /org/kernel/TCMUService1 org.freedesktop.DBus.ObjectManager.GetManagedObjects; }
listed() { objects >objects.out; local s; for s; do grep -q "/org/kernel/TCMUService1/$s\"" objects.out || { echo "no $s"; return 1; }; done; }
checked() { call /org/kernel/TCMUService1/${1%%/*} $BUS_NAME.CheckConfig string:"$1"; }
check "D-Bus lists the plugins and what is built in" listed psync pasync pcmd ppass plock qcow zbc fbo file
check "it tells what the plugin says of its configuration strings" eval 'objects | grep "/path: a file, by threads"'
truncate -s ${MB}M /scratch/a.img
check "CheckConfig asks the plugin, which accepts a file" eval 'checked psync//scratch/a.img | grep "boolean true"'
check "CheckConfig gives the plugin's reason" eval 'checked psync//no/such | grep "no such file: /no/such"'
check "a file that is no library is in the log, with the reason" grep 'handler_text.so: it does not load' $LOG
check "the log has what a plugin logs, at its level" grep -E '\[INFO\].*handler|handler psync' $LOG

head -c 1048576 /dev/urandom >r1m
# The devices of our plugin: a disk as any other.
disk_of() {
    local kind=$1
    rm -f /scratch/a.img; truncate -s ${MB}M /scratch/a.img
    must "$kind: a device is enabled" mk_dev a $((MB << 20)) $kind//scratch/a.img
    must "$kind: it becomes a disk" lun a 0
    check "$kind: what was written is read" eval 'dd if=r1m of=$DISK bs=64k seek=16 oflag=direct status=none && dd if=$DISK bs=64k skip=16 count=16 iflag=direct status=none | cmp - r1m'
    check "$kind: it is in the file" cmp -n 1048576 -i 0:1048576 r1m /scratch/a.img
    check "$kind: fio finds what it wrote" fio --name=v --filename=$DISK --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=16M --verify=crc32c --output=fio.out
    filesystem $kind $DISK
}
resized() { [ "$(($(cat $SDEV/block/*/size) * 512))" = "$1" ]; }
for kind in psync pasync pcmd; do
    disk_of $kind
    if [ $kind = psync ]; then
        compound_commands $kind $DISK $SG
        check "$kind: UNMAP" sg_unmap --lba=0 --num=8 $SG
        check "$kind: it grows" eval 'echo -n $(((MB + 16) << 20)) >$(dev a)/attrib/dev_size && { sg_turs $SG; sg_turs $SG; } && echo 1 >$SDEV/rescan && resized $(((MB + 16) << 20))'
        check "$kind: the write cache is turned off and on" eval 'echo 0 >$(dev a)/attrib/emulate_write_cache && sg_turs $SG; dd if=r1m of=$DISK bs=64k count=1 oflag=direct status=none && echo 1 >$(dev a)/attrib/emulate_write_cache; sg_turs $SG; true'
        truncate -s $((MB + 16))M /scratch/b.img
        check "$kind: dev_config may name another file" eval 'echo -n dev_config=$kind//scratch/b.img >$(dev a)/attrib/dev_config || echo -n $kind//scratch/b.img >$(dev a)/attrib/dev_config; dd if=r1m of=$DISK bs=64k count=16 oflag=direct status=none && cmp -n 1048576 r1m /scratch/b.img'
    fi
    if [ $kind = pcmd ]; then
        check "$kind: sense of the plugin's own reaches the initiator" sense "aborted command" "asc=12, ascq=34" $SG c0 00 00 00 00 00
        check "$kind: a command that is completed later" sg_raw $SG c1 00 00 00 00 00
        check "$kind: a size that the plugin tells of reaches the initiator" eval 'sg_raw $SG c2 00 00 00 00 00; { sg_turs $SG; sg_turs $SG; } && echo 1 >$SDEV/rescan && resized $((MB * 3 / 2 << 20))'
        check "$kind: it is opened again when its connection is lost, and I/O goes on" eval 'sg_raw $SG c3 00 00 00 00 00; dd if=$DISK of=/dev/null bs=64k count=16 iflag=direct status=none && grep "a: is open again" $LOG'
    fi
    check "$kind: it is removed" eval 'unlun a 0 && rm_dev a'
done

# A lock for a group with implicit access.
disk_of plock
group=$(dev a)/alua/ours
check "plock: without a group of its own no lock is taken" not grep -q 'has the lock' $LOG
check "plock: a group is made" eval 'mkdir $group && echo 7 >$group/tg_pt_gp_id && echo 1 >$group/alua_access_type && echo ours >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; sg_turs $SG; sleep 1.5'
check "plock: the lock is taken for it" eval 'dd if=$DISK of=/dev/null bs=64k count=1 iflag=direct status=none && grep "has the lock for group 7" $LOG'
check "plock: when it is lost, it is taken again" eval 'sg_raw $SG c4 00 00 00 00 00; within 20 grep -q "a: is open again" $LOG; sleep 1.5; dd if=$DISK of=/dev/null bs=64k count=1 skip=9 iflag=direct status=none && [ $(grep -c "has the lock for group 7" $LOG) = 2 ]'
echo default_tg_pt_gp >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; rmdir $group
check "plock: it is removed" eval 'unlun a 0 && rm_dev a'

# A lock for a group with explicit access.
read_raw() { sg_raw -r 512 -o /dev/null $SG 28 00 00 00 00 00 00 00 01 00; }
standby() { sense "not ready" "standby" -r 512 $SG 28 00 00 00 00 00 00 00 01 00; }
is_state() { sg_rtpg -d $SG >rtpg.out; cat rtpg.out; grep -A2 -i "id : 0x7 " rtpg.out | grep -i "$1"; }
printf '\0\0\0\0\0\0\0\7' >stpg.ao; printf '\0\0\0\0\1\0\0\7' >stpg.an
disk_of plock
check "plock: a group with explicit access is made" eval 'mkdir $group && echo 7 >$group/tg_pt_gp_id && echo 2 >$group/alua_access_type && echo ours >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; sg_turs $SG; sleep 1.5; sg_turs $SG; sg_inq $SG | grep TPGS=2'
check "plock: before anybody has set it, the group is in standby" is_state standby
check "plock: and a read is refused, for that reason" standby
check "plock: sg_stpg makes it active, optimized" sg_stpg --tp=7 --state=ao $SG
check "plock: sg_rtpg says so" is_state optimized
check "plock: the log says that the lock was taken for it" eval '[ $(grep -c "has the lock for group 7" $LOG) = 3 ]'
check "plock: a read is served" read_raw
check "plock: sg_stpg makes it standby" sg_stpg --tp=7 --state=s $SG
check "plock: sg_rtpg says that, too" is_state standby
check "plock: the log says that the lock was given back" grep -q 'has given the lock back' $LOG
check "plock: a read is refused again" standby
check "plock: a state that no lock can bring about is refused" sense "illegal request" "invalid field in parameter list" -s 8 -i stpg.an $SG a4 0a 00 00 00 00 00 00 00 08 00 00
check "plock: when the handler does not get the lock, sg_stpg hears it" eval 'sg_raw $SG c7 0d 00 00 00 00 && sense "hardware error" "set target port groups command failed" -s 8 -i stpg.ao $SG a4 0a 00 00 00 00 00 00 00 08 00 00; local rc=$?; sg_raw $SG c7 00 00 00 00 00; [ $rc = 0 ]'
check "plock: a lock that is lost is not taken again by itself" eval 'sg_stpg --tp=7 --state=ao $SG && read_raw && sg_raw $SG c4 00 00 00 00 00; within 20 standby && sg_stpg --tp=7 --state=ao $SG && read_raw'
echo default_tg_pt_gp >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; rmdir $group
check "plock: the disk with explicit access is removed" eval 'unlun a 0 && rm_dev a'

# A handler that answers everything by itself.
must "ppass: a device is enabled" mk_dev c $((MB << 20)) ppass//scratch/b.img
check "ppass: it becomes a medium changer" eval 'mkdir -p $LOOP/tpgt_1; [ -e $LOOP/tpgt_1/nexus ] || echo -n naa.5001405000000002 >$LOOP/tpgt_1/nexus; mkdir -p $LOOP/tpgt_1/lun/lun_3 && ln -s $(dev c) $LOOP/tpgt_1/lun/lun_3/c; SDEV=/sys/bus/scsi/devices/$(<$LOOP/tpgt_1/address):3; within 20 [ -d $SDEV/scsi_generic ] && SG=/dev/$(ls $SDEV/scsi_generic) && sg_inq $SG | grep -i "TEST CHANGER"'
SG=/dev/$(ls $SDEV/scsi_generic)
told() { local out; out=$(sg_turs -v $SG 2>&1); echo "$out"; grep -qi "$1" <<<"$out" && sg_turs $SG; }
check "ppass: initiators hear of another size, once" eval 'echo -n $(((MB + 16) << 20)) >$(dev c)/attrib/dev_size && told "capacity data has changed"'
check "ppass: and of a size that the plugin tells of" eval 'sg_raw $SG c2 00 00 00 00 00 && told "capacity data has changed"'
check "ppass: and of the write cache" eval 'echo 0 >$(dev c)/attrib/emulate_write_cache && told "mode parameters changed"'
check "ppass: what it does not know is refused" sense "illegal request" "invalid command operation code" -r 512 $SG 28 00 00 00 00 00 00 00 01 00
check "ppass: it is removed" eval 'unlun c 3 && rm_dev c'

# -- Debian's qcow handler, before ours
image qcow /scratch/q.img $MB
must "handler_qcow.so: a device is enabled" mk_dev q $((MB << 20)) qcow//scratch/q.img
must "handler_qcow.so: it becomes a disk" lun q 0
filesystem handler_qcow.so $DISK

# -- kill -9 under I/O, with this device and one of ours
rm -f /scratch/a.img; truncate -s ${MB}M /scratch/a.img
Q=$DISK
must "a device of our plugin beside it" eval 'mk_dev a $((MB << 20)) pasync//scratch/a.img && lun a 1'
for d in $Q $DISK; do
    fio --name=v --filename=$d --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k --size=24M --verify=crc32c --output=fio.$(basename $d) & 
done
FIO=$(jobs -p | tail -2)
sleep 1; crash; sleep 2
must "killed under I/O, it starts again" start "$DAEMON"
check "all that was written to both is there" wait $FIO
check "no task is stuck in the kernel" no_stuck
check "they are removed" eval 'unlun q 0 && rm_dev q && unlun a 1 && rm_dev a'

# -- a plugin that does everything wrong
reads_ok() { dd if=$DISK of=/dev/null bs=64k count=16 iflag=direct status=none; }
for fault in twice late unknown move; do
    must "wrong: a device that does \"$fault\"" eval "mk_dev w 1048576 wrong/$fault && lun w 0"
    check "wrong: $fault: what is read is read, the rest is ignored" reads_ok
    check "wrong: $fault: it is removed" eval 'unlun w 0 && rm_dev w'
done
check "the log says that a command is not under way" grep -q 'that is not under way: it did so twice' $LOG
check "the log says that a device is none" grep -q 'for a device that it does not have' $LOG
for fault in garbage sense nothandled; do
    must "wrong: a device that answers \"$fault\"" eval "mk_dev w 1048576 wrong/$fault && lun w 0"
    check "wrong: $fault: a read fails" not reads_ok
    check "wrong: $fault: it is removed" eval 'unlun w 0 && rm_dev w'
done
check "wrong: an open that returns nonsense is refused" eval 'not mk_dev w 1048576 wrong/open; rmdir $(dev w)'
rm -f /scratch/a.img; truncate -s ${MB}M /scratch/a.img
must "another device" eval 'mk_dev a $((MB << 20)) psync//scratch/a.img && lun a 0'
OTHER=$DISK
must "wrong: a device that never ends a command" eval 'mk_dev w 1048576 "wrong/never;tcmur_cmd_time_out=3" && echo 8 >$(dev w)/attrib/cmd_time_out && lun w 1'
echo 5 >$SDEV/timeout
dd if=$DISK of=/dev/null bs=4k skip=32 count=1 iflag=direct status=none 2>/dev/null & HANGS=$!
check "wrong: never: the log tells of the command" within 30 grep -q 'user_0/w: command .* has been under way' $LOG
check "wrong: never: other devices are served meanwhile" eval 'DISK=$OTHER; reads_ok'
within 100 ended $HANGS
check "wrong: never: the device can be removed" eval 'unlun w 1 && rm_dev w'
check "the other device is removed" eval 'unlun a 0 && rm_dev a'
check "the daemon lives" not ended $DAEMON_PID

note_daemon
check "SIGTERM ends the daemon" stop 15

# -- plugins that have a say in how the daemon starts and ends
ODD=/scratch/odd
odd() {
    rm -rf $ODD; mkdir $ODD
    cc -std=gnu11 -O1 -fPIC -shared -I $REPO/crates/libtcmu/include -DCASE=$1 -o $ODD/handler_odd.so \
        $REPO/crates/tcmu-plugin/tests/plugins/refused.c
}
fails() { timeout 40 $BINARY --handler-path $ODD >odd.out 2>&1; local rc=$?; tail -5 odd.out; [ $rc = 1 ]; }
must "a plugin that calls exit as it is loaded" odd 16
check "the daemon fails" fails
check "and the log names the plugin" grep "handler_odd.so: a plugin ended the daemon" $LOG
must "a plugin whose destructor never ends" odd 19
must "the daemon starts with it" start "$BINARY --handler-path $ODD"
check "and SIGTERM ends it" stop 5
must "a plugin that leaves a child" odd 20
must "the daemon starts with that" start "$BINARY --handler-path $ODD"
crash
CHILD=$(pgrep -x tcmu-runner)
check "after kill -9 the next daemon does not start" fails
check "and names the child that has the lock" grep "pid $CHILD (tcmu-runner).*end them first" odd.out
kill -9 $CHILD
must "when the child is gone, it starts" start "$BINARY --handler-path $ODD"
pkill -9 -P $DAEMON_PID -x tcmu-runner
check "and ends" stop 5
check "no ring was broken" ring_is_whole
check "no task is stuck in the kernel" no_stuck
finish
