#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# data.sh DAEMON: ext4 on LUNs of file and qcow; then the same writes, discards and zeroes to a raw
# LUN and to qcow2 LUNs of several makes, which have to hold the same bytes. Then LUKS volumes, which the
# kernel's dm-crypt has to read and write as we do.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1
must "the daemon starts" start "$DAEMON"
mkdir -p /scratch/mnt

for kind in file qcow; do
    image $kind /scratch/e.img 192
    must "$kind: a device is enabled" mk_dev e $((192 << 20)) $kind//scratch/e.img
    must "$kind: it becomes a disk" lun e 0
    check "$kind: mkfs.ext4" mkfs.ext4 -q -F $DISK
    check "$kind: mount -o discard" mount -o discard $DISK /scratch/mnt
    check "$kind: files are copied" cp -r /usr/share/perl5/Debconf /usr/share/doc/linux-image-* /usr/bin/bash /usr/bin/qemu-img /scratch/mnt/
    (cd /scratch/mnt && find . -type f -exec sha256sum {} +) >sums
    check "$kind: umount" umount /scratch/mnt
    echo 3 >/proc/sys/vm/drop_caches
    check "$kind: mount again" mount -o discard $DISK /scratch/mnt
    check "$kind: $(wc -l <sums) files have their checksums" bash -c "cd /scratch/mnt && sha256sum --quiet -c $WORK/sums"
    check "$kind: rm with discard, and fstrim" eval 'rm -r /scratch/mnt/Debconf && fstrim -v /scratch/mnt'
    check "$kind: umount again" umount /scratch/mnt
    check "$kind: fsck finds nothing" fsck.ext4 -fn $DISK
    before=$(du -k /scratch/e.img | cut -f1)
    check "$kind: blkdiscard of all gives space back" eval 'blkdiscard $DISK && sg_sync $SG && [ $(du -k /scratch/e.img | cut -f1) -lt $((before / 4)) ]'
    check "$kind: it is removed" eval 'unlun e 0 && rm_dev e'
    [ $kind = file ] || check "qcow: qemu-img check finds a clean image" clean_image /scratch/e.img
done

# A base with content, for the images that have a backing file; half of it can be compressed.
MB=48
{ seq 4000000 | head -c $((MB << 19)); head -c $((MB << 19)) /dev/urandom; } >base.raw
qemu-img convert -q -f raw -O qcow2 base.raw base.qcow2
qemu-img convert -q -c -f raw -O qcow2 base.raw packed.qcow2
check "half of an image's clusters are compressed" eval 'qemu-img check packed.qcow2 | tee /dev/stderr | grep "50.00% compressed"'
# make MAKE FILE: an image of that make, and TWIN a raw file of the same content
make_image() {
    truncate -s 0 twin.raw; truncate -s ${MB}M twin.raw
    case $1 in
    v3) qemu-img create -q -f qcow2 $2 ${MB}M ;;
    v2) qemu-img create -q -f qcow2 -o compat=0.10 $2 ${MB}M ;;
    small-clusters) qemu-img create -q -f qcow2 -o cluster_size=4k $2 ${MB}M ;;
    narrow-refcounts) qemu-img create -q -f qcow2 -o refcount_bits=1 $2 ${MB}M ;;
    preallocated) qemu-img create -q -f qcow2 -o preallocation=metadata $2 ${MB}M ;;
    backed) qemu-img create -q -f qcow2 -b $WORK/base.qcow2 -F qcow2 $2; cp base.raw twin.raw ;;
    compressed) cp packed.qcow2 $2; cp base.raw twin.raw ;;
    extended-l2) qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=128k $2 ${MB}M ;;
    esac
}
# A hole, or zeroes on a disk that does not discard.
hole() {
    local way=-z
    [ "$(</sys/block/${1#/dev/}/queue/discard_max_bytes)" = 0 ] || way=
    blkdiscard $way -o $2 -l $3 $1
}
# The same to every disk: random writes of many sizes, then holes and zeroes.
workload() {
    fio --name=w --filename=$1 --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite \
        --bsrange=512-128k --bs_unaligned=0 --blockalign=512 --randseed=7 --size=${MB}M --io_size=12M \
        --buffer_pattern=0xdeadbeef --output=fio.out || { cat fio.out; return 1; }
    hole $1 1048576 3145728 && hole $1 8389120 65024 &&
        blkdiscard -z -o 20971520 -l 1049088 $1 &&
        dd if=base.raw of=$1 bs=4608 seek=1000 count=7 oflag=direct status=none &&
        dd if=base.raw of=$1 bs=64k seek=20 count=4 oflag=direct status=none
}
for make in v3 v2 small-clusters narrow-refcounts preallocated backed compressed extended-l2; do
    make_image $make i.qcow2
    must "$make: a raw twin becomes a disk" eval 'mk_dev raw $((MB << 20)) file/$WORK/twin.raw && lun raw 0'
    RAW=$DISK
    if ! check "$make: the qcow2 image becomes a disk" eval 'mk_dev q $((MB << 20)) qcow/$WORK/i.qcow2 && lun q 1'; then
        check "$make: the twin is removed" eval 'rmdir $(dev q); unlun raw 0 && rm_dev raw'
        continue
    fi
    check "$make: the raw LUN takes the writes" workload $RAW
    check "$make: the qcow LUN takes the writes" workload $DISK
    check "$make: both read the same" cmp $RAW $DISK
    check "$make: they are removed" eval 'unlun q 1 && unlun raw 0 && rm_dev q && rm_dev raw'
    check "$make: qemu-img check finds a clean image" clean_image i.qcow2
    check "$make: qemu-img compare finds the content of the twin" qemu-img compare -f qcow2 -F raw i.qcow2 twin.raw
