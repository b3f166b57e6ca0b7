# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M
# squashfs. Runs in an empty directory of its own.
run
mkfs ext4 /dev/sda
mount /dev/sda /
mkdir /d
write /d/a.txt hello
write /d/b.o x
mkdir /d/sub
write /d/sub/c.o x
ln-s d /l
ln-s /etc /out
mksquashfs /d image
!unsquashfs -l image
mksquashfs / image compress:xz
!unsquashfs -l image
!unsquashfs -s image | grep Compression
mksquashfs /d image compress:gzip
mksquashfs /d image compress:lzo
mksquashfs /d image compress:lz4
!unsquashfs -s image | grep Compression
-mksquashfs /d image compress:nonesuch
-mksquashfs /d image compress:
mksquashfs /d image "excludes:*.o"
!unsquashfs -l image
mksquashfs /d image "excludes:*.o sub"
!unsquashfs -l image
mksquashfs /d/a.txt image
!unsquashfs -l image
mksquashfs /l image
!unsquashfs -l image
mksquashfs /out image
!unsquashfs -l image
-mksquashfs /none image
mksquashfs /d image
upload image /image
umount-all
mkfs f2fs /dev/sdb
-f2fs-expand /dev/sdb
-f2fs-expand /dev/sda
