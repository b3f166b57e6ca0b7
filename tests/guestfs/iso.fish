# SPDX-License-Identifier: Apache-2.0
# disks: 1M 64M 10K
# What the volume descriptor of an ISO 9660 filesystem says. Runs in an empty directory of its own.
run
!at() { dd of=iso bs=1 conv=notrunc status=none seek=$1; }; truncate -s 1M iso; printf '\001CD001\001' | at 32768; printf 'LINUX                           A VOLUME                        ' | at 32776; printf '\310\000\000\000\000\000\000\310' | at 32848; printf '\001\000\000\001\002\000\000\002\000\010\010\000' | at 32888; printf 'SET' | at 32958; printf 'PUBLISHER ' | at 33086; printf ' PREPARER ' | at 33214; printf 'APPLICATION' | at 33342; printf 'COPYRIGHT' | at 33470; printf 'ABSTRACT' | at 33507; printf 'BIBLIOGRAPHIC' | at 33544; printf '2011101411015400\0002011101411015450\0040000000000000000\0001999123123595900\354\001' | at 33581; printf '\377CD001\001' | at 34816
upload iso /dev/sda
isoinfo-device /dev/sda
vfs-type /dev/sda
vfs-label /dev/sda
vfs-uuid /dev/sda
list-filesystems
-isoinfo-device /dev/sdb
-isoinfo-device /dev/sdc
mkfs ext2 /dev/sdb
mount /dev/sdb /
copy-device-to-file /dev/sda /iso
isoinfo /iso
touch /empty
-isoinfo /empty
-isoinfo /none
mkdir /dir
-isoinfo /dir
umount-all
