# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 4M
# ext2, ext3, ext4.
run
mke2fs /dev/sda blockscount:20000 blocksize:1024 blockspergroup:8192 bytesperinode:8192 inodesize:256 journalsize:2 label:lab uuid:a3a61220-882b-4f61-89f4-cf24dcc7297d reservedblockspercentage:3 forcecreate:true
set-trace false
tune2fs-l /dev/sda | grep -v -E '^(Filesystem created|Last|Directory Hash|Checksum|Lifetime|Overhead)'
set-trace true
mke2fs /dev/sda numberofinodes:2000 stridesize:4 stripewidth:16 lastmounteddir:/x creatoros:Linux fstype:ext4 usagetype:small uuid:a3a61220-882b-4f61-89f4-cf24dcc7297d
set-trace false
tune2fs-l /dev/sda | grep -E '^(Inode count|Last mounted on|Filesystem OS)'
set-trace true
mke2fs /dev/sda maxonlineresize:100000
mke2fs /dev/sda mmpupdateinterval:3 fstype:ext4
mke2fs /dev/sda lazyitableinit:true
mke2fs /dev/sda lazyjournalinit:true fstype:ext4
mke2fs /dev/sda testfs:true
vfs-type /dev/sda
mke2fs /dev/sda discard:true
mke2fs /dev/sda quotatype:true
mke2fs /dev/sda numberofgroups:16 fstype:ext4 extent:true filetype:true hasjournal:true largefile:true quota:true resizeinode:true sparsesuper:true uninitbg:true
vfs-type /dev/sda
mke2fs /dev/sda fstype:ext2 extent:false filetype:true hasjournal:false largefile:false quota:false resizeinode:false sparsesuper:true
vfs-type /dev/sda
mke2fs /dev/sdb journaldev:true blocksize:1024 uuid:a3a61220-882b-4f61-89f4-cf24dcc7297e
vfs-type /dev/sdb
mke2fs /dev/sda journaldevice:/dev/sdb blocksize:1024
mke2fs /dev/sda writesbandgrouponly:true forcecreate:true
-mke2fs /dev/sda blocksize:-1
-mke2fs /dev/sda blocksize:1000
-mke2fs /dev/sda numberofinodes:-1
-mke2fs /dev/sda reservedblockspercentage:80
-mke2fs /dev/sda journaldevice:/dev/sdz
mke2journal 1024 /dev/sdb
mke2fs-J ext3 1024 /dev/sda /dev/sdb
mke2journal-L 1024 jlabel /dev/sdb
mke2fs-JL ext3 1024 /dev/sda jlabel
mke2journal-U 1024 a3a61220-882b-4f61-89f4-cf24dcc7297e /dev/sdb
mke2fs-JU ext4 1024 /dev/sda a3a61220-882b-4f61-89f4-cf24dcc7297e
-mke2fs-J xfs 1024 /dev/sda /dev/sdb

# Parameters.
mke2fs /dev/sda fstype:ext4 blocksize:1024 uuid:a3a61220-882b-4f61-89f4-cf24dcc7297d
tune2fs /dev/sda force:true maxmountcount:5 mountcount:2 errorbehavior:panic group:100 intervalbetweenchecks:86400 reservedblockspercentage:4 lastmounteddirectory:/foo user:1000
set-trace false
tune2fs-l /dev/sda | grep -v -E '^(Filesystem created|Last|Directory Hash|Checksum|Next|Lifetime)'
set-trace true
tune2fs /dev/sda reservedblockscount:1000 force:false intervalbetweenchecks:0
set-trace false
tune2fs-l /dev/sda | grep -E '^(Reserved|Check interval)'
set-trace true
-tune2fs /dev/sda maxmountcount:-1
-tune2fs /dev/sda mountcount:-1
-tune2fs /dev/sda group:-1
-tune2fs /dev/sda user:-1
-tune2fs /dev/sda intervalbetweenchecks:-1
-tune2fs /dev/sda errorbehavior:nonesuch
-tune2fs /dev/sda reservedblockspercentage:100
-tune2fs /dev/sda reservedblockscount:-1
-tune2fs-l /dev/sdc
set-e2label /dev/sda hello
get-e2label /dev/sda
-set-e2label /dev/sda 0123456789abcdefg
-set-e2label /dev/sdc x
set-e2uuid /dev/sda a3a61220-882b-4f61-89f4-cf24dcc7297f
get-e2uuid /dev/sda
set-e2uuid /dev/sda clear
get-e2uuid /dev/sda
set-e2uuid /dev/sda random
-set-e2uuid /dev/sda nonesuch
get-e2label /dev/sdc
-set-label /dev/sda two words
-set-label /dev/sda twowords
vfs-label /dev/sda
-set-label /dev/sda 0123456789abcdefg
set-uuid /dev/sda a3a61220-882b-4f61-89f4-cf24dcc7297d
vfs-uuid /dev/sda
-set-uuid /dev/sda nonesuch
set-uuid-random /dev/sda
set-uuid /dev/sda a3a61220-882b-4f61-89f4-cf24dcc7297d

# Checking and resizing.
fsck ext4 /dev/sda
fsck ext4 /dev/sdc
e2fsck /dev/sda correct:true
e2fsck /dev/sda forceall:true
-e2fsck /dev/sda
-e2fsck /dev/sda correct:true forceall:true
-e2fsck /dev/sdc correct:true
e2fsck-f /dev/sda
-e2fsck-f /dev/sdc
resize2fs-size /dev/sda 20971520
set-trace false
tune2fs-l /dev/sda | grep '^Block count'
set-trace true
-resize2fs-size /dev/sda 20971521
-resize2fs-size /dev/sda 0
-resize2fs-size /dev/sda -1
-resize2fs-size /dev/sda 20971520000
resize2fs /dev/sda
set-trace false
tune2fs-l /dev/sda | grep '^Block count'
set-trace true
-resize2fs /dev/sdc
vfs-minimum-size /dev/sda
resize2fs-M /dev/sda
e2fsck-f /dev/sda
resize2fs-M /dev/sda
set-trace false
tune2fs-l /dev/sda | grep '^Block count'
set-trace true
zerofree /dev/sda
-zerofree /dev/sdc

# Attributes and generations of files.
mke2fs /dev/sdb fstype:ext4
mount /dev/sdb /
write /f hello
mkdir /d
ln-s f /l
ln-s /etc/passwd /out
get-e2attrs /f
get-e2attrs /d
-get-e2attrs /l
-get-e2attrs /out
-get-e2attrs /none
set-e2attrs /f ai
get-e2attrs /f
-write /f again
set-e2attrs /f i clear:true
set-e2attrs /f a clear:true
get-e2attrs /f
set-e2attrs /f ""
set-e2attrs /f AdSsu
get-e2attrs /f
set-e2attrs /f AdSsu clear:true
get-e2attrs /f
set-e2attrs /d DT
get-e2attrs /d
-set-e2attrs /f T
-set-e2attrs /f aa
-set-e2attrs /f R
-set-e2attrs /f 0
-set-e2attrs /none a
-set-e2attrs /l a
-set-e2generation /f 12345
-get-e2generation /none
umount-all
mke2fs /dev/sdb fstype:ext2
mount /dev/sdb /
write /f hello
set-e2generation /f 12345
get-e2generation /f
set-e2generation /f 4294967295
get-e2generation /f
umount-all
