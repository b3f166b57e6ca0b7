# SPDX-License-Identifier: Apache-2.0
# disks: 1G 1G 1G
# btrfs: made, on one device and on several, seeded, checked, rescued; its subvolumes, quotas, scrubs, balances.
run
-mkfs-btrfs ""
mkfs-btrfs /dev/sda allocstart:0
-mkfs-btrfs /dev/sda bytecount:-1
-mkfs-btrfs /dev/sda bytecount:0
mkfs-btrfs /dev/sda bytecount:268435456
-mkfs-btrfs /dev/sda datatype:nonesuch
mkfs-btrfs /dev/sda datatype:single
-mkfs-btrfs /dev/sda metadata:nonesuch
mkfs-btrfs /dev/sda metadata:single
mkfs-btrfs /dev/sda leafsize:16384
-mkfs-btrfs /dev/sda leafsize:1000
mkfs-btrfs /dev/sda nodesize:32768
-mkfs-btrfs /dev/sda nodesize:-1
-mkfs-btrfs /dev/sda sectorsize:1000
-mkfs-btrfs /dev/sda label:-x bytecount:1000
mkfs-btrfs /dev/sda sectorsize:4096 label:lab
vfs-label /dev/sda

# Subvolumes
mount /dev/sda /
btrfs-subvolume-list /
btrfs-subvolume-create /sub
-btrfs-subvolume-create /sub
-btrfs-subvolume-create /none/sub
-btrfs-subvolume-create /
btrfs-subvolume-create /sub/child
mkdir /sub/dir
btrfs-subvolume-create /sub/dir/-x
mkdir /dir
btrfs-subvolume-snapshot /sub /snap ro:true
btrfs-subvolume-snapshot /sub/ /dir
btrfs-subvolume-snapshot / /dir/top
-btrfs-subvolume-snapshot /dir /dir2
-btrfs-subvolume-snapshot /sub /none/snap
-btrfs-subvolume-snapshot /none /snap2
-touch /snap/file
touch /dir/sub/file
btrfs-subvolume-list /
btrfs-subvolume-list /sub
btrfs-subvolume-list /dir
btrfs-subvolume-list /dev/sda
btrfs-subvolume-list btrfsvol:/dev/sda/sub
-btrfs-subvolume-list btrfsvol:/dev/sda/none
-btrfs-subvolume-list /none
list-filesystems
-btrfs-subvolume-show /dir
-btrfs-subvolume-show /none
set-trace false
btrfs-subvolume-show / | grep -v -e UUID: -e ' time:' -e ^Gen
btrfs-subvolume-show /sub | grep -v -e UUID: -e ' time:' -e ^Gen
btrfs-subvolume-show /snap | grep -v -e UUID: -e ' time:' -e ^Gen
btrfs-subvolume-show /dir/sub | grep -v -e ^Gen -e '^Send time' | sed 's/[0-9a-f]\{8\}-[0-9a-f-]*/UUID/; s/: 2[-0-9]* [0-9:]* /: TIME /'
set-trace true
btrfs-subvolume-get-default /
btrfs-subvolume-get-default /dev/sda
btrfs-subvolume-set-default 256 /
-btrfs-subvolume-set-default 999 /
-btrfs-subvolume-set-default -1 /
btrfs-subvolume-get-default /
btrfs-subvolume-get-default btrfsvol:/dev/sda/sub
btrfs-subvolume-list /dev/sda
list-filesystems
-btrfs-subvolume-delete /sub
btrfs-subvolume-set-default 5 /
btrfs-subvolume-delete /dir/sub
btrfs-subvolume-delete /snap
-btrfs-subvolume-delete /snap
-btrfs-subvolume-delete /dir
-btrfs-subvolume-delete /
-btrfs-subvolume-delete /none
btrfs-subvolume-list /

