# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 64M
# modules: dm_mod
# LVM: which volumes are active, which devices are seen, snapshots and thin volumes.
run
part-disk /dev/sda mbr
vgcreate VG "/dev/sda1 /dev/sdb"
vgcreate vg2 /dev/sdc
lvcreate lv1 VG 24
lvcreate lv-2 VG 8
lvcreate in-two vg2 8
mkfs ext4 /dev/VG/lv1 label:one
mount /dev/VG/lv1 /
write /file content
-vg-activate-all false
-lvm-set-filter /dev/sdc
vgs
cat /file
umount /dev/VG/lv1

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