done
check "the base images are as they were" eval 'qemu-img compare -q -f qcow2 -F raw base.qcow2 base.raw && clean_image base.qcow2'

# LUKS volumes: a LUN of ours and the kernel's dm-crypt have the same bytes, whoever wrote them.
export DM_DISABLE_UDEV=1
modprobe -a loop dm_mod dm_crypt
MB=16
truncate -s ${MB}M base.raw
(umask 077; printf 'correct horse' >key; printf 'second\n' >second)
# volume MiB DERIVATION OPTION...: a volume with two keys
volume() {
    local size=$1 derivation=$2; shift 2
    rm -f v.img; truncate -s ${size}M v.img
    cryptsetup luksFormat -q $derivation "$@" --key-file key v.img &&
        cryptsetup luksAddKey -q $derivation --key-file key v.img second
}
crypt() { cryptsetup open --key-file key v.img crypt && CRYPT=/dev/mapper/crypt; }
uncrypt() { cryptsetup close crypt; }
for make in luks1 luks2-4096 luks2-essiv luks2-serpent; do
    derivation="--pbkdf pbkdf2 --pbkdf-force-iterations 1000"
    case $make in
    luks1) options="--type luks1" ;;
    luks2-4096)
        options="--sector-size 4096"
        derivation="--pbkdf argon2id --pbkdf-memory 4096 --pbkdf-parallel 4 --pbkdf-force-iterations 4" ;;
    luks2-essiv) options="--cipher aes-cbc-essiv:sha256 --key-size 256" ;;
    luks2-serpent) options="--cipher serpent-xts-plain64 --sector-size 1024" ;;
    esac
    must "$make: cryptsetup makes a volume" volume $((MB + 18)) "$derivation" $options
    must "$make: it becomes a disk, by its second key" eval \
        'mk_dev l $((MB << 20)) "luks/$WORK/v.img;secret-file=$WORK/second" && lun l 0'
    check "$make: the LUN takes writes" dd if=base.raw of=$DISK bs=256k oflag=direct status=none
    check "$make: of single blocks, too" dd if=/dev/zero of=$DISK bs=512 seek=4097 count=5 oflag=direct status=none
    check "$make: it is removed" eval 'unlun l 0 && rm_dev l'
    cp base.raw twin.raw
    dd if=/dev/zero of=twin.raw bs=512 seek=4097 count=5 conv=notrunc status=none
    must "$make: dm-crypt opens it" crypt
    check "$make: dm-crypt reads what we wrote" cmp -n $((MB << 20)) $CRYPT twin.raw
    check "$make: dm-crypt writes" dd if=base.raw of=$CRYPT bs=64k seek=100 skip=7 count=16 oflag=direct status=none
    dd if=base.raw of=twin.raw bs=64k seek=100 skip=7 count=16 conv=notrunc status=none
    check "$make: dm-crypt closes it" uncrypt
    must "$make: it becomes a disk again, by its first key" eval \
        'mk_dev l $((MB << 20)) "luks/$WORK/v.img;secret-file=$WORK/key" && lun l 0'
    check "$make: we read what dm-crypt wrote" cmp $DISK twin.raw
    check "$make: it is removed again" eval 'unlun l 0 && rm_dev l'
done
must "a volume in a qcow2 image becomes a disk" eval 'qemu-img convert -q -f raw -O qcow2 v.img v.qcow2 &&
    mk_dev l $((MB << 20)) "luks/qcow/$WORK/v.qcow2;secret-file=$WORK/key;discard=on" && lun l 0'
check "it has the bytes of the volume" cmp $DISK twin.raw
check "it takes writes and discards" eval 'dd if=base.raw of=$DISK bs=64k count=64 oflag=direct status=none && blkdiscard -o $((8 << 20)) -l $((4 << 20)) $DISK'
check "it is removed" eval 'unlun l 0 && rm_dev l && clean_image v.qcow2'
check "dm-crypt reads it, too" eval 'qemu-img convert -q -f qcow2 -O raw v.qcow2 v.img && crypt && cmp -n $((4 << 20)) $CRYPT base.raw && uncrypt'
(umask 077; printf hunter2 >wrong)
check "a wrong key is refused" eval 'not mk_dev w $((MB << 20)) "luks/$WORK/v.img;secret-file=$WORK/wrong" && rmdir "$(dev w)"'
check "the log tells so, and has no key" eval 'grep "the passphrase opens none of its 2 key slots" $DAEMON_LOG && not grep -E "hunter2|correct horse" $DAEMON_LOG'
check "SIGTERM ends the daemon in 5 s" stop 5
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
