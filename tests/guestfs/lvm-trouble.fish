# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 64M
# modules: dm_mod
# LVM with something wrong: a physical volume that is missing, one that is there twice, two groups of one name, a label
# that lies.
run
# A physical volume is missing.
vgcreate VG "/dev/sda /dev/sdb"
lvcreate lv1 VG 16
lvcreate over-both VG 80
vgcreate vg2 /dev/sdc
lvcreate other vg2 8
vg-activate-all false
zero-device /dev/sdb
pvs
vgs
lvs
vgs-full
list-filesystems
-vg-activate true VG
lvs
vg-activate-all false
-vgremove VG
-vgmeta VG
lvm-remove-all
pvs
vgs
lvs
list-dm-devices

# The same one twice.
vgcreate D /dev/sdc
lvcreate lv D 8
mkfs ext4 /dev/D/lv label:twice
vg-activate-all false
copy-device-to-device /dev/sdc /dev/sdd
vgs
lvm-set-filter /dev/sdd
pvs
vgs
lvs
vfs-label /dev/D/lv
vg-activate-all false
lvm-clear-filter
vg-activate-all false
zero-device /dev/sdd
lvm-remove-all
pvs

# Two groups of one name.
lvm-set-filter /dev/sdc
vgcreate same /dev/sdc
lvm-set-filter /dev/sdd
vgcreate same /dev/sdd
lvm-clear-filter
vgs
pvs
-lvcreate x same 8
lvm-remove-all
vgs
zero-device /dev/sdc
zero-device /dev/sdd

# A label that lies.
debug sh "printf LABELONE | dd of=/dev/sdd bs=512 seek=1 conv=notrunc 2>/dev/null"
pvs
vgs
lvs
pvs-full
lvm-remove-all

