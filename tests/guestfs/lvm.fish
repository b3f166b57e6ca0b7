# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 64M
# modules: dm_mod
# LVM: everything from physical volumes to snapshots and thin volumes, on sound disks and on others.
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
mount /dev/VG/lv1 /
write /file content
-vg-activate-all false
-lvm-set-filter /dev/sdc
vgs
cat /file
umount /dev/VG/lv1
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

# Activation.
vg-activate false VG
lvs-full
list-dm-devices
list-filesystems
vg-activate true "VG vg2"
-vg-activate true none
-vg-activate true -x
vg-activate-all false
lvm-scan true
is-lv /dev/VG/lv1
-vgchange-uuid VG
vg-activate-all false
vgchange-uuid VG
vgchange-uuid-all
pvchange-uuid-all
vg-activate-all true
vfs-label /dev/VG/lv1

# Filters.
lvm-set-filter /dev/sdc
pvs
vgs
lvs
lvm-set-filter /dev/sda
pvs
lvm-set-filter "/dev/sda1 /dev/sdb"
vgs
lvs
-lvm-set-filter /dev/nonesuch
-lvm-set-filter VG
lvm-clear-filter
vgs

# Tags, snapshots and thin volumes.
debug sh "lvm lvchange -q --addtag a+b=c:d --addtag z VG/lv1 >/dev/null 2>&1; lvm vgchange -q --addtag group VG >/dev/null 2>&1"
debug sh "lvm lvcreate -q -s -n snap -L 8M VG/lv1 >/dev/null 2>&1; lvm lvcreate -q --type thin-pool -L 16M -n pool VG >/dev/null 2>&1; lvm lvcreate -q -V 64M -T VG/pool -n thin >/dev/null 2>&1; udevadm settle"
lvs-full
vfs-label /dev/VG/snap
mkfs ext4 /dev/VG/thin label:thin
vfs-label /dev/VG/thin
list-filesystems
lvremove /dev/VG/snap
lvremove /dev/VG/thin
lvs

# Removed one by one.
vg-activate-all false
-lvremove /dev/VG
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
