# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 64M
# Questions about LVM, the device mapper and RAID. What makes volumes and arrays needs the kernel's device mapper
# and md: without, what is asked about them fails.
run
pvs
vgs
lvs
pvs-full
vgs-full
lvs-full
lvm-remove-all
lvm-set-filter "/dev/sda /dev/sdb"
lvm-clear-filter
vg-activate-all true
vg-activate-all false
pvchange-uuid-all
vgchange-uuid-all
list-ldm-volumes
list-ldm-partitions
list-dm-devices
list-md-devices
is-lv /dev/sda
-is-lv /dev/nonesuch
-lvm-canonical-lv-name /dev/sda
-lvm-canonical-lv-name /dev/vg-1/none
-lvm-canonical-lv-name vg-1/lv-1
-pvuuid /dev/sdc
-lvuuid /dev/sda
-vguuid none
-vguuid ""
-vgpvuuids none
-vglvuuids none
-lvrename /dev/none/none /dev/none/x
-vgrename none other
vgscan
lvm-scan false
-lvm-scan true
-pvcreate /dev/sda
-pvcreate /dev/sdb
-vgcreate vg-1 "/dev/sda /dev/sdb"
pvs
vgs
lvs
pvs-full
vgs-full
lvs-full
pvresize /dev/sda
pvchange-uuid /dev/sdb
vgchange-uuid vg-1
-lvcreate lv-1 vg-1 16
-lvcreate lv2 vg-1 16
-is-lv /dev/vg-1/lv-1
-is-lv /dev/mapper/vg--1-lv2
-lvm-canonical-lv-name /dev/mapper/vg--1-lv2
-lvm-canonical-lv-name /dev/vg-1/lv-1
-lvm-canonical-lv-name /dev/dm-0
-lvrename /dev/vg-1/lv2 /dev/vg-1/lv3
-vgrename vg-1 vg2
list-filesystems
-mkfs ext4 /dev/vg2/lv-1 label:onlv
-findfs-label onlv
-vfs-type /dev/vg2/lv-1
-lvm-clear-filter
lvm-set-filter /dev/sdc
pvs
lvm-clear-filter
pvs
-vgremove vg2
-vgremove vg-1
-pvremove /dev/sda
lvm-remove-all
pvs
vgs
-md-create md0 "/dev/sdc /dev/sdd" level:raid1
list-md-devices
list-filesystems
