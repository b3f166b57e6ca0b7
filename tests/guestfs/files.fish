# SPDX-License-Identifier: Apache-2.0
# disks: 400M 64M
# filesystems: ext4 xfs btrfs vfat
run
mkfs FSTYPE /dev/sda
mkfs ext4 /dev/sdb
mount /dev/sda /
rm-rf /lost+found
# filling
fill 65 10 /a
hexdump /a
fill 0 0 /empty
filesize /empty
fill 255 70000 /big
checksum md5 /big
-fill 256 1 /x
-fill -1 1 /x
-fill 65 -1 /x
-fill 65 1 /nonexistent/x
-fill 65 1 relative
fill-pattern "abc" 10 /p
hexdump /p
fill-pattern "x" 0 /p0
filesize /p0
fill-pattern "0123456789" 1000000 /p
checksum md5 /p
-fill-pattern "" 10 /q
-fill-pattern "a" -1 /q
mkdir /filled
fill-dir /filled 12
ls /filled
fill-dir /filled 0
-fill-dir /nonexistent 1
-fill-dir /a 1
# copying a file
write /f "content"
chmod 0754 /f
cp /f /g
cat /g
stat /g | grep mode
chmod 0600 /g
write /f "longer content"
cp /f /g
cat /g
mkdir /dir
cp /f /dir
cp /f /dir/named
find /dir/
-cp /f /f
ln /f /hard
-cp /f /hard
-cp /dir /copy
-cp /nonexistent /copy
-cp /f /nonexistent/copy
-cp /f /new/
-cp relative /copy
-cp /f relative
ln-s f /link
cp /link /fromlink
is-symlink /fromlink
cat /fromlink
write /tolinktarget "old"
ln-s tolinktarget /tolink
cp /f /tolink
cat /tolinktarget
is-symlink /tolink
ln-s nowhere /dangling
-cp /f /dangling
-cp /dangling /copy
mkdir /dir/f2
write /f2 "f2"
-cp /f2 /dir
touch /sparse
truncate-size /sparse 1048576
pwrite /sparse "middle" 524288
cp /sparse /sparse2
checksum md5 /sparse
checksum md5 /sparse2
# copying trees
mkdir-p /tree/sub/deep
write /tree/a "a"
write /tree/sub/b "b"
chmod 04711 /tree/a
chown 10 20 /tree/a
chmod 0700 /tree/sub
ln /tree/a /tree/sub/hard
ln-s a /tree/soft
mkfifo 0622 /tree/fifo
mknod-c 0640 1 3 /tree/null
mknod-b 0640 7 9 /tree/loop
mknod 0140600 0 0 /tree/socket
setxattr user.x "value" 5 /tree/a
acl-set-file /tree/sub default u::rwx,g::rx,o::rx,m::rx,u:4321:rwx
cap-set-file /tree/sub/b cap_net_raw=ep
lchown 30 40 /tree/soft
utimens /tree/a 1000000000 5 1000000001 6
utimens /tree/soft 1000000002 7 1000000003 8
utimens /tree/sub 1000000004 9 1000000005 10
utimens /tree/fifo 1000000006 1 1000000007 2
utimens /tree 1000000008 1 1000000009 2
cp-a /tree /copy
find /copy/
getxattrs /copy/a
acl-get-file /copy/sub default
acl-get-file /copy/sub access
cap-get-file /copy/sub/b
readlink /copy/soft
lstatnslist /copy "a sub soft fifo null loop socket ." | sed -n "/st_mode\|st_uid\|st_gid\|st_nlink\|st_rdev\|st_size\|mtime/p"
lstatnslist /copy/sub "b hard deep" | sed -n "/st_mode\|st_uid\|st_gid\|st_nlink\|st_rdev\|st_size\|mtime/p"
cp-a /tree /copy
exists /copy/tree/sub/b
cp-r /tree /plain
find /plain/
lstatnslist /plain "a sub soft fifo null loop socket ." | sed -n "/st_mode\|st_uid\|st_gid\|st_nlink\|st_rdev\|st_size\|mtime/p"
lstatnslist /plain/sub "b hard deep" | sed -n "/st_mode\|st_uid\|st_gid\|st_nlink\|st_rdev\|st_size\|mtime/p"
getxattrs /plain/a
is-symlink /plain/soft
-cp-a /tree /a
-cp-a /nonexistent /x
-cp-a /tree /nonexistent/x
-cp-a /a /a
cp-a /tree/a /single
lstatns /single | grep -E "mode|uid|mtime"
cp-a /link /copiedlink
readlink /copiedlink
write /over "x"
cp-a /link /over
is-symlink /over
cp-a /a /dir/f2/..
ls /dir
# into trees that have something else there
mkdir-p /t1/t
mkdir-p /t2/t
write /t1/t/file "new"
ln-s nowhere /t1/t/link
mkdir /t1/t/dir
write /target "old"
ln-s ../../target /t2/t/file
write /t2/t/link "file in the place of a link"
ln-s ../../dir /t2/t/dir
-cp-a /t1/t /t2
cat /target
readlink /t2/t/file
readlink /t2/t/link
readlink /t2/t/dir
# moving
mv /g /h
-cat /g
cat /h
mv /h /dir
exists /dir/h
mv /dir/h /dir/i
exists /dir/i
-mv /nonexistent /x
-mv /dir/i /dir/i
-mv /dir /dir/f2
-mv /f /nonexistent/x
mv /f /dir/i
cat /dir/i
-mv /tree /dir/i
mv /hard /dir/i2
mv /tree /tree2
exists /tree
exists /tree2/sub/b
# to another filesystem
mkdir /mnt
mount /dev/sdb /mnt
rm-rf /mnt/lost+found
mv /tree2 /mnt
exists /tree2
find /mnt/
getxattrs /mnt/tree2/a
mv /mnt/tree2/sub/b /moved
cat /moved
cap-get-file /moved
mv /link /mnt/link
readlink /mnt/link
cp-a /mnt/tree2 /back
exists /back/sub/hard
-rename /mnt/tree2 /tree2
# removing
rm-rf /nonexistent
rm-rf /a/b
rm-rf /nonexistent/x
rm-rf /copy
exists /copy
rm-rf /dangling
ln-s dir /dirlink
rm-rf /dirlink
exists /dir
exists /dirlink
-rm-rf /
-rm-rf relative
-rm-rf /mnt
exists /mnt
umount /mnt
rm-rf /mnt
# names
touch "/glob a"
mkdir-p /glob/d1/x
mkdir-p /glob/d2
touch /glob/f1
touch /glob/f2
touch /glob/.hidden
touch "/glob/st*r"
touch /glob/d1/f1
ln-s d1 /glob/ld
ln-s nowhere /glob/ln
ln-s /glob/d1 /glob/labs
glob-expand /glob/*
glob-expand /glob/* directoryslash:false
glob-expand /glob/* directoryslash:true
glob-expand /glob/f?
glob-expand /glob/[de]*
glob-expand /glob/[!d]*
glob-expand /glob/*/f1
glob-expand /glob/d1/f1
glob-expand /glob/d1
glob-expand /glob/d1/
glob-expand /glob/*/
glob-expand /glob/nothing*
glob-expand /glob/nothing
glob-expand /glob/{d1,f2,no}
glob-expand /glob/{f,d}[12]
glob-expand /glob/.*
glob-expand "/glob/st\\*r"
glob-expand "/glob\\ a"
glob-expand "/glob a"
glob-expand /glob/ld/*
glob-expand /*/d1/*
glob-expand /glob//d1
glob-expand /glob/ln
glob-expand /glob/{}
-glob-expand relative*
realpath /
realpath /glob/../glob/./d1
realpath /glob/ld
realpath /glob/labs/f1
realpath /glob/ld/../f1
-realpath /glob/ln
-realpath /nonexistent
-realpath relative
ln-s loop2 /loop1
ln-s loop1 /loop2
-realpath /loop1
mkdir-p /Windows/System32
touch /Windows/System32/NetKVM.sys
touch /Windows/Foo
case-sensitive-path /windows/system32/netkvm.sys
case-sensitive-path /windows/system32/NoSuchFile
-case-sensitive-path /windows/system33/netkvm.sys
case-sensitive-path /
case-sensitive-path /windows/
case-sensitive-path //windows//system32
case-sensitive-path /nothing
ln-s Windows /Win
case-sensitive-path /win
case-sensitive-path /win/system32
-case-sensitive-path /windows/../windows
-case-sensitive-path /windows/.
-case-sensitive-path relative
# temporary names
-mkdtemp /tmpXXXXX
-mkdtemp /nonexistent/XXXXXX
-mkdtemp relativeXXXXXX
-mktemp /XXXXX
-mktemp /XXXXXX.txt
-mktemp /nonexistent/XXXXXX
# listings
-ll /nonexistent
-ll relative
-llz /nonexistent
utimens /glob/d1 1000000000 0 1000000000 0
utimens /glob/d1/f1 1000000000 0 1000000000 0
utimens /glob/d1/x 1000000000 0 1000000000 0
utimens /glob 1000000000 0 1000000000 0
ll /glob/d1
llz /glob/d1
