# SPDX-License-Identifier: Apache-2.0
# disks: 4M 4M 4M 4M 4M 4M 4M 4M 4M 4M
# What distributions call themselves, and a system whose /usr is a filesystem of its own.
run
mkfs ext2 /dev/sda
mount /dev/sda /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/debian_version "12.15\n"
write /etc/os-release "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"
umount /
mkfs ext2 /dev/sdb
mount /dev/sdb /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/debian_version "trixie/sid\n"
write /etc/os-release "PRETTY_NAME=\"Debian GNU/Linux trixie/sid\"\nID=debian\n"
umount /
mkfs ext2 /dev/sdc
mount /dev/sdc /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/centos-release "CentOS Linux release 7.9.2009 (Core)\n"
write /etc/os-release "NAME=\"CentOS Linux\"\nID=\"centos\"\nVERSION_ID=\"7\"\nPRETTY_NAME=\"CentOS Linux 7 (Core)\"\n"
umount /
mkfs ext2 /dev/sdd
mount /dev/sdd /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/redhat-release "Rocky Linux release 8.7 (Green Obsidian)\n"
write /etc/os-release "ID=\"rocky\"\nVERSION_ID=\"8.7\"\nPRETTY_NAME=\"Rocky Linux 8.7\"\n"
umount /
mkfs ext2 /dev/sde
mount /dev/sde /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/oracle-release "Oracle Linux Server release 8.7\n"
write /etc/redhat-release "Red Hat Enterprise Linux release 8.7 (Ootpa)\n"
write /etc/os-release "ID=\"ol\"\nVERSION_ID=\"8.7\"\nPRETTY_NAME=\"Oracle Linux 8.7\"\n"
umount /
mkfs ext2 /dev/sdf
mount /dev/sdf /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/redhat-release "AlmaLinux release 9.1 (Lime Lynx)\n"
write /etc/os-release "ID=\"almalinux\"\nID_LIKE=\"rhel centos fedora\"\nVERSION_ID=\"9.1\"\nPRETTY_NAME=\"AlmaLinux 9.1\"\n"
umount /
mkfs ext2 /dev/sdg
mount /dev/sdg /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/debian_version "11.6\n"
write /etc/os-release "PRETTY_NAME=\"Raspbian GNU/Linux 11 (bullseye)\"\nVERSION_ID=\"11\"\nID=raspbian\nID_LIKE=debian\n"
umount /
mkfs ext2 /dev/sdh
mount /dev/sdh /
mkdir /bin
mkdir /etc
touch /etc/fstab
write /etc/debian_version "bookworm/sid\n"
write /etc/lsb-release "DISTRIB_ID=LinuxMint\nDISTRIB_RELEASE=21.1\nDISTRIB_DESCRIPTION=\"Linux Mint 21.1 Vera\"\n"
write /etc/os-release "ID=linuxmint\nVERSION_ID=\"21.1\"\nPRETTY_NAME=\"Linux Mint 21.1\"\n"
umount /
mkfs ext2 /dev/sdi
mkfs ext2 /dev/sdj
set-uuid /dev/sdj 66666666-7777-4888-9999-aaaaaaaaaaaa
mount /dev/sdi /
mkdir /etc
ln-s usr/bin /bin
ln-s ../usr/lib/os-release /etc/os-release
write /etc/fstab "/dev/sdi / ext2 defaults 0 1\nUUID=66666666-7777-4888-9999-aaaaaaaaaaaa /usr ext2 defaults 0 2\n"
umount /
mount /dev/sdj /
mkdir /bin
mkdir /lib
mkdir /share
upload /bin/sh /bin/sh
write /lib/os-release "ID=fedora\nVERSION_ID=38\nPRETTY_NAME=\"Fedora Linux 38\"\n"
umount /
inspect-os
inspect-get-distro /dev/sda
inspect-get-product-name /dev/sda
inspect-get-major-version /dev/sda
inspect-get-minor-version /dev/sda
inspect-get-arch /dev/sda
inspect-get-package-management /dev/sda
inspect-get-distro /dev/sdb
inspect-get-product-name /dev/sdb
inspect-get-major-version /dev/sdb
inspect-get-minor-version /dev/sdb
inspect-get-arch /dev/sdb
inspect-get-package-management /dev/sdb
inspect-get-distro /dev/sdc
inspect-get-product-name /dev/sdc
inspect-get-major-version /dev/sdc
inspect-get-minor-version /dev/sdc
inspect-get-arch /dev/sdc
inspect-get-package-management /dev/sdc
inspect-get-distro /dev/sdd
inspect-get-product-name /dev/sdd
inspect-get-major-version /dev/sdd
inspect-get-minor-version /dev/sdd
inspect-get-arch /dev/sdd
inspect-get-package-management /dev/sdd
inspect-get-distro /dev/sde
inspect-get-product-name /dev/sde
inspect-get-major-version /dev/sde
inspect-get-minor-version /dev/sde
inspect-get-arch /dev/sde
inspect-get-package-management /dev/sde
inspect-get-distro /dev/sdf
inspect-get-product-name /dev/sdf
inspect-get-major-version /dev/sdf
inspect-get-minor-version /dev/sdf
inspect-get-arch /dev/sdf
inspect-get-package-management /dev/sdf
inspect-get-distro /dev/sdg
inspect-get-product-name /dev/sdg
inspect-get-major-version /dev/sdg
inspect-get-minor-version /dev/sdg
inspect-get-arch /dev/sdg
inspect-get-package-management /dev/sdg
inspect-get-distro /dev/sdh
inspect-get-product-name /dev/sdh
inspect-get-major-version /dev/sdh
inspect-get-minor-version /dev/sdh
inspect-get-arch /dev/sdh
inspect-get-package-management /dev/sdh
inspect-get-distro /dev/sdi
inspect-get-product-name /dev/sdi
inspect-get-major-version /dev/sdi
inspect-get-minor-version /dev/sdi
inspect-get-arch /dev/sdi
inspect-get-package-management /dev/sdi
inspect-get-mountpoints /dev/sdi