# Quotas
-btrfs-qgroup-show /
-btrfs-qgroup-create 1/100 /sub
-btrfs-qgroup-limit /sub 1000000
-btrfs-quota-rescan /
btrfs-quota-enable / true
btrfs-quota-rescan /
btrfs-qgroup-show /
btrfs-qgroup-show /dir
-btrfs-qgroup-show /none
btrfs-qgroup-limit /sub 10485760
-btrfs-qgroup-limit /sub -1
-btrfs-qgroup-limit /none 1
set-trace false
btrfs-subvolume-show /sub | tail -5
set-trace true
btrfs-qgroup-create 1/100 /sub
btrfs-qgroup-create 1/101 /sub
-btrfs-qgroup-create 1/101 /sub
-btrfs-qgroup-create sub /sub
-btrfs-qgroup-create -- /sub
-btrfs-qgroup-create 70000/1 /sub
btrfs-qgroup-assign 0/256 1/100 /
-btrfs-qgroup-assign 256 1/101 /
-btrfs-qgroup-assign 0/256 2/1 /
-btrfs-qgroup-assign 1/100 0/256 /
btrfs-qgroup-show /
btrfs-subvolume-create /sub2 qgroupid:1/100
btrfs-subvolume-snapshot /sub /snap3 qgroupid:1/101 ro:true
-btrfs-subvolume-create /sub3 qgroupid:none
btrfs-quota-rescan /
btrfs-qgroup-show /
btrfs-qgroup-remove 0/256 1/100 /
-btrfs-qgroup-remove 0/256 1/100 /
-btrfs-qgroup-destroy 1/100 /
-btrfs-qgroup-destroy 1/102 /
-btrfs-qgroup-destroy x /
btrfs-qgroup-show /
umount-all
btrfs-quota-enable /dev/sda false
btrfs-quota-enable btrfsvol:/dev/sda/sub true
btrfs-quota-rescan /dev/sda
mount /dev/sda /
btrfs-qgroup-show /
btrfs-quota-enable /sub false
-btrfs-qgroup-show /

# Upkeep
btrfs-filesystem-sync /
btrfs-filesystem-sync /sub
btrfs-balance-status /
-btrfs-balance-pause /
-btrfs-balance-cancel /
-btrfs-balance-resume /
btrfs-scrub-status /
-btrfs-scrub-cancel /
-btrfs-scrub-resume /
btrfs-filesystem-balance /
fill 1 1000000 /sub/dir/file
fill 1 1000000 /file
btrfs-filesystem-defragment /file
btrfs-filesystem-defragment /sub flush:true compress:lzo
btrfs-filesystem-defragment / flush:false compress:zlib
-btrfs-filesystem-defragment / compress:nonesuch
-btrfs-filesystem-defragment / compress:-
-btrfs-filesystem-defragment /none
btrfs-filesystem-resize / size:805306368
btrfs-filesystem-resize /
-btrfs-filesystem-resize / size:-1
-btrfs-filesystem-resize / size:0
-btrfs-filesystem-resize / size:99999999999999
umount-all
mount /dev/sda /
btrfs-scrub-start /
sleep 1
set-trace false
btrfs-scrub-status / | grep -v -e tree_ -e last_physical -e no_csum
set-trace true
-btrfs-scrub-cancel /
-btrfs-scrub-resume /
-btrfs-fsck /dev/sda
-btrfs-fsck /dev/sda repair:true
umount-all

