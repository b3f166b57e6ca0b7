# SPDX-License-Identifier: Apache-2.0
# disks: 96M 96M 96M 96M 96M 96M
# modules: dm_mod dm_crypt md_mod raid1
# Which volumes, groups and physical volumes there are: volumes of all kinds, and states that groups and devices can be
# in.
run
vgcreate VG "/dev/sda /dev/sdb /dev/sdc"
vgcreate vg2 /dev/sdd
lvcreate linear VG 8
lvcreate other vg2 8
debug sh "lvm lvcreate -q -y -i 2 -L 8M -n striped VG >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvcreate -q -y --type mirror -m 1 --mirrorlog core -L 8M -n mirror VG >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvcreate -q -y --type raid1 -m 1 -L 8M -n raid1 VG >/dev/null 2>&1; lvm lvcreate -q -y --type raid0 -i 2 -L 8M -n raid0 VG >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvcreate -q -y --type raid5 -i 2 -L 8M -n raid5 VG >/dev/null 2>&1; udevadm settle"
lvs
lvremove /dev/VG/raid5
lvremove /dev/VG/raid1
lvremove /dev/VG/raid0
lvremove /dev/VG/mirror
lvs

# Snapshots, thin volumes and their snapshots, caches.
debug sh "lvm lvcreate -q -y -s -n snap -L 4M VG/linear >/dev/null 2>&1; lvm lvcreate -q -y -ky -s -n skipped-snap -L 4M VG/linear >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvcreate -q -y --type thin-pool -L 16M -n pool VG >/dev/null 2>&1; lvm lvcreate -q -y -V 64M -T VG/pool -n thin >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvcreate -q -y -s -n skipped VG/thin >/dev/null 2>&1; lvm lvcreate -q -y -kn -s -n not-skipped VG/thin >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvremove -q -y VG/snap VG/skipped-snap VG/skipped VG/not-skipped VG/thin VG/pool >/dev/null 2>&1; udevadm settle"
debug sh "lvm lvcreate -q -y --type cache-pool -L 8M -n fast VG >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvconvert -q -y --type cache --cachepool VG/fast VG/striped >/dev/null 2>&1; udevadm settle"
lvs
debug sh "lvm lvconvert -q -y --uncache VG/striped >/dev/null 2>&1; udevadm settle"
debug sh "lvm lvcreate -q -y -L 8M -n fast VG >/dev/null 2>&1; lvm lvconvert -q -y --type cache --cachevol VG/fast VG/striped >/dev/null 2>&1; udevadm settle"
lvs
vgs
pvs
debug sh "lvm lvconvert -q -y --uncache VG/striped >/dev/null 2>&1; udevadm settle"
lvs

# Moved, renamed, exported, with tags and fixed numbers, hidden.
debug sh "lvm pvmove -q $(lvm vgs --noheadings -o pv_name VG 2>/dev/null | head -n 1) >/dev/null 2>&1; udevadm settle"
lvs
lvrename /dev/VG/striped /dev/VG/a-b
vgrename vg2 A
lvs
vgs
debug sh "lvm lvchange -q --addtag x VG/a-b >/dev/null 2>&1; lvm lvchange -q -ky VG/linear >/dev/null 2>&1"
lvs
vg-activate false A
debug sh "lvm vgexport -q A >/dev/null 2>&1"
vgs
lvs
pvs
debug sh "lvm vgimport -q A >/dev/null 2>&1"
vgs
lvs
lvm-set-filter "/dev/sda /dev/sdb"
vgs
lvs
pvs
lvm-clear-filter
lvm-remove-all

# Many changes: the text of the metadata goes around its area.
pvcreate /dev/sda
debug sh "d=$(lvm pvs --noheadings -o pv_name 2>/dev/null); lvm pvremove -q $d >/dev/null 2>&1; lvm pvcreate -q --metadatasize 32k --dataalignment 4k $d >/dev/null 2>&1; lvm vgcreate -q -s 64k ring $d >/dev/null 2>&1; t=$(head -c 1000 /dev/zero | tr '\\\\0' x); for i in a b c d; do lvm vgchange -q --addtag $i$t ring >/dev/null 2>&1; done; for i in 1 2 3 4 5 6 7 8 9; do lvm lvcreate -q -y -an -Zn -Wn -l 1 -n v$i ring >/dev/null 2>&1; done"
lvs
debug sh "lvm lvcreate -q -y -an -Zn -Wn -l 1 -n last ring >/dev/null 2>&1"
lvs
debug sh "lvm lvremove -q -y ring/v1 ring/v3 ring/v5 >/dev/null 2>&1"
lvs
lvm-remove-all

# On what is encrypted, and on an array; below an array that has its superblock at the end.
luks-format /dev/sdb 0
key
luks-open /dev/sdb open
key
vgcreate inside "/dev/mapper/open /dev/sdc"
lvcreate lv inside 8
pvs
vgs
lvs
vg-activate-all false
luks-close /dev/mapper/open
pvs
vgs
lvs
lvm-remove-all
md-create r1 "/dev/sdd /dev/sde"
vgcreate on-md /dev/md127
lvcreate lv on-md 8
pvs
vgs
lvs
vg-activate-all false
md-stop /dev/md127
pvs
lvs

# Of another machine.
vgcreate foreign /dev/sda
lvcreate lv foreign 8
vg-activate-all false
lvs
debug sh "lvm vgchange -q --yes --systemid another foreign >/dev/null 2>&1"
pvs
vgs
lvs
