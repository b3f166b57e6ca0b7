#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# refusals.sh DAEMON: configurations and images that cannot be served. Each is refused at once, with
# the errno and, in the log and over D-Bus, the reason; nothing is left half-made.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1
must "the daemon starts" start "$DAEMON"
LOG=/var/log/tcmu-runner.log
S=/scratch/i; mkdir -p $S $S/dir $S/ro
truncate -s 16M $S/good.img
head -c 65536 /dev/urandom >$S/noise
: >$S/empty
qemu-img create -q -f qcow2 $S/good.qcow2 16M
patched() { cp $S/good.qcow2 $S/$1; printf "$3" | dd of=$S/$1 bs=1 seek=$2 conv=notrunc status=none; }
# Big-endian fields of the header: incompatible features at 72 to 79, version at 4 to 7.
patched dirty.qcow2 79 '\001'
patched corrupt.qcow2 79 '\002'
patched future.qcow2 72 '\200'
patched version9.qcow2 7 '\011'
patched huge-table.qcow2 36 '\377\377\377\377'
patched l1-outside.qcow2 40 '\177\377\377\377\377\377\000\000'
head -c 60 $S/good.qcow2 >$S/short.qcow2
qemu-img create -q -f qcow2 -u -b $S/gone.img -F raw $S/orphan.qcow2 16M
cp $S/good.img $S/ro/f.img; cp $S/good.qcow2 $S/ro/q.img
mount --bind $S/ro $S/ro && mount -o remount,bind,ro $S/ro
BYTES=16777216

