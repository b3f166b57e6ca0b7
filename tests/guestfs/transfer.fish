# SPDX-License-Identifier: Apache-2.0
# disks: 400M 64M 65M
# filesystems: ext4 xfs btrfs vfat
# Copies between files and devices, base64, compression, attributes. Runs in an empty directory of its own.
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
write /src "0123456789abcdef"
fill 0x5a 3000000 /big
touch /holes
truncate-size /holes 2000000
pwrite /holes "head" 0
pwrite /holes "tail" 1999996

# dd and copy_size
dd /src /dd
cat /dd
dd /src /dev/sdb
pread-device /dev/sdb 20 0
# A copy of the mounted disk would be a second btrfs of the same UUID, which the kernel can confuse.
-dd /dev/sdc /dev/sdb
zero /dev/sdb
dd /big /big2
equal /big /big2
-dd /nonesuch /dd
-dd /dev/sdb /nodir/x
-dd relative /dd
copy-size /src /cs 10
cat /cs
copy-size /src /dev/sdb 16
pread-device /dev/sdb 20 0
copy-size /dev/sdb /cs2 7
cat /cs2
copy-size /src /cs 0
filesize /cs
-copy-size /src /cs 17
filesize /cs
-copy-size /src /cs -1
-copy-size /nonesuch /cs 1
-copy-size /big /dev/sdb 3000001

# file to file
copy-file-to-file /src /f1
cat /f1
copy-file-to-file /src /f1 srcoffset:4 size:4
cat /f1
copy-file-to-file /src /f1 destoffset:3 size:2
hexdump /f1
copy-file-to-file /src /f1 append:true
hexdump /f1
copy-file-to-file /src /f1 append:true destoffset:2 srcoffset:10
hexdump /f1
copy-file-to-file /src /f1 append:false size:0
filesize /f1
copy-file-to-file /holes /h1 sparse:true
equal /holes /h1
copy-file-to-file /holes /h2 sparse:false
equal /holes /h2
touch /zeroes
truncate-size /zeroes 100000
copy-file-to-file /zeroes /h3 sparse:true
filesize /h3
copy-file-to-file /holes /h4 sparse:true srcoffset:1000 destoffset:500 size:1500000
filesize /h4
checksum md5 /h4
copy-file-to-file /src /f1 srcoffset:16
filesize /f1
copy-file-to-file /src /f1 srcoffset:100
filesize /f1
-copy-file-to-file /src /f1 size:17
-copy-file-to-file /src /f1 srcoffset:10 size:7
-copy-file-to-file /src /f1 size:-1
-copy-file-to-file /src /f1 size:-2
-copy-file-to-file /src /f1 srcoffset:-1
-copy-file-to-file /src /f1 destoffset:-1
-copy-file-to-file /nonesuch /f1
-copy-file-to-file /src /nodir/x
-copy-file-to-file / /f1
-copy-file-to-file /src /
-copy-file-to-file src /f1

# devices
copy-file-to-device /src /dev/sdb
pread-device /dev/sdb 20 0
copy-file-to-device /src /dev/sdb destoffset:8 srcoffset:4 size:4
pread-device /dev/sdb 20 0
copy-file-to-device /holes /dev/sdb sparse:true
pread-device /dev/sdb 20 0
-copy-file-to-device /src /dev/sdb append:true
-copy-file-to-device /src /dev/sdb append:false
-copy-file-to-device /src /dev/sdb destoffset:67108860
-copy-file-to-device /src /dev/sdb destoffset:67108865
copy-file-to-device /src /dev/sdb destoffset:67108848
copy-device-to-file /dev/sdb /d1 srcoffset:67108848
cat /d1
copy-device-to-file /dev/sdb /d1 size:4 destoffset:4
hexdump /d1
copy-device-to-file /dev/sdb /d1 size:4 append:true
hexdump /d1
copy-device-to-file /dev/sdb /d2 size:100000 srcoffset:50000 sparse:true
filesize /d2
-copy-device-to-file /dev/sdb /d2 srcoffset:67108865
-copy-device-to-file /dev/sdb /d2 srcoffset:67108860 size:5
copy-device-to-device /dev/sdb /dev/sdb destoffset:1000000 size:4
pread-device /dev/sdb 8 1000000
copy-device-to-device /dev/sdb /dev/sdb srcoffset:1000000 destoffset:2000000 size:4 sparse:true
pread-device /dev/sdb 8 2000000
-copy-device-to-device /dev/sdb /dev/sdb append:true
-copy-device-to-device /dev/sdb /dev/sdb append:false size:4
-copy-device-to-device /dev/sdd /dev/sdb
-copy-device-to-device /src /dev/sdb
-copy-file-to-device /src /dst

