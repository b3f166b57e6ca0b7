# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 1M
# modules: vfat
# The Sleuth Kit: files, deleted ones too, on filesystems of several types.
run
mkfs ext4 /dev/sda
mount /dev/sda /
mkdir-p /dir/below
write /dir/file "hello\n"
write /dir/gone "this was deleted\n"
write /name "new line"
ln-s /dir/file /link
mkfifo 0644 /fifo
mknod-c 0644 1 3 /null
mknod-b 0644 7 0 /block
write "/läbel" "x"
rm /dir/gone
rm-rf /dir/below
umount /
mkfs vfat /dev/sdb
mount /dev/sdb /
mkdir /DIR
write "/DIR/a long name" "hello\n"
write /DIR/GONE.TXT "this was deleted\n"
rm /DIR/GONE.TXT
umount /
mkfs ntfs /dev/sdc
-mount /dev/sdc /
-mkdir /dir
-write /dir/file "hello\n"
-write /dir/gone "this was deleted\n"
-rm /dir/gone
-umount /
-filesystem-walk /dev/sda
-filesystem-walk /dev/sdb
-filesystem-walk /dev/sdc
-filesystem-walk /dev/sdd
-filesystem-walk /dev/nonesuch
-filesystem-walk /dir
-find-inode /dev/sda 2
-find-inode /dev/sda 11
-find-inode /dev/sda 12
-find-inode /dev/sda 14
-find-inode /dev/sda 999999
-find-inode /dev/sda -1
-find-inode /dev/sda 0
-find-inode /dev/sdd 5
-download-inode /dev/sda 12 a
-download-inode /dev/sda 14 b
-download-inode /dev/sda 15 c
-download-inode /dev/sda 17 d
!cksum b c d; wc -c < a
-download-inode /dev/sda 999999 nothing
-download-inode /dev/sda -1 nothing
-download-inode /dev/sda 0 nothing
-download-inode /dev/sdc 0 mft
!wc -c < mft
-download-inode /dev/sdd 5 nothing
-download-blocks /dev/sda 0 8 blocks
!wc -c < blocks
-download-blocks /dev/sda 0 8 blocks unallocated:true
!wc -c < blocks
-download-blocks /dev/sda 8000 8100 blocks unallocated:true
!wc -c < blocks
-download-blocks /dev/sda 5 4 blocks
-download-blocks /dev/sda -1 4 blocks
-download-blocks /dev/sda 1 -4 blocks
-download-blocks /dev/sda 7 7 blocks
-download-blocks /dev/sda 1 99999999 blocks
-download-blocks /dev/sdd 1 2 blocks
-download-blocks /dev/sdb 0 10 blocks
!wc -c < blocks
