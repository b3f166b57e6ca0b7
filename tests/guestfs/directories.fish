# SPDX-License-Identifier: Apache-2.0
# disks: 400M
# filesystems: ext4 xfs btrfs vfat
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
rm-rf /lost+found
mkdir /d
mkdir-p /d/e/f/g
touch /d/a
touch "/d/with space"
touch "/d/new\nline"
touch "/d/caf\xc3\xa9"
touch /d/.hidden
ln-s a /d/link
ln-s /d/a /d/absolute
ln-s /nonexistent /d/dangling
ln-s ../../../../../etc/passwd /d/outside
mkfifo 0600 /d/fifo
mknod-c 0600 1 3 /d/null
mknod-b 0600 7 0 /d/loop
mknod 0140600 0 0 /d/socket
ln-s d /linkd
ls /d
ls /linkd
ls /d/e/f/g
-ls /d/a
-ls /nonexistent
-ls relative
ls0 /d - | sort -z | tr \\0 \\n
-ls0 /d/a -
-ls0 /nonexistent -
readdir /d | grep -E "ftyp|name" | sort
readdir /linkd | grep name | sort
-readdir /d/a
-readdir /nonexistent
find /
find /d/
find /linkd/
-find /d/a
-find /nonexistent
find0 / - | tr \\0 \\n | sort
-find0 /d/a -
readlink /d/link
readlink /d/absolute
readlink /d/outside
readlink /linkd
-readlink /d/a
-readlink /d
-readlink /nonexistent
readlinklist /d "link absolute dangling a e nonexistent outside"
-readlinklist /nonexistent "a"
-readlinklist /d/a "a"
-readlinklist /d "../linkd"
mkdir /m
-mkdir /m
-mkdir /m/x/y
-mkdir /d/a/x
-mkdir /d/dangling
-mkdir /
mkdir /m/slash/
mkdir-p /m/1/2/3
mkdir-p /m/1/2/3
mkdir-p /linkd/made
mkdir-p /m/1/../4
find /m/
-mkdir-p /d/a
-mkdir-p /d/a/b
-mkdir-p /d/dangling
mkdir-p /
mkdir-mode /m/mode 0712
stat /m/mode | grep mode
mkdir-mode /m/sticky 01777
stat /m/sticky | grep mode
-mkdir-mode /m/neg -1
-mkdir-mode /m/mode 0700
rmdir /m/mode
-rmdir /m/mode
-rmdir /m
-rmdir /d/a
-rmdir /linkd
-rmdir /
# removing and linking
touch /x
rm /x
-rm /x
-rm /m
-rm relative
rm-f /x
rm-f /nonexistent/x
-rm-f /m
ln-s target /sym
-ln-s target /sym
ln-sf other /sym
readlink /sym
-ln-s target /nonexistent/sym
ln-s target /m
ln-sf target /m
-ln-s "" /emptylink
write /orig "x"
ln /orig /hard
-ln /orig /hard
ln-f /orig /hard
stat /orig | grep nlink
-ln /m /dirhard
-ln /nonexistent /hard2
-ln-f /nonexistent /hard
exists /hard
ln /sym /hardlinktolink
readlink /hardlinktolink
-ln relative /hard3
-ln-f /orig /m
ln-f /orig /orig2
rename /orig2 /orig3
cat /orig3
-rename /orig2 /orig3
-rename /orig3 /m
-rename /m /orig3
-rename /m /m/1/2
-rename /orig3 /nonexistent/x
mkdir /emptydir
rename /m/sticky /emptydir
-rename /emptydir /m
rename /sym /sym2
readlink /sym2
