# SPDX-License-Identifier: Apache-2.0
# disks: 64M 400M 128M 64M
# What is on devices, of every type that the programs can make; labels and UUIDs; finding by them.
run
list-filesystems
vfs-type /dev/sda
vfs-label /dev/sda
vfs-uuid /dev/sda
blkid /dev/sda
-vfs-minimum-size /dev/sda
-set-label /dev/sda x
-set-uuid /dev/sda a3a61220-882b-4f61-89f4-cf24dcc7297d
-set-uuid-random /dev/sda
-vfs-type /dev/null
-vfs-type /dev/sdz
-vfs-type nonesuch
-findfs-label nonesuch
-findfs-uuid nonesuch
-findfs-uuid ""

# Partitions: an extended one and those of dynamic disks hold no filesystems.
part-init /dev/sda mbr
part-add /dev/sda p 2048 10240
part-add /dev/sda e 10241 60000
part-add /dev/sda l 12289 30000
part-add /dev/sda l 32769 50000
part-add /dev/sda p 60001 80000
part-set-mbr-id /dev/sda 3 0x42
list-filesystems
vfs-type /dev/sda2
mkfs ext2 /dev/sda1 label:one
mkfs ext4 /dev/sda6 label:two
set-uuid /dev/sda1 a3a61220-882b-4f61-89f4-cf24dcc7297d
list-filesystems
findfs-label two
findfs-uuid a3a61220-882b-4f61-89f4-cf24dcc7297d
part-init /dev/sda gpt
part-add /dev/sda p 2048 10240
part-add /dev/sda p 12288 20480
part-add /dev/sda p 22528 30000
part-set-gpt-type /dev/sda 2 E3C9E316-0B5C-4DB8-817D-F92DF00215AE
part-set-gpt-type /dev/sda 3 AF9B60A0-1431-4F62-BC68-3311714A69AD
list-filesystems

# One type after the other on the same device: nothing of the one before is left.
mkfs ext3 /dev/sdc label:lab
vfs-type /dev/sdc
mkfs vfat /dev/sdc label:LAB
vfs-type /dev/sdc
vfs-label /dev/sdc
mkfs msdos /dev/sdc
vfs-type /dev/sdc
mkfs fat /dev/sdc
vfs-type /dev/sdc
mkfs ntfs /dev/sdc label:lab
vfs-type /dev/sdc
vfs-label /dev/sdc
mkfs btrfs /dev/sdc label:lab
vfs-type /dev/sdc
vfs-label /dev/sdc
mkfs f2fs /dev/sdc label:lab
vfs-type /dev/sdc
vfs-label /dev/sdc
-set-label /dev/sdc other
-set-uuid /dev/sdc a3a61220-882b-4f61-89f4-cf24dcc7297d
-vfs-minimum-size /dev/sdc
mkfs minix /dev/sdc
vfs-type /dev/sdc
blkid /dev/sdc
-mkfs minix /dev/sdc label:lab
mkfs exfat /dev/sdc
vfs-type /dev/sdc
mkfs bfs /dev/sdc
vfs-type /dev/sdc
-mkfs nonesuch /dev/sdc
-mkfs "" /dev/sdc
-mkfs ../ext4 /dev/sdc

# swap
mkswap /dev/sdd label:swaplabel uuid:a3a61220-882b-4f61-89f4-cf24dcc7297d
blkid /dev/sdd
set-label /dev/sdd other
vfs-label /dev/sdd
-set-label /dev/sdd 0123456789abcdefg
set-uuid /dev/sdd a3a61220-882b-4f61-89f4-cf24dcc7297e
vfs-uuid /dev/sdd
set-uuid-random /dev/sdd
-vfs-minimum-size /dev/sdd
list-filesystems

# btrfs: subvolumes are mountables; that which is mounted by default is the device.
mkfs btrfs /dev/sdc label:lab
set-uuid /dev/sdc a3a61220-882b-4f61-89f4-cf24dcc7297f
vfs-uuid /dev/sdc
set-uuid-random /dev/sdc
set-label /dev/sdc other
vfs-label /dev/sdc
mount /dev/sdc /
-btrfs-subvolume-create /one
mkdir-p /dir
-btrfs-subvolume-create /dir/two
umount-all
list-filesystems
-vfs-type btrfsvol:/dev/sdc/one
-vfs-type btrfsvol:/dev/sdc/none
-set-label btrfsvol:/dev/sdc/one third
-vfs-label btrfsvol:/dev/sdc/dir/two
-mount btrfsvol:/dev/sdc/one /
-vfs-minimum-size /dev/sdc
umount-all

# Sizes of blocks and what else mkfs can be told.
mkfs ext4 /dev/sdc blocksize:2048 inode:512 features:^has_journal label:abc
vfs-type /dev/sdc
-mkfs ext4 /dev/sdc blocksize:0
-mkfs ext4 /dev/sdc blocksize:3000
-mkfs ext4 /dev/sdc inode:0
-mkfs ext4 /dev/sdc features:nonesuch
-mkfs ext4 /dev/sdc sectorsize:512
-mkfs vfat /dev/sdc inode:256
-mkfs btrfs /dev/sdc blocksize:4096
-mkfs ext4 /dev/sdc label:0123456789abcdefg
mkfs ntfs /dev/sdc blocksize:8192
mkfs-b ext2 4096 /dev/sdc
mkfs-b vfat 4096 /dev/sdc
