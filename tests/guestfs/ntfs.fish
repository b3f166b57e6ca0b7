# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 1M
# NTFS. Runs in an empty directory of its own.
run
mkfs ntfs /dev/sda label:lab
vfs-type /dev/sda
vfs-label /dev/sda
ntfs-3g-probe false /dev/sda
ntfs-3g-probe true /dev/sda
ntfs-3g-probe true /dev/sdc
set-label /dev/sda other
vfs-label /dev/sda
set-label /dev/sda läbel
vfs-label /dev/sda
-set-uuid /dev/sda 0123456789abcdef
-set-uuid-random /dev/sda
vfs-minimum-size /dev/sda
ntfsclone-out /dev/sda image
ntfsclone-in image /dev/sdb
vfs-label /dev/sdb
ntfsclone-out /dev/sda image metadataonly:true ignorefscheck:true preservetimestamps:true force:true
ntfsclone-out /dev/sda image rescue:true
-ntfsclone-out /dev/sdc nothing
-ntfsclone-in /etc/passwd /dev/sdc
ntfscat-i /dev/sda 3 volume
ntfscat-i /dev/sda 10 upcase
!sha256sum upcase
-ntfscat-i /dev/sda -1 nothing
-ntfscat-i /dev/sda 1000 nothing
-ntfscat-i /dev/sdc 0 nothing
ntfsresize /dev/sda size:33554432
-ntfsresize /dev/sda
ntfsresize /dev/sda force:true
-ntfsresize /dev/sda size:-1 force:true
-ntfsresize /dev/sda size:0 force:true
-ntfsresize /dev/sda size:1000 force:true
-ntfsresize /dev/sda size:1000000000 force:true
-ntfsresize-size /dev/sda 41943040
-ntfsresize /dev/sdc
ntfsfix /dev/sda
ntfsfix /dev/sda clearbadsectors:true
-ntfsfix /dev/sdc
mount /dev/sdb /
write /file hello
-ntfsfix /dev/sdb
-set-label /dev/sdb x
umount-all
vfs-minimum-size /dev/sdb
