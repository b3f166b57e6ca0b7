# SPDX-License-Identifier: Apache-2.0
# disks: ldm:1 ldm:2 64M
# modules: dm_mod
# Dynamic disks of Windows: their volumes are made when the client launches.
run
feature-available ldm
list-ldm-volumes
list-ldm-partitions
list-filesystems
ldmtool-scan
ldmtool-scan-devices "/dev/sda /dev/sdb"
ldmtool-scan-devices /dev/sda
ldmtool-scan-devices /dev/sdc
ldmtool-scan-devices ""
-ldmtool-scan-devices /dev/nonesuch
ldmtool-diskgroup-name 06495a84-fbfd-11e1-8cf9-52540061f5db
ldmtool-diskgroup-volumes 06495a84-fbfd-11e1-8cf9-52540061f5db
ldmtool-diskgroup-disks 06495a84-fbfd-11e1-8cf9-52540061f5db
-ldmtool-diskgroup-name 06495a84-fbfd-11e1-8cf9-52540061f5dc
-ldmtool-diskgroup-volumes none
-ldmtool-diskgroup-disks -h
ldmtool-volume-type 06495a84-fbfd-11e1-8cf9-52540061f5db Volume1
ldmtool-volume-type 06495a84-fbfd-11e1-8cf9-52540061f5db Volume2
ldmtool-volume-type 06495a84-fbfd-11e1-8cf9-52540061f5db Stripe1
ldmtool-volume-type 06495a84-fbfd-11e1-8cf9-52540061f5db Mirror1
-ldmtool-volume-type 06495a84-fbfd-11e1-8cf9-52540061f5db none
-ldmtool-volume-type 06495a84-fbfd-11e1-8cf9-52540061f5db -h
-ldmtool-volume-type none Volume1
ldmtool-volume-hint 06495a84-fbfd-11e1-8cf9-52540061f5db Volume1
ldmtool-volume-hint 06495a84-fbfd-11e1-8cf9-52540061f5db Volume2
-ldmtool-volume-hint 06495a84-fbfd-11e1-8cf9-52540061f5db none
ldmtool-volume-partitions 06495a84-fbfd-11e1-8cf9-52540061f5db Volume2
ldmtool-volume-partitions 06495a84-fbfd-11e1-8cf9-52540061f5db Mirror1
mkfs ext4 /dev/mapper/ldm_vol_WIN-TEST-Dg0_Volume2 label:spanned
vfs-label /dev/mapper/ldm_vol_WIN-TEST-Dg0_Volume2
mount /dev/mapper/ldm_vol_WIN-TEST-Dg0_Volume2 /
write /file content
cat /file
-ldmtool-remove-all
list-ldm-volumes
umount-all
ldmtool-remove-all
list-ldm-volumes
list-ldm-partitions
ldmtool-remove-all
ldmtool-create-all
ldmtool-create-all
list-ldm-volumes
vfs-label /dev/mapper/ldm_vol_WIN-TEST-Dg0_Volume2
ldmtool-remove-all
# A disk is missing, and a database that lies.
zero-device /dev/sdb
ldmtool-scan
ldmtool-volume-partitions 06495a84-fbfd-11e1-8cf9-52540061f5db Volume2
ldmtool-create-all
list-ldm-volumes
ldmtool-remove-all
debug sh "yes | dd of=/dev/sda bs=512 seek=63506 count=8 iflag=fullblock conv=notrunc 2>/dev/null"
ldmtool-scan
ldmtool-create-all
list-ldm-volumes
