# SPDX-License-Identifier: Apache-2.0
# disks: 400M 64M
# XFS: where the kernel has it, mounted too.
run
mkfs xfs /dev/sda label:foo
set-uuid /dev/sda a3a61220-882b-4f61-89f4-cf24dcc7297d
blkid /dev/sda
set-trace false
xfs-info /dev/sda | grep -v rtextsize
set-trace true
set-label /dev/sda bar
vfs-label /dev/sda
-set-label /dev/sda "two words"
-set-label /dev/sda 0123456789abc
-set-uuid /dev/sda a3a61220-882b-4f61-89f4-cf24dcc7297e
vfs-uuid /dev/sda
set-uuid-random /dev/sda
xfs-admin /dev/sda
xfs-admin /dev/sda extunwritten:true
xfs-admin /dev/sda imgfile:true
xfs-admin /dev/sda v2log:true
xfs-admin /dev/sda projid32bit:true
xfs-admin /dev/sda lazycounter:true
-xfs-admin /dev/sda lazycounter:false
xfs-admin /dev/sda label:both uuid:a3a61220-882b-4f61-89f4-cf24dcc7297d
vfs-label /dev/sda
vfs-uuid /dev/sda
-xfs-admin /dev/sda label:0123456789abc
-xfs-admin /dev/sdb label:x
xfs-repair /dev/sda
xfs-repair /dev/sda nomodify:true
xfs-repair /dev/sda forcelogzero:true noprefetch:true forcegeometry:true maxmem:500 ihashsize:1 bhashsize:100 agstride:2
-xfs-repair /dev/sda maxmem:-1
xfs-repair /dev/sda logdev:/dev/sdb
xfs-repair /dev/sda rtdev:/dev/sdb
xfs-repair /dev/sdb nomodify:true
-xfs-info /dev/sdb
mkfs xfs /dev/sda blocksize:1024
set-trace false
xfs-info /dev/sda | grep -v rtextsize
set-trace true
mkfs xfs /dev/sda
part-init /dev/sdb mbr
mount /dev/sda /
set-trace false
xfs-info / | grep -v rtextsize
xfs-info /dev/sda | grep -v rtextsize
set-trace true
vfs-minimum-size /dev/sda
xfs-growfs /
xfs-growfs / datasec:true logsec:false rtsec:false
xfs-growfs / datasize:102400
-xfs-growfs / datasize:-1
-xfs-growfs / datasize:1000000000
-xfs-growfs / logsize:100
xfs-growfs / logsec:true
-xfs-growfs / rtsec:true
-xfs-growfs / rtsize:100
-xfs-growfs / rtextsize:1
xfs-growfs / maxpct:30
set-trace false
xfs-info / | grep imaxpct
set-trace true
mkdir /x
-xfs-info /x
-xfs-info /none
xfs-repair /dev/sda
-xfs-admin /dev/sda label:x
-set-label /dev/sda x
write /img abc
xfs-repair /img
umount-all