# refused ERRNO BYTES CONFIG: enable fails with this text, soon, and leaves nothing
refused() {
    local errno=$1 bytes=$2 config=$3 out
    out=$(timeout 30 bash -c "$(declare -f mk_dev dev); CFG=$CFG; mk_dev bad $bytes '$config'" 2>&1)
    local rc=$?; echo "exit $rc: $out"
    rmdir $(dev bad) || return 1
    [ $rc != 0 ] && [ $rc != 124 ] && [[ $out == *$errno* ]] && ! ls /sys/class/uio/uio* >/dev/null 2>&1 &&
        ! ended $DAEMON_PID
}
# says TEXT CONFIG: CheckConfig of the configuration is false, for a reason with TEXT in it
says() {
    local out; out=$(call /org/kernel/TCMUService1/${2%%/*} $BUS_NAME.CheckConfig string:"$2" 2>&1)
    echo "$out"; grep -q 'boolean false' <<<"$out" && grep -qi -- "$1" <<<"$out"
}
while IFS='|' read -r what errno config reason; do
    check "$what is refused: $errno" refused "$errno" $BYTES "$config"
    [ -z "$reason" ] || check "$what: CheckConfig gives the reason" says "$reason" "$config"
done <<EOF
a file that is not there|No such file or directory|file/$S/none|none
a file in a directory that is not there|No such file or directory|file//no/such/dir/x|/no/such/dir
a directory||file/$S/dir|dir
an empty path||file/|
a qcow2 image that is not there|No such file or directory|qcow/$S/none|none
a file that is no qcow2 image|Invalid argument|qcow/$S/noise|noise
an empty file as a qcow2 image|Invalid argument|qcow/$S/empty|empty
a qcow2 image with a short header|Invalid argument|qcow/$S/short.qcow2|short.qcow2
a qcow2 image of a version to come|Invalid argument|qcow/$S/version9.qcow2|version
a qcow2 image with the corrupt bit||qcow/$S/corrupt.qcow2|qemu-img check
a qcow2 image with an unknown feature||qcow/$S/future.qcow2|feature
a qcow2 image with a table larger than any||qcow/$S/huge-table.qcow2|
a qcow2 image with a table outside of it||qcow/$S/l1-outside.qcow2|
a qcow2 image without its backing file||qcow/$S/orphan.qcow2|gone.img
a file on a read-only file system|Read-only file system|file/$S/ro/f.img|
a qcow2 image on a read-only file system|Read-only file system|qcow/$S/ro/q.img|
an option with a bad number|Invalid argument|file/$S/good.img;tcmur_cmd_time_out=abc;|
EOF
check "a qcow2 image smaller than the device is refused" refused "" $((BYTES * 2)) qcow/$S/good.qcow2
check "a file smaller than the device is refused" refused "" $((BYTES * 2)) file/$S/good.img
check "the log names a file that was refused" grep -q "$S/none" $LOG
check "the log tells what to run for a corrupt image" grep -q "qemu-img check" $LOG
check "the images are as they were" eval 'cmp -n 65536 $S/good.qcow2 $S/ro/q.img && [ $(stat -c %s $S/good.img) = $BYTES ] && [ ! -e $S/none ]'
cp $S/good.img "$S/comma,1.img"
check "CheckConfig refuses a comma, at which the kernel cuts" says "first comma" "file/$S/comma,1.img"
check "a device whose name is cut is refused" refused "No such file or directory" $BYTES "file/$S/comma,1.img"
check "the log tells why" grep -q "$S/comma: .*first comma, and there is $S/comma,1.img" $LOG
check "CheckConfig accepts a good file" eval 'call /org/kernel/TCMUService1/file $BUS_NAME.CheckConfig string:file/$S/good.img | grep "boolean true"'
check "CheckConfig accepts a good qcow2 image" eval 'call /org/kernel/TCMUService1/qcow $BUS_NAME.CheckConfig string:qcow/$S/good.qcow2 | grep "boolean true"'
for kind in file qcow; do
    f=good.img; [ $kind = file ] || f=good.qcow2
    check "$kind: a good device with a time-out in its configuration becomes a disk afterwards" eval \
        "mk_dev good $BYTES '$kind/$S/$f;tcmur_cmd_time_out=20;' && lun good 0 && dd if=\$DISK of=/dev/null bs=64k count=4 iflag=direct status=none"
    unlun good 0; rm_dev good
done

check "a qcow2 image with the dirty bit is repaired and served" eval \
    'mk_dev dirty $BYTES qcow/$S/dirty.qcow2 && lun dirty 0 && dd if=$S/noise of=$DISK bs=64k count=1 oflag=direct status=none && unlun dirty 0 && rm_dev dirty'
check "it is clean then" eval 'clean_image $S/dirty.qcow2 && [ $(hex $S/dirty.qcow2 79 1) = 00 ]'

# -- subtypes that are not ours: somebody has to serve them
foreign_refused() { local t; t=$(now); refused "Operation not supported" $BYTES "$1" && [ $(since $t) -lt 500 ]; }
for config in nosuch/$S/good.img zbc/$S/good.img fbo/$S/good.img; do
    check "a device of the subtype ${config%%/*}, which nobody serves, is refused at once" foreign_refused $config
done
check "the log names the subtype" grep -q 'no handler for the subtype \\*"nosuch' $LOG

# listen WRAPPER ARGUMENT...: another program that listens to the kernel; sets LISTENER
listen() {
    : >listener.out
    $1 python3 $REPO/tests/vm/listener.py "${@:2}" >>listener.out 2>&1 & LISTENER=$!
    within 20 grep -q listening listener.out || { cat listener.out; return 1; }
}
gone() { kill $LISTENER && wait $LISTENER; ended $LISTENER; }
enable_foreign() { (mk_dev foreign $BYTES nosuch/$S/good.img >foreign.out 2>&1) & FOREIGN=$!; within 20 grep -q added listener.out; }
hears_ours() { grep -q 'write error: Operation not supported' foreign.out || { cat foreign.out; return 1; }; }
NOBODY="setpriv --reuid 65534 --clear-groups"
for user in "$NOBODY" "$NOBODY unshare --user --map-root-user"; do
    must "a user without rights listens to the kernel ($user)" listen "$user" nosuch
    enable_foreign
    check "a device does not wait for who may not answer" eval 'within 5 ended $FOREIGN && hears_ours'
    check "the device can be removed" rm_dev foreign
    gone
done
for where in "" "unshare --net"; do
    place=${where:+, in a network namespace of its own,}
    must "another program$place listens to the kernel" listen "$where" nosuch
    must "it hears of a device of its subtype" enable_foreign
    sleep 3
    check "while it$place listens, the device gets no answer from us" not ended $FOREIGN
    check "a device of ours is enabled meanwhile" eval "mk_dev good $BYTES file/$S/good.img && rm_dev good"
    gone
    check "when it is gone without an answer, the answer is ours" eval 'within 10 ended $FOREIGN && hears_ours'
    check "the device can be removed" rm_dev foreign
done
must "another program answers the kernel for its subtype" listen "" nosuch 0
check "its device is enabled" eval "enable_foreign && within 10 ended \$FOREIGN && [ \$(<$(dev foreign)/enable) = 1 ]"
check "it hears of a change, which it accepts" timeout 20 bash -c "echo -n $((BYTES * 2)) >$(dev foreign)/attrib/dev_size"
gone
check "when it is gone, its device cannot be changed" eval 'o=$(timeout 20 bash -c "echo -n '$BYTES' >$(dev foreign)/attrib/dev_size" 2>&1); echo "$o"; grep -q "Operation not supported" <<<"$o"'
check "and it can be removed" rm_dev foreign

# An external handler, as D-Bus knows it, that does not listen to the kernel yet.
must "an external handler registers over D-Bus" eval 'python3 -c "
import dbus, time
bus = dbus.SystemBus()
name = \"$BUS_NAME.HandlerManager1\"
bus.request_name(name + \".nosuch\")
manager = dbus.Interface(bus.get_object(\"$BUS_NAME\", \"/org/kernel/TCMUService1/HandlerManager1\"), name)
print(manager.RegisterHandler(\"nosuch\", \"of a test\"), flush=True)
time.sleep(600)" >ext.out 2>&1 & EXT=$!; within 20 grep -q succeeded ext.out || { cat ext.out; false; }'
(mk_dev foreign $BYTES nosuch/$S/good.img >foreign.out 2>&1) & FOREIGN=$!
sleep 3
check "a device of its subtype gets no answer from us" not ended $FOREIGN
kill $EXT
check "when the handler drops off the bus, the answer is ours" eval 'within 10 ended $FOREIGN && hears_ours'
check "the device can be removed" rm_dev foreign
check "no device is left" eval '! ls /sys/class/uio/uio* 2>/dev/null'
check "SIGTERM ends the daemon in 5 s" stop 5
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
