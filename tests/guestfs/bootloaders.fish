# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M
# modules: vfat
# SYSLINUX on FAT, EXTLINUX and GRUB where filesystems are mounted.
run
mkfs vfat /dev/sda
syslinux /dev/sda
mount /dev/sda /
ls /
set-trace false
pread-device /dev/sda 11 0 | od -c
set-trace true
mkdir /boot
-syslinux /dev/sda directory:/boot
umount-all
syslinux /dev/sda directory:/boot
-syslinux /dev/sda directory:/none
-syslinux /dev/sda directory:--help
-syslinux /dev/sda "directory:/b'; touch /tmp/x; '"
-syslinux /dev/sdb
mount /dev/sda /
find /
umount-all

mkfs ext4 /dev/sdb
mount /dev/sdb /
mkdir-p /boot/extlinux
extlinux /boot/extlinux
find /
set-trace false
pread-device /dev/sdb 11 0 | od -c
set-trace true
extlinux /
ls /
-extlinux /none
-extlinux boot
ln-s /tmp /outside
-extlinux /outside
touch /file
-extlinux /file
umount-all
mount /dev/sda /
-extlinux /boot
umount-all

part-disk /dev/sdc mbr
mkfs ext2 /dev/sdc1
mount /dev/sdc1 /
-grub-install / /dev/sdc
mkdir-p /boot/grub
write /boot/grub/device.map "(hd0) /dev/sdc\n"
grub-install / /dev/sdc
set-trace false
find / | grep -v i386-pc/
pread-device /dev/sdc 440 0 | od -c | head -2
set-trace true
-grub-install /none /dev/sdc
-grub-install / /dev/none
mkdir /g
ln-s /tmp /g/boot
-grub-install /g /dev/sdc
find /g/