# base64
!printf 'aGVsbG8gd29ybGQK' > b64
base64-in b64 /b1
cat /b1
!printf 'aGVs\nbG8g\n\nd29y\nbGQK\n' > b64
base64-in b64 /b1
cat /b1
!printf 'aGVsbG8' > b64
-base64-in b64 /b2
!printf 'aGVs*G8g' > b64
-base64-in b64 /b2
!printf '' > b64
base64-in b64 /b3
filesize /b3
-base64-in b64 /nodir/b3
-base64-in b64 /
base64-out /src out64
!cat out64
base64-out /b3 out64
!wc -c < out64
fill-pattern "abcdefghij" 200 /pattern
base64-out /pattern out64
!cat out64
base64-out /big out64
!md5sum < out64
-base64-out /nonesuch out64
-base64-out / out64

# compression
compress-out gzip /big out.gz
!gzip -dc < out.gz | md5sum
compress-out gzip /big out.gz level:1
!gzip -dc < out.gz | md5sum
compress-out gzip /big out.gz level:9
!gzip -dc < out.gz | md5sum
compress-out bzip2 /big out.bz2 level:3
!bzip2 -dc < out.bz2 | md5sum
compress-out xz /big out.xz level:0
!xz -dc < out.xz | md5sum
compress-out lzop /big out.lzo
!lzop -dc < out.lzo | md5sum
-compress-out zstd /big out.zst level:3
-compress-out lzma /big out.lzma
-compress-out nonesuch /big out.x
-compress-out gzip /big out.gz level:10
-compress-out gzip /big out.gz level:-1
-compress-out bzip2 /big out.gz level:0
-compress-out xz /big out.gz level:10
-compress-out gzip /nonesuch out.gz
-compress-out gzip / out.gz
zero-device /dev/sdb
compress-device-out gzip /dev/sdb out.gz
!gzip -dc < out.gz | md5sum
compress-device-out xz /dev/sdb out.xz level:1
!xz -dc < out.xz | md5sum
-compress-device-out gzip /dev/sdd out.gz
-compress-device-out gzip /src out.gz

# attributes
touch /a
touch /b
chmod 04751 /a
chown 12 34 /a
setxattr user.one first 5 /a
setxattr user.two second 6 /a
copy-attributes /a /b
set-trace false
lstatns /b | grep -E '^st_(mode|uid|gid)'
set-trace true
copy-attributes /a /b mode:true
set-trace false
lstatns /b | grep -E '^st_(mode|uid|gid)'
set-trace true
copy-attributes /a /b ownership:true
set-trace false
lstatns /b | grep -E '^st_(mode|uid|gid)'
set-trace true
copy-attributes /a /b xattributes:true
lgetxattrs /b
touch /c
setxattr user.own mine 4 /c
setxattr user.one other 5 /c
copy-attributes /a /c all:true
set-trace false
lstatns /c | grep -E '^st_(mode|uid|gid)'
set-trace true
lgetxattrs /c
touch /d
copy-attributes /a /d all:true mode:false ownership:false
set-trace false
lstatns /d | grep -E '^st_(mode|uid|gid)'
set-trace true
lgetxattrs /d
mkdir /dir
copy-attributes /a /dir mode:true ownership:true
set-trace false
lstatns /dir | grep -E '^st_(mode|uid|gid)'
set-trace true
ln-s a /link
touch /e
copy-attributes /link /e all:true
set-trace false
lstatns /e | grep -E '^st_(mode|uid|gid)'
set-trace true
-copy-attributes /nonesuch /b all:true
-copy-attributes /a /nonesuch all:true
-copy-attributes /a /nonesuch
