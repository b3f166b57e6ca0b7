# SPDX-License-Identifier: Apache-2.0
# disks: 300M 100M
run
-inspect-get-type /dev/sda1
inspect-get-roots
part-init /dev/sda mbr
part-add /dev/sda p 2048 206847
part-add /dev/sda p 206848 270335
part-add /dev/sda p 270336 -2048
mkfs ext4 /dev/sda1
set-label /dev/sda1 BOOT
mkswap /dev/sda2 label:SWAP uuid:11111111-2222-4333-8444-555555555555
mkfs ext4 /dev/sda3
set-uuid /dev/sda3 66666666-7777-4888-9999-aaaaaaaaaaaa
mkfs ext4 /dev/sdb
inspect-os
-inspect-get-type /dev/sda3
mount /dev/sda3 /
mkdir /bin
mkdir /etc
mkdir-p /var/lib/dpkg
upload /bin/sh /bin/sh
write /etc/debian_version "11.6\n"
write /etc/os-release "PRETTY_NAME=\"Debian GNU/Linux 11 (bullseye)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"11.6\"\nID=debian\nBUILD_ID=x\n"
write /etc/hostname "debian.example.com\n"
write /etc/fstab "# made\nUUID=66666666-7777-4888-9999-aaaaaaaaaaaa / ext4 defaults 0 1\nLABEL=BOOT /boot ext4 defaults 0 2\nUUID=11111111-2222-4333-8444-555555555555 none swap sw 0 0\n/dev/sdb /home ext4 defaults 0 0\n/dev/vdz9 /nonesuch ext4 defaults 0 0\nUUID=00000000-0000-0000-0000-000000000000 /missing ext4 defaults 0 0\ntmpfs /tmp tmpfs defaults 0 0\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto 0 0\nproc /proc proc defaults 0 0\nserver:/x /nfs nfs defaults 0 0\n"
write /var/lib/dpkg/status "Package: bash\nStatus: install ok installed\nVersion: 1:5.1-2+deb11u1\nArchitecture: amd64\nHomepage: http://x\nSource: bash\nMaintainer: x\nDescription: GNU Bourne Again SHell\n Bash is an sh.\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\nArchitecture: all\nDescription: x\n"
file-architecture /bin/sh
-file-architecture /etc/fstab
-file-architecture /etc
-file-architecture /nonesuch
-file-architecture relative
aug-init / 0
inspect-os
mounts
inspect-get-roots
-inspect-get-type /dev/sda1
-inspect-get-type /dev/nonesuch
inspect-get-type /dev/sda3
inspect-get-distro /dev/sda3
inspect-get-product-name /dev/sda3
inspect-get-product-variant /dev/sda3
inspect-get-major-version /dev/sda3
inspect-get-minor-version /dev/sda3
inspect-get-arch /dev/sda3
inspect-get-hostname /dev/sda3
inspect-get-package-format /dev/sda3
inspect-get-package-management /dev/sda3
inspect-get-format /dev/sda3
inspect-get-osinfo /dev/sda3
inspect-is-live /dev/sda3
inspect-is-netinst /dev/sda3
inspect-is-multipart /dev/sda3
-inspect-get-windows-systemroot /dev/sda3
-inspect-get-windows-software-hive /dev/sda3
-inspect-get-windows-system-hive /dev/sda3
-inspect-get-windows-current-control-set /dev/sda3
inspect-get-drive-mappings /dev/sda3
inspect-get-mountpoints /dev/sda3
inspect-get-filesystems /dev/sda3
mount-ro /dev/sda3 /
inspect-list-applications /dev/sda3
inspect-list-applications2 /dev/sda3
