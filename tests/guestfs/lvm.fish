# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 64M
# modules: dm_mod
# LVM: physical volumes, groups and volumes, made, resized, removed.
run
# Nothing is there.
pvs
vgs
lvs
pvs-full
vgs-full
lvs-full
lvm-remove-all
vg-activate-all true
vg-activate-all false
pvchange-uuid-all
vgchange-uuid-all
lvm-set-filter /dev/sda
lvm-clear-filter
feature-available lvm2

# Physical volumes.
part-disk /dev/sda mbr
pvcreate /dev/sda1
mkfs ext4 /dev/sdb
pvcreate /dev/sdb
vfs-type /dev/sdb
pvcreate /dev/sdc
-pvcreate /dev/nonesuch
-pvcreate sda
pvs
pvresize-size /dev/sdc 33554432
pvs-full
pvresize /dev/sdc
-pvresize-size /dev/sdc -1
-pvresize /dev/sdd
pvchange-uuid /dev/sdc
pvremove /dev/sdc

# Groups.
vgcreate VG "/dev/sda1 /dev/sdb"
-vgcreate VG /dev/sdc
-vgcreate -x /dev/sdc
-vgcreate "" /dev/sdc
-vgcreate E ""
vgcreate vg-two /dev/sdc
-pvcreate /dev/sda1
-pvremove /dev/sda1
vgs
vgs-full
pvs-full
set-trace false
vgmeta VG | grep -c "physical_volumes"
set-trace true
-vgmeta ""

# Volumes.
lvcreate lv1 VG 16
lvcreate lv-2 VG 8
lvcreate in-two vg-two 8
-lvcreate lv1 VG 8
-lvcreate x VG 0
-lvcreate x VG 100000
-lvcreate x none 8
-lvcreate -h VG 8
lvcreate-free lv3 VG 50
-lvcreate-free x VG 101
lvs
lvs-full
list-filesystems
mkfs ext4 /dev/VG/lv1 label:one
vfs-label /dev/VG/lv1
lvresize /dev/VG/lv1 24
-lvresize /dev/VG/lv1 24
lvresize /dev/mapper/VG-lv--2 4
lvresize-free /dev/VG/lv-2 10
-lvresize-free /dev/VG/lv-2 101
-lvresize /dev/sda 8
lvrename /dev/VG/lv3 /dev/VG/lv4
vgrename vg-two vg2
lvremove /dev/VG/lv4
-lvremove /dev/sda
-lvremove /dev/VG/none
lvs
# What was in the place of a new volume is gone.
lvcreate again VG 8
mkfs ext4 /dev/VG/again
lvremove /dev/VG/again
lvcreate again VG 8
vfs-type /dev/VG/again
lvremove /dev/VG/again

# Removed one by one.
vgremove VG
vgremove vg2
-vgremove none
-vgremove ""
vgs
pvs
pvremove /dev/sda1
pvs
lvm-remove-all
pvs
