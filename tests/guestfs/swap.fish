# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 64M
run
mkswap /dev/sda
vfs-type /dev/sda
vfs-label /dev/sda
mkswap /dev/sda label:lab uuid:01234567-89ab-cdef-0123-456789abcdef
vfs-label /dev/sda
vfs-uuid /dev/sda
-mkswap /dev/sda label:0123456789012345678
mkswap /dev/sda label:0123456789abcdef
vfs-label /dev/sda
mkswap /dev/sda label:-x
vfs-label /dev/sda
-mkswap /dev/sda uuid:bogus
mkswap /dev/sda uuid:clear
vfs-uuid /dev/sda
mkswap-L lab2 /dev/sdb
vfs-label /dev/sdb
-mkswap-U bogus /dev/sda
mkswap-U 11234567-89ab-cdef-0123-456789abcdef /dev/sda
vfs-uuid /dev/sda
swapon-device /dev/sda
-swapon-device /dev/sda
-mkswap /dev/sda
swapoff-device /dev/sda
-swapoff-device /dev/sda
swapon-label lab2
swapoff-label lab2
-swapoff-label lab2
-swapon-label none
swapon-uuid 11234567-89ab-cdef-0123-456789abcdef
swapoff-uuid 11234567-89ab-cdef-0123-456789abcdef
-swapoff-uuid 11234567-89ab-cdef-0123-456789abcdef
-swapon-uuid bogus
-swapon-uuid 21234567-89ab-cdef-0123-456789abcdef
-swapon-device /dev/sdc
part-disk /dev/sdc mbr
mkswap /dev/sdc1 label:part
swapon-label part
swapoff-device /dev/sdc1
mkfs ext4 /dev/sdd
mount /dev/sdd /
-mkswap-file /swap
fallocate64 /swap 10485760
mkswap-file /swap
swapon-file /swap
swapoff-file /swap
-swapoff-file /swap
-swapon-file /none
touch /small
-mkswap-file /small
mkdir /d
-mkswap-file /d
-swapon-file /d
-swapon-file /small
