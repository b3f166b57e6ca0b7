# SPDX-License-Identifier: Apache-2.0
# disks: 400M 400M 400M
# filesystems: ext4 xfs btrfs
# Filesystems of the same UUID at the same time.
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
write /hello "hello"
mkdir /below
umount /
copy-device-to-device /dev/sda /dev/sdb sparse:true
copy-device-to-device /dev/sda /dev/sdc sparse:true
mount /dev/sda /
mount /dev/sdb /below
mount-ro /dev/sdc /below/below
cat /below/hello
write /below/new "new"
umount-all
mount /dev/sdb /
cat /new
umount-all
# what cannot be mounted may be the system that is looked for
inspect-os
mkfs ext2 /dev/sdc
!printf '\002\000\000\200' > feature
upload-offset feature /dev/sdc 1120
vfs-type /dev/sdc
mount /dev/sdc /
inspect-os
inspect-get-roots
