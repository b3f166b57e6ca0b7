#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# power.sh DAEMON [POINTS]: the power fails at any moment. Everything is real: initiator, target, daemon, ext4,
# fsync. The disk under ext4 is one of dm-log-writes, which logs every write and flush that reaches
# it; at POINTS places of each log the disk is made as a power cut may leave it: what was written since
# the last flush is there in part. Then flushed data has to be there, and the image must be fit for use.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1 POINTS=${2:-8}
PY="python3 $(dirname "$(realpath "$0")")/power.py"
export DM_DISABLE_UDEV=1
modprobe -a loop dm_mod dm_log_writes
must "the daemon starts" start "$DAEMON"
mkdir -p /mnt/power /mnt/after
MB=24
head -c $((MB << 20)) /dev/urandom >base.raw
truncate -s 256K r256k

# make KIND FILE: an image; its content is in BASE, if that is set
make() {
    BASE=
    case $1 in
    file) truncate -s ${MB}M $2 ;;
    qcow) qemu-img create -q -f qcow2 $2 ${MB}M ;;
    qcow-4k) qemu-img create -q -f qcow2 -o cluster_size=4k $2 ${MB}M ;;
    qcow-backed) BASE=base.raw; qemu-img create -q -f qcow2 -b $WORK/base.raw -F raw $2 ;;
    esac
}
# lose MARK WRITES: the disk after that cut, mounted at /mnt/after
lose() { $PY replay log.img start.img after.img 1 $1 $2 && mount -o loop after.img /mnt/after; }
# as_flushed KIND MARK: its image is without errors, and holds what it must
as_flushed() {
    local image=/mnt/after/image
    case $1 in
    file) $PY judge $image book $2 ;;
    *) sound_image $image && qemu-img convert -f qcow2 -O raw $image content.raw && $PY judge content.raw book $2 $BASE ;;
    esac
}
# usable KIND: it is served, written and closed, and has no errors then
usable() {
    mk_dev after $((MB << 20)) ${1%%-*}//mnt/after/image && lun after 1 &&
        dd if=r256k of=$DISK bs=64k seek=3 oflag=direct conv=fsync status=none &&
        unlun after 1 && rm_dev after && { [ $1 = file ] || clean_image /mnt/after/image; }
}

for kind in file qcow qcow-4k qcow-backed; do
    rm -f disk.img log.img; truncate -s 96M disk.img; truncate -s 2G log.img
    mkfs.ext4 -q -F -b 4096 -J size=4 -E lazy_itable_init=0,lazy_journal_init=0,nodiscard disk.img
    cp --sparse=always disk.img start.img
    A=$(losetup -f --show disk.img) B=$(losetup -f --show log.img)
    must "$kind: a disk that logs what reaches it" eval "dmsetup create power --table '0 $(blockdev --getsz $A) log-writes $A $B' && mount /dev/mapper/power /mnt/power"
    must "$kind: an image on it" eval "make $kind /mnt/power/image && sync -f /mnt/power"
    must "$kind: a LUN" eval "mk_dev power $((MB << 20)) ${kind%%-*}//mnt/power/image && lun power 0"
    must "$kind: it is written and flushed" $PY write $DISK power book 7
    check "$kind: it is removed" eval "unlun power 0 && rm_dev power && umount /mnt/power && dmsetup remove power && losetup -d $A && losetup -d $B"
    n=0
    while read -r mark writes; do
        n=$((n + 1))
        must "$kind, cut $n: ext4 comes back" lose $mark $writes
        check "$kind, cut $n (mark $mark, $writes writes later): what was flushed is there, and no error" as_flushed $kind $mark
        [ $n -gt 2 ] || check "$kind, cut $n: it is served, and closed without errors" usable $kind
        umount /mnt/after
    done < <($PY cut log.img 3 $POINTS)
    check "$kind: there were $POINTS cuts" [ $n = $POINTS ]
done
check "SIGTERM ends the daemon in 5 s" stop 5
finish
