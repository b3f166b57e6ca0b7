#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a User-Mode Linux in which sessions run in namespaces, as on a host whose kernel has dm and md and volumes
# of its own. The disks are a guest's: volumes on a partition (guest.img), volumes on two halves of an array (a.img,
# b.img). Each session prints `BEGIN what`, what it has to say, and `END what: ` with what the kernel has then.
#
# The directory of this script has host.sh, and links to guestfs-novm and guestfsd.

. "$(dirname "$0")/host.sh"
modules raid1
# The host's LVM sees the devices that it is told of.
lvm_on() {
	mkdir -p /tmp/lvm
	printf 'devices { filter = [ "a|^%s$|", "r|.*|" ] use_devicesfile = 0 hints = "none" }\n' "$1" > /tmp/lvm/lvm.conf
	echo 'activation { udev_sync = 0 udev_rules = 0 monitoring = 0 } backup { backup = 0 archive = 0 }' >> /tmp/lvm/lvm.conf
	shift
	DM_DISABLE_UDEV=1 LVM_SYSTEM_DIR=/tmp/lvm lvm "$@" > /dev/null 2>&1 || echo "FAIL lvm $*"
}

# What the kernel has.
has() {
	echo $(dmsetup ls | cut -f1 | sort | grep -v '^No devices found$') $(cd /sys/block && ls -d md* 2>/dev/null)
}

session() {
	what=$1
	shift
	echo "BEGIN $what"
	"$here/guestfs-novm" --instant --guestfsd "$here/guestfsd" -- "$@" 2>&1
	for _ in $(seq 30); do
		[ -n "$(ls -d /sys/block/loop*/loop 2>/dev/null | grep -v "/${kept:-none}/")" ] || break
		sleep 0.3
	done
	echo "END $what: $(has)"
}

truncate -s 64M guest.img a.img b.img
session made guestfish << 'EOT'
add guest.img format:raw
run
part-disk /dev/sda mbr
vgcreate my-vg /dev/sda1
lvcreate root my-vg 24
lvcreate data my-vg 16
mkfs ext4 /dev/my-vg/root label:ROOT
mkfs ext4 /dev/my-vg/data
mount /dev/my-vg/root /
write /hello content
EOT
session array-made guestfish << 'EOT'
add a.img format:raw
add b.img format:raw
run
md-create r "/dev/sda /dev/sdb"
vgcreate on-array /dev/md127
lvcreate root on-array 16
mkfs ext2 /dev/on-array/root
EOT
session df virt-df --format=raw -a guest.img
session filesystems virt-filesystems --format=raw -a guest.img --all -l
session array virt-filesystems --format=raw -a a.img -a b.img
session written guestfish --format=raw -a guest.img << 'EOT'
run
mount /dev/my-vg/root /
cat /hello
write /hello again
EOT
session killed guestfish --format=raw -a guest.img << 'EOT'
run
mount /dev/my-vg/root /
cat /hello
!kill -9 $PPID
EOT

# A second session with the same image, while the first one goes on.
echo "$here/guestfs-novm --instant --guestfsd $here/guestfsd -- guestfish --ro --format=raw -a guest.img run : list-filesystems" > second
session twice guestfish --ro --format=raw -a guest.img << 'EOT'
run
!sh second 2>&1 | sed "s/^/SECOND /"
vfs-label /dev/my-vg/root
EOT

# A group of the host's with the same name.
truncate -s 32M host.img
device=$(losetup --find --show host.img)
kept=${device#/dev/}
lvm_on "$device" pvcreate "$device"
lvm_on "$device" vgcreate my-vg "$device"
lvm_on "$device" lvcreate --yes --wipesignatures n --zero n --size 4M --name root my-vg
lvm_on "$device" lvcreate --yes --wipesignatures n --zero n --size 4M --name other my-vg
dmsetup table > before
session same-name guestfish --format=raw -a guest.img << 'EOT'
run
lvs
list-filesystems
-vg-activate-all true
-vg-activate true my-vg
vg-activate-all false
-mount /dev/my-vg/other /
EOT
dmsetup table | cmp - before || echo 'FAIL: the tables of the host have changed'
session beside guestfish --format=raw -a guest.img -a a.img -a b.img << 'EOT'
run
list-filesystems
lvm-set-filter "/dev/sdb /dev/sdc"
lvm-clear-filter
list-filesystems
EOT
lvm_on "$device" vgchange --activate n my-vg
losetup --detach "$device"

# A group that was copied: the guest's own, which the host has active.
cp guest.img copy.img
device=$(losetup --find --show --partscan copy.img)
kept=${device#/dev/}
lvm_on "${device}p1" vgchange --activate y my-vg
dmsetup table > before
session copied guestfish --format=raw -a guest.img << 'EOT'
run
lvs
list-filesystems
-vg-activate-all true
vg-activate-all false
-lvremove /dev/my-vg/data
-lvcreate more my-vg 4
-vgrename my-vg x
EOT
dmsetup table | cmp - before || echo 'FAIL: the tables of the host have changed'

echo b > /proc/sysrq-trigger
sleep 100
