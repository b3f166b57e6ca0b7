#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# absent.sh DAEMON: images that are not there when the daemon starts, because their file system is
# mounted later. Their devices wait for them, their commands as long as their initiators do.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1
LOG=/var/log/tcmu-runner.log
MB=32
truncate -s 64M fs.img && mkfs.ext4 -q -F fs.img
mkdir -p /mnt/later && modprobe loop && mount -o loop fs.img /mnt/later
truncate -s ${MB}M /mnt/later/f.img /mnt/later/t.img
qemu-img create -q -f qcow2 /mnt/later/q.img ${MB}M
qemu-img create -q -f qcow2 /scratch/base.img ${MB}M
qemu-img create -q -f qcow2 -b /scratch/base.img -F qcow2 /scratch/o.img
head -c 65536 /dev/urandom >r64k

# wait_for_read DISK: a read that waits, in the background
start_read() { dd if=$1 of=back bs=64k count=1 iflag=direct status=none 2>read.out & READ=$!; }
ends_well() { within ${1:-20} ended $READ || { echo "the read does not end"; return 1; }; wait $READ && cmp back r64k; }
running() { [ "$(cat /sys/block/${DISK#/dev/}/device/state)" = running ]; }

must "the daemon starts" start "$DAEMON"
must "devices on a file system, and an overlay, become disks" eval \
    'mk_dev f $((MB << 20)) file//mnt/later/f.img && lun f 0 && F=$DISK F_SG=$SG &&
     mk_dev q $((MB << 20)) qcow//mnt/later/q.img && lun q 1 && Q=$DISK &&
     mk_dev o $((MB << 20)) qcow//scratch/o.img && lun o 2 && O=$DISK'
must "so does one with a short time-out" eval \
    'mk_dev t $((MB << 20)) file//mnt/later/t.img && echo 6 >$(dev t)/attrib/cmd_time_out && lun t 3 && T=$DISK T_SG=$SG'
for disk in $F $Q $O $T; do
    check "$disk is written" dd if=r64k of=$disk bs=64k oflag=direct,sync status=none
done
must "the daemon ends" stop 10
umount /mnt/later && mv /scratch/base.img /scratch/base.away

# -- it starts before the mount
must "it starts without the images" start "$DAEMON"
check "the log tells what is missing, and that it is tried again" within 10 eval \
    'grep "user_0/f.*cannot be opened yet.*/mnt/later/f.img" $LOG && grep "user_0/o.*base.img" $LOG'
check "a device without its image says who it is" sg_inq $F_SG
check "and that it is becoming ready, at once" eval 't=$(now); sense "Not Ready" "becoming ready" $F_SG 00 00 00 00 00 00 && [ $(since $t) -lt 300 ]'
start_read $F; f=$READ
start_read $Q; q=$READ
sleep 2
check "its commands wait" eval 'not ended $f && not ended $q'
mount -o loop fs.img /mnt/later
READ=$f; check "when the file system is mounted, they go on" ends_well 5
READ=$q; check "those of the qcow2 image, too" ends_well 5
start_read $O; sleep 1
check "a command waits for a backing file" not ended $READ
mv /scratch/base.away /scratch/base.img
check "when its backing file is there again, it goes on" ends_well 40

# -- the image appears in its directory, or SIGHUP makes the daemon look
for how in inotify SIGHUP; do
    must "the daemon ends" stop 10
    mv /mnt/later/f.img /mnt/later/away.img
    must "it starts without the image" start "$DAEMON"
    start_read $F
    # Later than the first pauses.
    sleep 9
    check "a command waits" not ended $READ
    if [ $how = inotify ]; then
        mv /mnt/later/away.img /mnt/later/f.img
        check "when the image is renamed into its place, it goes on" ends_well 3
    else
        # What it links to is watched by nobody.
        mkdir -p /mnt/later/sub && ln -s /mnt/later/sub/f.img /mnt/later/f.img
        sleep 2
        mv /mnt/later/away.img /mnt/later/sub/f.img
        kill -HUP $DAEMON_PID
        check "at SIGHUP it goes on" ends_well 3
    fi
done
rm /mnt/later/f.img; mv /mnt/later/sub/f.img /mnt/later/f.img

# -- it takes longer than a command can wait
must "the daemon ends" stop 10
mv /mnt/later/t.img /mnt/later/away.img
must "it starts without the image" start "$DAEMON"
check "a command that waits for too long ends, before the kernel's time-out, with becoming ready" eval \
    't=$(now); sense "Not Ready" "becoming ready" -t 60 -r 512 $T_SG 28 00 00 00 00 00 00 00 01 00; d=$(since $t); echo $d; [ $d -ge 350 ] && [ $d -lt 590 ]'
start_read $T
sleep 15
check "the initiator sends its commands again" not ended $READ
DISK=$T; check "and keeps the disk" running
check "a device without its image cannot be resized" not timeout 20 bash -c "echo -n $((64 << 20)) >$(dev t)/attrib/dev_size"
check "nor can it be set to an image that is not there" not timeout 20 bash -c "echo -n file//no/such >$(dev t)/attrib/dev_config"
check "it can be set to one that is there" timeout 20 bash -c "echo -n file//mnt/later/away.img >$(dev t)/attrib/dev_config"
check "then the command goes on" ends_well
check "and so does the disk" eval 'dd if=r64k of=$T bs=64k oflag=direct seek=1 status=none && running'

# -- removal and end
must "the daemon ends" stop 10
mv /mnt/later/away.img /mnt/later/gone.img
must "it starts without the image" start "$DAEMON"
unlun t 3
check "a device without its image is removed" rm_dev t
check "a new device without its image is refused at once" eval 'o=$(timeout 20 bash -c "$(declare -f mk_dev dev); CFG=$CFG; mk_dev n $((MB << 20)) file//mnt/later/t.img" 2>&1); echo "$o"; grep "No such file" <<<"$o"'
rmdir $(dev n)
check "the other disks work" eval 'dd if=$Q of=back bs=64k count=1 iflag=direct status=none && cmp back r64k'
unlun f 0; unlun q 1; unlun o 2
check "they are removed" eval 'rm_dev f && rm_dev q && rm_dev o'
check "qemu-img check finds clean images" eval 'clean_image /mnt/later/q.img && clean_image /scratch/o.img'
check "SIGTERM ends the daemon in 5 s" stop 5
umount /mnt/later
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
