# SPDX-License-Identifier: Apache-2.0
# disks: 64M
# Watching files.
run
mkfs ext4 /dev/sda
mount /dev/sda /
mkdir /dir
-inotify-read
-inotify-files
-inotify-close
-inotify-add-watch / 4095
-inotify-rm-watch 1
inotify-init 100
-inotify-init 0
inotify-add-watch /dir 0x3c0
inotify-read
inotify-files
touch /dir/a
write /dir/b "x"
inotify-read
mv /dir/a /dir/c
rm /dir/b
set-trace false
inotify-read | grep -v in_cookie
set-trace true
inotify-read
touch /dir/z
touch /dir/m
rm /dir/m
touch /dir/a
inotify-files
inotify-files
inotify-add-watch / 0x100
touch /x
inotify-files
inotify-rm-watch 2
touch /y
inotify-read
inotify-rm-watch 1
inotify-read
-inotify-rm-watch 1
-inotify-rm-watch 99
-inotify-rm-watch -1
-inotify-add-watch /nonesuch 4095
-inotify-add-watch /dir 0
-inotify-add-watch /dir -1
-inotify-add-watch dir 4095
inotify-close
-inotify-close
inotify-init 0
inotify-add-watch /dir 0x40000100
mkdir /dir/sub
ln-s z /dir/link
inotify-read
fill-dir /dir/sub 5
inotify-read
inotify-close
inotify-init 5
inotify-add-watch /dir 0x100
fill-dir /dir 10
inotify-read
inotify-read
inotify-close
-inotify-init -1
umount /
