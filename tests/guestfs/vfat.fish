# SPDX-License-Identifier: Apache-2.0
# disks: 64M 4M 512M
# FAT in its three widths.
run
mkfs vfat /dev/sda label:SIXTEEN
vfs-type /dev/sda
vfs-label /dev/sda
set-label /dev/sda NEW
vfs-label /dev/sda
set-label /dev/sda "TWO WORDS"
vfs-label /dev/sda
-set-label /dev/sda TOOLONGALABEL
vfs-label /dev/sda
-set-uuid /dev/sda 01234567
-set-uuid-random /dev/sda
-vfs-minimum-size /dev/sda
mkfs vfat /dev/sdb
vfs-type /dev/sdb
vfs-label /dev/sdb
mkfs vfat /dev/sdb label:TWELVE blocksize:4096
set-trace false
blkid /dev/sdb | grep -v UUID
set-trace true
mkfs vfat /dev/sdc label:THIRTYTWO blocksize:4096
set-trace false
blkid /dev/sdc | grep -v UUID
set-trace true
set-label /dev/sdc OTHER
vfs-label /dev/sdc
-mkfs vfat /dev/sdc blocksize:300
-mkfs vfat /dev/sdc features:x
-mkfs vfat /dev/sdc label:TOOLONGALABEL
list-filesystems
fsck vfat /dev/sda