# Not mounted
btrfs-fsck /dev/sda
btrfs-fsck /dev/sda superblock:1
-btrfs-fsck /dev/sda superblock:-1
-btrfs-fsck /dev/sda superblock:9
btrfs-fsck /dev/sda repair:true
-btrfs-fsck /dev/sdc
btrfs-rescue-super-recover /dev/sda
btrfs-rescue-chunk-recover /dev/sda
pwrite-device /dev/sda damage 65600
vfs-type /dev/sda
btrfs-rescue-super-recover /dev/sda
vfs-type /dev/sda
-btrfs-rescue-super-recover /dev/sdc
-btrfs-rescue-chunk-recover /dev/sdc
btrfstune-enable-extended-inode-refs /dev/sda
btrfstune-enable-skinny-metadata-extent-refs /dev/sda
-btrfstune-enable-extended-inode-refs /dev/sdc
-btrfstune-enable-skinny-metadata-extent-refs /dev/sdc
btrfs-set-seeding /dev/sda true
mount /dev/sda /
-touch /file2
umount-all
btrfs-set-seeding /dev/sda false
btrfstune-seeding /dev/sda true
btrfstune-seeding /dev/sda false
-btrfstune-seeding /dev/sdc true
mkfs ext4 /dev/sdc
mount /dev/sdc /
btrfs-image /dev/sda /image
btrfs-image /dev/sda /image2 compresslevel:9
-btrfs-image "" /image2
-btrfs-image /dev/sda /image3 compresslevel:-1
-btrfs-image /dev/sda /image3 compresslevel:10
-btrfs-image /dev/sdc /image3
-btrfs-image /dev/sda /none/image
-exists /image3
file /image
set-trace false
filesize /image2 | sed 's/[1-9][0-9]\{3,\}/some/'
set-trace true

# Where there is none
-btrfs-subvolume-list /
-btrfs-subvolume-list /dev/sdc
-btrfs-subvolume-get-default /dev/sdc
-btrfs-subvolume-set-default 5 /
-btrfs-subvolume-create /sub
-btrfs-subvolume-delete /lost+found
-btrfs-subvolume-show /
-btrfs-filesystem-sync /
-btrfs-filesystem-resize /
-btrfs-filesystem-balance /
-btrfs-scrub-start /
-btrfs-scrub-status /
-btrfs-balance-status /
-btrfs-quota-enable /dev/sdc true
-btrfs-qgroup-show /
-btrfs-filesystem-show /dev/sdc
-btrfs-filesystem-show /dev/sdb
-btrfs-device-add /dev/sdb /
umount-all

# Several devices
mkfs-btrfs "/dev/sda /dev/sdb" metadata:raid1 datatype:raid1
btrfs-filesystem-show /dev/sda
btrfs-filesystem-show /dev/sdb
mount /dev/sdb /
btrfs-filesystem-show /dev/sda
btrfs-device-add "" /
btrfs-device-add /dev/sdc /
-btrfs-device-add /dev/sdc /
btrfs-filesystem-show /dev/sda
fill 1 10000000 /file
btrfs-filesystem-balance /
btrfs-filesystem-sync /
btrfs-scrub-start /
sleep 1
set-trace false
btrfs-scrub-status / | grep -v -e tree_ -e last_physical -e no_csum
set-trace true
btrfs-device-delete "" /
btrfs-device-delete /dev/sdb /
-btrfs-device-delete /dev/sdb /
-btrfs-device-delete /dev/sdc /
btrfs-filesystem-show /dev/sda
-btrfs-filesystem-show /dev/sdb
btrfs-replace /dev/sdc /dev/sdb /
-btrfs-replace /dev/sdc /dev/sdb /
btrfs-filesystem-show /dev/sdb
checksum md5 /file
umount-all
mount /dev/sda /
checksum md5 /file
umount-all
zero /dev/sdb
-btrfs-filesystem-show /dev/sda

# Begun from another
mkfs-btrfs /dev/sda
btrfs-set-seeding /dev/sda true
mount /dev/sda /
btrfs-device-add /dev/sdb /
btrfs-filesystem-show /dev/sda
btrfs-filesystem-show /dev/sdb
umount-all
btrfs-filesystem-show /dev/sdb
mount /dev/sdb /
touch /file
umount-all

# Last: the distribution's daemon changes what is mounted.
mkfs-btrfs /dev/sda
mount /dev/sda /
-btrfs-set-seeding /dev/sda true
-mkfs-btrfs "/dev/sdb /dev/sda"
