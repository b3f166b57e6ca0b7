#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# faults.sh DAEMON: file systems that fill up, media that fail, and I/O that hangs: each is reported
# as what it is, and affects only its own LUN.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1
export DM_DISABLE_UDEV=1
modprobe -a loop dm_mod dm_flakey
must "the daemon starts" start "$DAEMON"
head -c 65536 /dev/urandom >r64k
truncate -s 64M /scratch/good.img
must "a LUN that stays well" eval 'mk_dev good 67108864 file//scratch/good.img && lun good 0'
GOOD=$DISK
good_works() { dd if=r64k of=$GOOD bs=64k seek=$((RANDOM % 1000)) oflag=direct status=none && dd if=$GOOD of=/dev/null bs=64k count=8 iflag=direct status=none; }

# -- no space
truncate -s 32M small.img && mkfs.ext4 -q -F -m0 -O ^has_journal small.img
mkdir -p /mnt/small && mount -o loop small.img /mnt/small
truncate -s 64M /mnt/small/f.img
qemu-img create -q -f qcow2 /mnt/small/q.img 64M
for kind in file qcow; do
    must "$kind: a LUN on a small file system" eval "mk_dev small 67108864 $kind//mnt/small/${kind:0:1}.img && lun small 1"
    check "$kind: it takes a write" sg_raw -s 65536 -i r64k $SG 2a 00 00 00 00 00 00 00 80 00
    dd if=/dev/zero of=/mnt/small/filler bs=64k status=none 2>/dev/null
    dd if=/dev/zero of=/mnt/small/filler bs=1k seek=$(($(stat -c %s /mnt/small/filler) / 1024)) status=none 2>/dev/null
    check "$kind: with no space left, a write is SPACE ALLOCATION FAILED WRITE PROTECT" \
        sense "Data Protect" "Space allocation failed write protect" -s 65536 -i r64k $SG 2a 00 00 01 00 00 00 00 80 00
    check "$kind: what was there reads" eval 'sg_raw -o back -r 65536 $SG 28 00 00 00 00 00 00 00 80 00 && cmp back r64k'
    check "$kind: the other LUN works" good_works
    rm /mnt/small/filler; sync
    check "$kind: with space again, the write succeeds" sg_raw -s 65536 -i r64k $SG 2a 00 00 01 00 00 00 00 80 00
    check "$kind: it reads back" eval 'sg_raw -o back -r 65536 $SG 28 00 00 01 00 00 00 00 80 00 && cmp back r64k'
    check "$kind: it is removed" eval 'unlun small 1 && rm_dev small'
done
check "qemu-img check finds a clean image" clean_image /mnt/small/q.img
umount /mnt/small

# -- a medium that fails: 4 KiB at LBA 65536
truncate -s 64M bad.img && BACK=$(losetup -f --show bad.img)
must "a block device with a bad spot" dmsetup create bad <<EOF
0 65536 linear $BACK 0
65536 8 error
65544 65528 linear $BACK 65544
EOF
must "a LUN on it" eval 'mk_dev bad 67108864 file//dev/mapper/bad && lun bad 1'
check "READ of the bad spot is a MEDIUM ERROR" sense "Medium Error" "read error" -r 4096 $SG 28 00 00 01 00 00 00 00 08 00
check "the sense tells the LBA of a READ" eval 'sg_raw -v -r 4096 $SG 28 00 00 01 00 00 00 00 08 00 2>&1 | tee /dev/stderr | grep -iE "info fld=0x10000|information:? *0x0*10000|f0 00 03 00 01 00 00"'
check "WRITE with FUA to the bad spot is a MEDIUM ERROR" sense "Medium Error" "write error" -s 4096 -i r64k $SG 2a 08 00 01 00 00 00 00 08 00
check "the blocks before and after it work" eval 'sg_raw -s 4096 -i r64k $SG 2a 00 00 00 ff f8 00 00 08 00 && sg_raw -r 4096 $SG 28 00 00 01 00 08 00 00 08 00'
check "the other LUN works" good_works
check "it is removed" eval 'unlun bad 1 && rm_dev bad && dmsetup remove bad && losetup -d $BACK'

