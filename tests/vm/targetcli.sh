#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# targetcli.sh DAEMON: the daemon as targetcli-fb sees it, over D-Bus.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1
must "the daemon starts" start "$DAEMON"
mkdir -p $WORK/home && export HOME=$WORK/home # targetcli keeps its preferences there
S=/scratch
qemu-img create -q -f qcow2 $S/t.qcow2 64M
truncate -s 64M $S/t.raw
WWN=naa.5001405000000003

check "D-Bus: the object manager lists file and qcow" eval \
    '(o=$(call /org/kernel/TCMUService1 org.freedesktop.DBus.ObjectManager.GetManagedObjects); echo "$o"; grep -q TCMUService1/file <<<"$o" && grep -q TCMUService1/qcow <<<"$o")'
for h in file qcow; do
    check "D-Bus: $h can be introspected" eval "call /org/kernel/TCMUService1/$h org.freedesktop.DBus.Introspectable.Introspect | grep CheckConfig"
    check "D-Bus: $h describes its configuration" eval "call /org/kernel/TCMUService1/$h org.freedesktop.DBus.Properties.Get string:$BUS_NAME string:ConfigDesc | grep -i path"
done
check "targetcli lists user:file and user:qcow" eval \
    '(o=$(targetcli /backstores ls); echo "$o"; grep -q user:file <<<"$o" && grep -q user:qcow <<<"$o")'
check "targetcli's help of create has the description" eval 'targetcli /backstores/user:qcow help create | grep -i path'
check "targetcli creates on qcow" targetcli /backstores/user:qcow create name=q0 size=64M cfgstring=$S/t.qcow2
check "targetcli creates on file" targetcli /backstores/user:file create name=f0 size=64M cfgstring=$S/t.raw
check "targetcli is refused a file that is not there, with the reason" eval \
    '(o=$(targetcli /backstores/user:qcow create name=q1 size=64M cfgstring=$S/none.qcow2 2>&1); rc=$?; echo "$o"; [ $rc != 0 ] && grep -qi none.qcow2 <<<"$o")'
check "targetcli exports over loopback" eval \
    'targetcli /loopback create $WWN && targetcli /loopback/$WWN/luns create /backstores/user:qcow/q0'
modprobe sd_mod sg
check "the disk is there" within 20 eval 'grep -l TCMU /sys/block/sd*/device/vendor /sys/block/sd*/device/model | grep -q . || ls /sys/block/sda'
D=/dev/$(basename "$(ls -d /sys/block/sd* | head -1)")
check "it is written and read" eval 'head -c 65536 /dev/urandom >r && dd if=r of=$D bs=64k oflag=direct status=none && dd if=$D of=back bs=64k count=1 iflag=direct status=none && cmp r back'
check "targetcli takes a snapshot: the device gets an overlay on its image" eval \
    'qemu-img create -q -u -f qcow2 -F qcow2 -b $S/t.qcow2 $S/t1.qcow2 64M && targetcli /backstores/user:qcow/q0 set attribute dev_config=qcow/$S/t1.qcow2'
check "the disk is what it was, and is written" eval 'dd if=$D of=back bs=64k count=1 iflag=direct status=none && cmp r back && dd if=/dev/zero of=$D bs=64k count=1 oflag=direct status=none'
check "targetcli goes back to the image" targetcli /backstores/user:qcow/q0 set attribute dev_config=qcow/$S/t.qcow2
check "the disk is what it was at the snapshot" eval 'dd if=$D of=back bs=64k count=1 iflag=direct status=none && cmp r back'
check "targetcli saves the configuration" targetcli saveconfig $S/save.json
check "targetcli resizes file" targetcli /backstores/user:file/f0 set attribute dev_size=$((96 << 20))
check "the device has the new size" grep -q $((96 << 20)) $CFG/core/user_*/f0/attrib/dev_size
check "targetcli deletes" eval 'targetcli /loopback delete $WWN && targetcli /backstores/user:file delete f0 && targetcli /backstores/user:qcow delete q0'
check "nothing is left" eval '! ls -d $CFG/core/user_*/*/'
truncate -s 64M $S/t.raw
check "targetcli restores the configuration, with exit status 0" targetcli restoreconfig $S/save.json
check "the disk is there again" within 20 eval 'ls /sys/block/sd* >/dev/null 2>&1'
D=/dev/$(basename "$(ls -d /sys/block/sd* | head -1)")
check "it holds what it held" eval 'dd if=$D of=back bs=64k count=1 iflag=direct status=none && cmp r back'
check "targetcli clears the configuration" targetcli clearconfig confirm=true
check "nothing is left" eval '! ls -d $CFG/core/user_*/*/'
check "SIGTERM ends the daemon in 5 s" stop 5
check "no task is stuck in the kernel" no_stuck
finish
