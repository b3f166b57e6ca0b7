# SPDX-License-Identifier: Apache-2.0
# disks: 400M
# filesystems: ext4 xfs btrfs vfat
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
write /f "hello"
mkdir /d
ln-s f /link
ln-s d /linkd
ln-s /f /absolute
ln-s /nonexistent /dangling
ln-s loop1 /loop2
ln-s loop2 /loop1
mkfifo 0600 /fifo
mknod-c 0600 1 3 /null
mknod-b 0600 7 0 /loop
mknod 0140600 0 0 /socket
# what it is
exists /f
exists /d
exists /link
exists /dangling
exists /nonexistent
exists /f/x
exists /nonexistent/x
exists /loop1
-exists relative
exists /
is-file /f
is-file /link
is-file /link followsymlinks:true
is-file /link followsymlinks:false
is-file /d
is-file /dangling followsymlinks:true
is-file /nonexistent
is-file /f/x
-is-file /loop1 followsymlinks:true
is-dir /d
is-dir /linkd
is-dir /linkd followsymlinks:true
is-dir /f
is-dir /nonexistent
is-dir /
is-chardev /null
is-chardev /null followsymlinks:true
is-chardev /f
is-blockdev /loop
is-blockdev /f followsymlinks:true
is-fifo /fifo
is-fifo /fifo followsymlinks:true
is-fifo /f
is-socket /socket
is-socket /f followsymlinks:true
is-symlink /link
is-symlink /dangling
is-symlink /f
is-symlink /nonexistent
filesize /f
filesize /link
filesize /absolute
-filesize /dangling
-filesize /nonexistent
filesize /null
is-zero /f
# stat in all versions, with what does not change from run to run
umask 022
utimens /f 1000000000 1 1000000001 2
stat /f | grep -E "mode|nlink|uid|gid|rdev|size|atime|mtime"
lstat /f | grep -E "mode|nlink|uid|gid|rdev|size|atime|mtime"
statns /f | grep -E "mode|nlink|uid|gid|rdev|size|atime|mtime"
lstatns /link | grep -E "mode|nlink|uid|gid|rdev|size"
stat /null | grep -E "mode|rdev|size"
stat /loop | grep -E "mode|rdev|size"
stat /link | grep mode
-stat /dangling
-stat /nonexistent
-stat /loop1
-stat relative
lstat /dangling | grep mode
-lstat /nonexistent
-statns /nonexistent
-lstatns /nonexistent
lstatnslist / "f link d nonexistent" | grep -E "mode|nlink|size"
lstatlist / "f link d nonexistent" | grep -E "mode|nlink"
-lstatnslist /nonexistent "f"
-lstatnslist /f "f"
-lstatnslist / "d/../f"
# modes and owners
chmod 0600 /f
stat /f | grep mode
chmod 07777 /f
stat /f | grep mode
chmod 0100644 /f
stat /f | grep mode
chmod 0640 /link
stat /f | grep mode
chmod 0666 /fifo
lstat /fifo | grep mode
-chmod -1 /f
-chmod 0600 /dangling
-chmod 0600 /nonexistent
chown 10 20 /f
stat /f | grep -E "uid|gid"
chown -1 30 /f
stat /f | grep -E "uid|gid"
chown 40 -1 /absolute
stat /f | grep -E "uid|gid"
chown 2147483647 2147483647 /f
stat /f | grep -E "uid|gid"
lchown 50 60 /link
lstat /link | grep -E "uid|gid"
stat /f | grep -E "uid|gid"
lchown 70 80 /dangling
-chown 1 1 /dangling
-chown 1 1 /nonexistent
-lchown 1 1 /nonexistent
# times
utimens /f 1 2 3 4
statns /f | grep -E "[am]time"
utimens /f 5 -2 6 7
statns /f | grep -E "[am]time"
utimens /f 8 9 10 -2
statns /f | grep -E "[am]time"
utimens /f -1 0 -100 999999999
statns /f | grep -E "[am]time"
-utimens /f 0 1000000000 0 0
-utimens /f 0 -3 0 0
-utimens /nonexistent 0 0 0 0
utimens /link 11 0 12 0
utimens /fifo 11 0 12 0
utimens /dangling 11 0 12 0
utimens /d 13 0 14 0
statns /d | grep -E "[am]time"
touch /touched
exists /touched
-touch /d
-touch /link
-touch /fifo
-touch /null
-touch /dangling
-touch /nonexistent/x
-touch /loop1
# nodes and the umask
umask 0
get-umask
mkfifo 0666 /fifo1
stat /fifo1 | grep mode
mknod-c 0666 5 300 /c1
stat /c1 | grep -E "mode|rdev"
mknod-b 0666 259 70000 /b1
stat /b1 | grep -E "mode|rdev"
mknod 0100666 0 0 /r1
stat /r1 | grep mode
mknod 0666 0 0 /r2
stat /r2 | grep mode
mknod 010777 0 0 /p1
stat /p1 | grep mode
mknod 060640 8 1 /b2
stat /b2 | grep -E "mode|rdev"
umask 077
mkfifo 0666 /fifo2
stat /fifo2 | grep mode
mknod-c 07666 1 5 /c2
stat /c2 | grep mode
mkdir /m
stat /m | grep mode
touch /t
stat /t | grep mode
write /w ""
stat /w | grep mode
umask 022
-umask 01000
-umask -1
get-umask
-mkfifo 0600 /fifo
-mkfifo -1 /x
-mknod-c -1 1 3 /x
-mknod-c 0600 -1 3 /x
-mknod-c 0600 1 -3 /x
-mknod-b 0600 1 3 /nonexistent/x
-mknod 040755 0 0 /x
-mknod 0120777 0 0 /x
-mknod 0170000 0 0 /x
-mknod -1 0 0 /x
-mkfifo 0600 /dangling
# sizes
write /s "0123456789"
truncate-size /s 4
cat /s
truncate-size /s 8
hexdump /s
truncate /s
filesize /s
truncate-size /link 3
cat /f
-truncate-size /s -1
-truncate-size /nonexistent 1
-truncate /nonexistent
-truncate /d
-truncate-size /d 3
fallocate /fa 1000
filesize /fa
fallocate64 /fb 100000
filesize /fb
is-zero /fb
write /fc "abcdef"
fallocate64 /fc 3
filesize /fc
fallocate64 /fc 10
hexdump /fc
-fallocate64 /fd 0
-fallocate64 /fd -1
-fallocate /fd -1
-fallocate64 /fe 100000000000
-fallocate64 /nonexistent/x 1
exists /fe
is-zero /fa
-is-zero /d
-is-zero /nonexistent
# the device that it is on: the first disk of a machine is 8:0
stat /f | awk '$1 == "dev:" && $2 == 2048 {print "on the first disk"}'
lstatns /f | awk '$1 == "st_dev:" && $2 == 2048 {print "on the first disk"}'
lstatlist / f | awk '$1 == "dev:" && $2 == 2048 {print "on the first disk"}'
