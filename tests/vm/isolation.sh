#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# isolation.sh DAEMON PACKAGE: plugins in processes of their own (plugin_isolation): those of Debian's
# package tcmu-runner, which is unpacked in PACKAGE, and those of crates/tcmu-plugin/tests/plugins.
# They crash, hang, write where they must not and are killed under I/O; their devices come back with
# all that was acknowledged, and others do not notice.
. "$(dirname "$(realpath "$0")")/lib.sh"
PLUGINS=/scratch/plugins
DAEMON="$1 --handler-path $PLUGINS"
LOG=/var/log/tcmu-runner.log
MB=48
mkdir $PLUGINS
must "Debian's package has its plugins" cp $2/usr/lib/*/tcmu-runner/handler_{qcow,file_zbc}.so $PLUGINS/
plugin() { cc -std=gnu11 -O1 -fPIC -shared -pthread -I $REPO/crates/libtcmu/include -o $PLUGINS/$1.so "${@:3}" $REPO/crates/tcmu-plugin/tests/plugins/$2.c; }
for plugin in handler_right handler_frail; do must "$plugin.c is compiled" plugin $plugin $plugin; done
must "a plugin that aborts when it is loaded is compiled" plugin handler_aborts refused -DCASE=15
configure 'plugins_first = "qcow"' 'plugin_isolation = true'
t=$(now)
must "the daemon starts" start "$DAEMON"
note "it took $(since $t) hundredths of a second"

# process PLUGIN: the process of it, if there is one
process() { pgrep -f "^tcmu-plugin plugin-process $PLUGINS/$1.so"; }
ours() { pgrep -x tcmu-plugin | wc -l; }
none() { [ $(ours) = 0 ]; }
check "each plugin has a process of its own, but for the one that aborts" eval '[ $(ours) = 4 ] && process handler_right && process handler_frail && process handler_qcow && process handler_file_zbc'
check "they are the daemon's children" eval '[ $(pgrep -P $DAEMON_PID -x tcmu-plugin | wc -l) = 4 ]'
check "the log says what became of the one that aborts" grep 'handler_aborts.so: its process [0-9]* has ended (signal: 6 (SIGABRT).*the plugin is not used' $LOG
check "the log has the lines of processes" grep 'handler_right.so: handler psync' $LOG
checked() { call /org/kernel/TCMUService1/${1%%/*} $BUS_NAME.CheckConfig string:"$1"; }
check "CheckConfig gives the plugin's reason" eval 'checked psync//no/such | grep "no such file: /no/such"'
note "memory: $(for p in $DAEMON_PID $(pgrep -x tcmu-plugin); do echo "$(tr '\0' ' ' </proc/$p/cmdline | cut -c1-60) $(awk '/VmRSS/ { print $2 }' /proc/$p/status) KiB;"; done | tr '\n' ' ')"

head -c 1048576 /dev/urandom >r1m
reads_ok() { dd if=$1 of=/dev/null bs=64k count=16 iflag=direct status=none; }
verify() { fio --name=v --filename=$1 --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=${2:-16M} --verify=crc32c --output=fio.$(basename $1); }

# -- a device in good order
truncate -s ${MB}M /scratch/a.img
must "psync: a device is enabled" mk_dev a $((MB << 20)) psync//scratch/a.img
must "psync: it becomes a disk" lun a 0
OTHER=$DISK OTHER_SG=$SG
check "psync: what was written is read" eval 'dd if=r1m of=$DISK bs=64k seek=16 oflag=direct status=none && dd if=$DISK bs=64k skip=16 count=16 iflag=direct status=none | cmp - r1m'
check "psync: it is in the file" cmp -n 1048576 -i 0:1048576 r1m /scratch/a.img
check "psync: fio finds what it wrote" verify $DISK
compound_commands psync $DISK $SG

# -- Debian's qcow handler, killed beneath a filesystem
image qcow /scratch/q.img $MB
must "handler_qcow.so: a device is enabled" mk_dev q $((MB << 20)) qcow//scratch/q.img
must "handler_qcow.so: it becomes a disk" lun q 1
before=$(process handler_qcow)
killed() { sleep 0.3; check "handler_qcow.so: its process is killed while files are copied" kill -9 $before; }
# It has one file more, so that this takes longer.
FILES="$FILES /usr/bin/perl"
filesystem handler_qcow.so $DISK killed
check "handler_qcow.so: it has another process" eval 'now=$(process handler_qcow) && [ "$now" != "$before" ]'

# -- a plugin that fails under I/O
truncate -s ${MB}M /scratch/f.img
must "frail: a device is enabled" mk_dev f $((MB << 20)) "frail//scratch/f.img;tcmur_cmd_time_out=5"
must "frail: it becomes a disk" lun f 2
FRAIL=$DISK
back() { [ $(grep -c 'user_0/f: is open again' $LOG) -gt $1 ]; }
fault() { echo $1 >/scratch/fault.new; mv /scratch/fault.new /scratch/f.img.fault; }
for fault in segv beyond abort exit never; do
    opened=$(grep -c 'user_0/f: is open again' $LOG)
    before=$(process handler_frail)
    verify $FRAIL & FIO=$!
    sleep 0.5
    fault $fault
    check "frail: $fault: it happens under I/O" within 60 [ ! -e /scratch/f.img.fault ]
    check "frail: $fault: another plugin's device is served meanwhile" timeout 20 dd if=$OTHER of=/dev/null bs=64k count=16 iflag=direct status=none
    check "frail: $fault: the device comes back" within 90 back $opened
    check "frail: $fault: it has another process" eval 'now=$(process handler_frail) && [ "$now" != "$before" ]'
    check "frail: $fault: fio finds what it wrote" wait $FIO
done
check "the log says by which signal" grep "handler_frail.so: its process [0-9]* has ended (signal: 11 (SIGSEGV).*user_0/f" $LOG
check "the log says with which status" grep "handler_frail.so: its process [0-9]* has ended (exit status: 3).*user_0/f" $LOG
check "the log says that a command was not answered" grep "handler_frail.so: user_0/f: a command is not answered after 5 s; its process, [0-9]*, is killed" $LOG
check "the log has what the plugin says when it opens the device again" grep "user_0/f: frail_open.*opened /scratch/f.img again" $LOG
check "no initiator saw an error" not grep -iE 'I/O error|offline' <(dmesg)

# -- killed from outside, again and again, with two devices
truncate -s ${MB}M /scratch/g.img
must "frail: a second device is enabled" mk_dev g $((MB << 20)) frail//scratch/g.img
must "frail: it becomes a disk" lun g 3
SECOND=$DISK
verify $FRAIL 24M & A=$!
verify $SECOND 24M & B=$!
for i in 1 2 3; do sleep 1; kill -9 $(process handler_frail) 2>/dev/null; done
check "killed three times under I/O: fio finds what it wrote to one device" wait $A
check "killed three times under I/O: fio finds what it wrote to the other device" wait $B
check "both read" eval 'reads_ok $FRAIL && reads_ok $SECOND'
check "no initiator saw an error" not grep -iE 'I/O error|offline' <(dmesg)
# A device that cannot be opened again for a while.
touch /scratch/g.img.open; kill -9 $(process handler_frail)
check "a device that cannot be opened again keeps no other device of its plugin" timeout 60 dd if=$FRAIL of=/dev/null bs=64k count=4 iflag=direct status=none
rm /scratch/g.img.open
check "it is served when it can be" timeout 90 dd if=$SECOND of=/dev/null bs=64k count=4 iflag=direct status=none
check "the second device is removed" eval 'unlun g 3 && rm_dev g'

# -- the daemon is killed
verify $FRAIL 24M & A=$!
verify $OTHER 24M & B=$!
sleep 1; crash
check "killed under I/O, the daemon leaves no process" within 20 none
sleep 1
must "it starts again" start "$DAEMON"
check "killed under I/O: fio finds what it wrote to one device" wait $A
check "killed under I/O: fio finds what it wrote to the other device" wait $B
check "no task is stuck in the kernel" no_stuck
check "what was written to the qcow2 image is there" eval 'mount /dev/$(ls /sys/bus/scsi/devices/$(<$LOOP/tpgt_1/address):1/block) $MNT && files_are_right && umount $MNT'
crash
# What a process of a plugin holds that does not end.
flock /run/tcmu.lock sleep 3 & HOLDS=$!
sleep 0.2; t=$(now)
must "a daemon starts when all processes of its predecessor have ended" start "$DAEMON"
check "and not before" eval '[ $(since $t) -gt 200 ] && ended $HOLDS'

check "the devices are removed" eval 'unlun q 1 && rm_dev q && unlun f 2 && rm_dev f && unlun a 0 && rm_dev a'
note_daemon
check "SIGTERM ends the daemon" stop 15
check "and its processes" within 2 none
check "no ring was broken" ring_is_whole
check "no task is stuck in the kernel" no_stuck
finish
