# SPDX-License-Identifier: Apache-2.0
# disks: 32M 32M 32M 32M 32M
# modules: dm_mod md_mod raid1 raid456 raid10 raid0
# Arrays of software RAID.
run
available mdadm
list-md-devices
-md-detail /dev/sda
-md-stat /dev/sda
-md-stop /dev/sda
-md-detail /dev/md127
-md-create "" "/dev/sda /dev/sdb"
-md-create "-x" "/dev/sda /dev/sdb"
-md-create x ""
-md-create x "/dev/nonesuch /dev/sda"
-md-create x "/dev/sda /dev/sdb" level:raid7
-md-create x "/dev/sda /dev/sdb" level:-x
-md-create x "/dev/sda /dev/sdb" nrdevices:3
-md-create x "/dev/sda /dev/sdb" nrdevices:-1
-md-create x "/dev/sda /dev/sdb" spare:-1
-md-create x "/dev/sda /dev/sdb" nrdevices:1
-md-create x "/dev/sda /dev/sdb" chunk:1000 level:raid0
-md-create x "/dev/sda /dev/sdb" chunk:-1024 level:raid0
-md-create x "/dev/sda /dev/sdb" chunk:0 level:raid0
-md-create x "/dev/sda /dev/sdb" missingbitmap:1 nrdevices:2
list-md-devices

# RAID 1, the default.
md-create r1 "/dev/sda /dev/sdb"
list-md-devices
md-stat /dev/md127
set-trace false
md-detail /dev/md127 | sed "s/^uuid: .*/uuid: N/"
set-trace true
is-whole-device /dev/md127
list-filesystems
mkfs ext4 /dev/md127 label:onmd
mount /dev/md127 /
write /file content
mounts
-md-stop /dev/md127
umount-all
findfs-label onmd
list-filesystems
vfs-type /dev/sda
md-stop /dev/md127
-md-stop /dev/md127
list-md-devices
list-filesystems

# Degraded, with spares, on partitions.
wipefs /dev/sda
wipefs /dev/sdb
md-create r1 "/dev/sdb" missingbitmap:2
md-stat /dev/md127
md-stop /dev/md127
wipefs /dev/sdb
md-create r5 "/dev/sda /dev/sdb /dev/sdc" nrdevices:2 spare:1 level:mirror
md-stat /dev/md127
md-stop /dev/md127
wipefs /dev/sda
wipefs /dev/sdb
wipefs /dev/sdc
part-disk /dev/sda mbr
part-disk /dev/sdb gpt
part-disk /dev/sdc gpt
md-create r5 "/dev/sda1 /dev/sdb1 /dev/sdc1" level:raid5 chunk:65536 missingbitmap:8
md-stat /dev/md127
set-trace false
md-detail /dev/md127 | grep -E "^(level|devices|metadata)"
set-trace true
blockdev-getsize64 /dev/md127
part-disk /dev/md127 gpt
list-partitions
list-filesystems
part-to-dev /dev/md127p1
md-stop /dev/md127
list-partitions

# Two at once, and other levels.
wipefs /dev/sda
wipefs /dev/sdb
wipefs /dev/sdc
md-create stripe "/dev/sda /dev/sdb" level:raid0 chunk:1048576
md-create ten "/dev/sdc /dev/sdd" level:raid10
list-md-devices
md-stat /dev/md127
md-stat /dev/md126
set-trace false
md-detail /dev/md127 | grep -E "^(level|devices|metadata)"
set-trace true
set-trace false
md-detail /dev/md126 | grep -E "^(level|devices|metadata)"
set-trace true
blockdev-getsize64 /dev/md127
blockdev-getsize64 /dev/md126
-md-create again "/dev/sda /dev/sde"
-md-create ten "/dev/sde" missingbitmap:1
mkfs ext2 /dev/md127
list-filesystems
md-stop /dev/md126
md-stop /dev/md127
list-md-devices

# A superblock that lies.
pwrite-device /dev/sdc XXXXXXXXXXXXXXXX 4144
vfs-type /dev/sdc
-md-detail /dev/sdc
