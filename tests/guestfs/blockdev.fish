# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 1M
run
# What a device is.
blockdev-getss /dev/sda
blockdev-getbsz /dev/sda
blockdev-setbsz /dev/sda 2048
blockdev-getbsz /dev/sda
blockdev-setbsz /dev/sda 3
blockdev-getsz /dev/sda
blockdev-getsize64 /dev/sda
blockdev-getro /dev/sda
blockdev-setro /dev/sda
blockdev-getro /dev/sda
blockdev-setrw /dev/sda
blockdev-getro /dev/sda
blockdev-setra /dev/sda 256
blockdev-setra /dev/sda 0
-blockdev-setra /dev/sda -1
blockdev-flushbufs /dev/sda
blockdev-rereadpt /dev/sda
-mount-9p tag /mnt
-mount-9p tag /mnt options:ro
# A partition.
part-disk /dev/sda mbr
-blockdev-rereadpt /dev/sda1
blockdev-getss /dev/sda1
blockdev-getsz /dev/sda1
blockdev-getsize64 /dev/sda1
blockdev-flushbufs /dev/sda1
mkfs ext4 /dev/sda1
wipefs /dev/sda1
wipefs /dev/sda1
vfs-type /dev/sda1
# In use.
mkfs ext4 /dev/sda1
mount /dev/sda1 /
-blockdev-rereadpt /dev/sda
-blkdiscard /dev/sda1
umount-all
wipefs /dev/sda
-part-get-parttype /dev/sda
# Zeroes.
is-zero-device /dev/sdb
pwrite-device /dev/sdb x 1000000
pwrite-device /dev/sdb yz 67108862
is-zero-device /dev/sdb
zero-device /dev/sdb
is-zero-device /dev/sdb
pwrite-device /dev/sdb x 131071
pwrite-device /dev/sdb y 131072
zero /dev/sdb
pread-device /dev/sdb 1 131072
is-zero-device /dev/sdb
blkdiscard /dev/sdb
is-zero-device /dev/sdb
blkdiscardzeroes /dev/sdb
scrub-device /dev/sdc
is-zero-device /dev/sdc
-is-zero-device /dev/sdz
-is-zero-device /dev/null
-is-zero-device sda