# -- a flush that fails: what could not be written is gone, and no later flush may hide it
for kind in file qcow; do
    truncate -s 96M frail.img && BACK=$(losetup -f --show frail.img)
    good() { echo 0 $(blockdev --getsz $BACK) linear $BACK 0; }
    failing() { echo 0 $(blockdev --getsz $BACK) flakey $BACK 0 0 100 1 error_writes; }
    # table FUNCTION: another table for what is mounted
    table() { dmsetup suspend --noflush --nolockfs frail && $1 | dmsetup load frail && dmsetup resume frail; }
    must "$kind: an image on a disk that will fail" eval 'good | dmsetup create frail && mkfs.ext4 -q -F -O ^has_journal /dev/mapper/frail && mkdir -p /mnt/frail && mount /dev/mapper/frail /mnt/frail && image $kind /mnt/frail/f.img 32'
    must "$kind: a LUN on it" eval 'mk_dev frail 33554432 $kind//mnt/frail/f.img && lun frail 1'
    check "$kind: it is written and flushed" eval 'sg_raw -s 65536 -i r64k $SG 2a 00 00 00 00 00 00 00 80 00 && sg_sync $SG'
    must "$kind: its disk fails" table failing
    check "$kind: a write goes to the cache" sg_raw -s 65536 -i r64k $SG 2a 00 00 00 00 00 00 00 80 00
    check "$kind: SYNCHRONIZE CACHE is a MEDIUM ERROR" sense "Medium Error" "write error" $SG 35 00 00 00 00 00 00 00 00 00
    must "$kind: its disk works again" table good
    check "$kind: the next SYNCHRONIZE CACHE fails, too" sense "Medium Error" "write error" $SG 35 00 00 00 00 00 00 00 00 00
    check "$kind: and the one after another write" eval 'sg_raw -s 65536 -i r64k $SG 2a 00 00 00 00 80 00 00 80 00; sense "Medium Error" "write error" $SG 35 00 00 00 00 00 00 00 00 00'
    check "$kind: so does a WRITE with FUA" sense "Medium Error" "write error" -s 4096 -i r64k $SG 2a 08 00 00 01 00 00 00 08 00
    check "$kind: and what a program writes with dd and fsync" not dd if=r64k of=$DISK bs=64k count=1 conv=fsync status=none
    check "$kind: the log says what to do" eval 'tail -20 /var/log/tcmu-runner.log | grep "closed and opened again"'
    check "$kind: no snapshot is taken of it" eval '! echo -n "$kind//mnt/frail/f.img;tcmur_cmd_time_out=9" >$(dev frail)/attrib/dev_config'
    check "$kind: the other LUN works" good_works
    must "$kind: opened anew" eval 'unlun frail 1 && rm_dev frail && mk_dev frail 33554432 $kind//mnt/frail/f.img && lun frail 1'
    check "$kind: it takes writes and flushes" eval 'sg_raw -s 65536 -i r64k $SG 2a 08 00 00 00 00 00 00 80 00 && sg_sync $SG && dd if=r64k of=$DISK bs=64k count=1 conv=fsync status=none'
    check "$kind: it is removed" eval 'unlun frail 1 && rm_dev frail && umount /mnt/frail && dmsetup remove frail && losetup -d $BACK'
done

# -- a block device changes its configuration and stays ours
truncate -s 64M own.img && BACK=$(losetup -f --show own.img)
must "a LUN on a block device" eval 'mk_dev own 67108864 file/$BACK && lun own 1'
mknod /dev/same b $((16#$(stat -c %t $BACK))) $((16#$(stat -c %T $BACK)))
check "its configuration names it in another way" eval 'echo -n file//dev/same >$(dev own)/attrib/dev_config'
check "nobody else may have it" eval '! wipefs -a $BACK 2>&1 | tee wipe.out; grep -i busy wipe.out'
check "it works" dd if=r64k of=$DISK bs=64k count=1 oflag=direct status=none
check "a size beyond it is an invalid argument" eval '! echo -n 134217728 >$(dev own)/attrib/dev_size 2>size.out; cat size.out; grep "Invalid argument" size.out'
check "the log says how large it is" eval 'tail -5 /var/log/tcmu-runner.log | grep "has 67108864 bytes"'
check "it is removed" eval 'unlun own 1 && rm_dev own && rm /dev/same && losetup -d $BACK'

# -- I/O that hangs: a frozen file system
truncate -s 96M ice.img && mkfs.ext4 -q -F ice.img
mkdir -p /mnt/ice && mount -o loop ice.img /mnt/ice
truncate -s 64M /mnt/ice/f.img
qemu-img create -q -f qcow2 /mnt/ice/q.img 64M
for kind in file qcow; do
    must "$kind: a LUN on a file system that will hang" eval "mk_dev ice 67108864 $kind//mnt/ice/${kind:0:1}.img && lun ice 1"
    ICE=$DISK
    fsfreeze -f /mnt/ice
    dd if=r64k of=$ICE bs=64k seek=3 oflag=direct status=none 2>dd.out & HUNG=$!
    sleep 2
    check "$kind: its write waits" not ended $HUNG
    check "$kind: the other LUN works" good_works
    check "$kind: the daemon answers on the bus" call --reply-timeout=5000 /org/kernel/TCMUService1 org.freedesktop.DBus.ObjectManager.GetManagedObjects
    truncate -s 16M /scratch/new.img
    check "$kind: a new device becomes a disk meanwhile" timeout 30 bash -c "$(declare -f); CFG=$CFG LOOP=$LOOP; mk_dev new 16777216 file//scratch/new.img && lun new 2"
    check "$kind: and is removed" eval 'unlun new 2 && rm_dev new'
    fsfreeze -u /mnt/ice
    check "$kind: thawed, the write comes to its end" eval 'within 20 ended $HUNG && wait $HUNG'
    check "$kind: it reads back" eval 'dd if=$ICE of=back bs=64k skip=3 count=1 iflag=direct status=none && cmp back r64k'
    check "$kind: it is removed" eval 'unlun ice 1 && rm_dev ice'
done
check "qemu-img check finds a clean image" clean_image /mnt/ice/q.img
umount /mnt/ice

unlun good 0
check "the last device is removed" rm_dev good
check "SIGTERM ends the daemon in 5 s" stop 5
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
