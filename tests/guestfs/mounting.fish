# SPDX-License-Identifier: Apache-2.0
# disks: 128M 64M 1M
# What is mounted, where and how; mount points; what the daemon says of itself.
run
ping-daemon
echo-daemon "one two three"
-echo-daemon ""
sleep 0
nr-devices
list-devices
list-disk-labels
-list-9p
available-all-groups
filesystem-available ext4
filesystem-available tmpfs
feature-available "augeas realpath"
-feature-available nonsense
filesystem-available nonsense
-filesystem-available "with space"
-filesystem-available ""
part-disk /dev/sda mbr
mkfs ext4 /dev/sda1
mkfs ext4 /dev/sdb
is-whole-device /dev/sda
is-whole-device /dev/sda1
-is-whole-device /dev/sdz
-is-whole-device /dev/null
lvs
# options
-mount-options "" /dev/sdz /
-mount-options nonsense /dev/sda1 /
mount-options "noatime,ro" /dev/sda1 /
-touch /x
mounts
mountpoints
remount / rw:true
touch /x
remount / rw:false
-touch /y
-remount /
-remount /nonexistent rw:true
-remount relative rw:true
-remount ""
umount-all
mount-options "" /dev/sda1 /
mkdir /sub
touch /file
-remount /sub rw:true
-remount /file rw:true
umount /dev/sda1
-mount-vfs "" xfs /dev/sda1 /
-mount-vfs "" nonsense /dev/sda1 /
-umount /
-mount-vfs "" "" /dev/sda1 /
-umount /
mount-vfs "nodev" ext4 /dev/sda1 /
mount-vfs ro ext4 /dev/sdb /sub
mountpoints
-mount-vfs ro ext4 /dev/sdb /nonexistent
-mount-vfs ro ext4 /dev/sdb /file
-mount-vfs ro ext4 /dev/sdb relative
-touch /sub/y
remount /sub rw:true
touch /sub/y
umount-all
mounts
umount-all
mounts
# mount points
mkmountpoint /first
mkmountpoint /second
-mkmountpoint /first
-mkmountpoint relative
-mkmountpoint /nonexistent/sub
-mkmountpoint ""
mount /dev/sda1 /first
mount-ro /dev/sdb /second
mountpoints
-touch /first/touched
-rmmountpoint /first
umount /first
rmmountpoint /first
-rmmountpoint /first
-rmmountpoint relative
umount-all
rmmountpoint /second
# a filesystem in a file
mount /dev/sda1 /
touch /img
truncate-size /img 20000000
-mount-loop /img /sub
copy-device-to-file /dev/sdb /img
mount-loop /img /sub
ls /sub
set-trace false
df | awk '{print $6}' | grep sysroot | sort
set-trace true
mounts
-mount-loop /img /nonexistent
-mount-loop /nonexistent /sub
-mount-loop /file /sub
-mount-loop /sub /sub
-mount-loop relative /sub
umount /sub
mklost-and-found /sub
-mklost-and-found /
ls /sub
-mklost-and-found /nonexistent
-mklost-and-found /file
umount-all
-mount /dev/sdc /
-mount /dev/sdz /
-mount /dev/sda1 relative
-mount /dev/sda1 ""
-umount-all
-mount btrfsvol:/dev/sda1/x /
-mount btrfsvol: /
-mount /dev/null /
-umount /
-umount /dev/sda1
-umount /nonexistent
-umount relative
mount /dev/sda1 /
-umount /dev/sda1 force:true
mount /dev/sda1 /
umount / lazyunmount:true
# sfdisk with one list
part-disk /dev/sdc mbr
-sfdiskM /dev/sdc ",1 ,"
-sfdiskM /dev/sdc "bogus"
# into the appliance
!echo content > upload
debug-upload upload file 0600
-debug-upload upload nonexistent/file 0600
-debug-upload upload file -1
debug sh "cat /tmp/file"
