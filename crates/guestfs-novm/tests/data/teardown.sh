#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Process 1 of a User-Mode Linux in which sessions run in namespaces, as on a host whose kernel has dm and md. Each
# makes LVM on LUKS on an array on partitions, mounts it and swaps to it, and ends in another way. What the kernel
# still has afterwards is printed: `ENDED how: ...`.
#
# The directory of this script has host.sh, and links to guestfs-novm and guestfsd.

. "$(dirname "$0")/host.sh"
modules cbc hmac sha256_generic dm-crypt xts raid1

# What a session has made that the kernel has.
active() {
	found=$(cd /sys/block && ls -d dm-* md* 2>/dev/null; ls -d loop*/loop 2>/dev/null)
	swaps=$(tail -n +2 /proc/swaps | wc -l)
	echo $found swaps=$swaps
}

# The calls up to a stage.
calls() {
	echo 'add a format:raw
add b format:raw'
	[ "$2" != without-autosync ] || echo 'set-autosync false'
	echo 'run
part-disk /dev/sda mbr
part-disk /dev/sdb mbr
md-create r "/dev/sda1 /dev/sdb1"'
	[ "$1" != md ] || return
	echo 'debug sh "printf key > /tmp/key; cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 /dev/md127 /tmp/key"
cryptsetup-open /dev/md127 secret
key'
	[ "$1" != luks ] || return
	echo 'debug sh "lvm pvcreate -q /dev/mapper/secret; lvm vgcreate -q vg /dev/mapper/secret; lvm lvcreate -q -y -L 12M -n root vg; lvm lvcreate -q -y -L 4M -n swap vg"'
	[ "$1" != lvm ] || return
	echo 'mkfs ext2 /dev/vg/root
mount /dev/vg/root /
mkswap /dev/vg/swap
swapon-device /dev/vg/swap
fallocate64 /swap 1048576
mkswap-file /swap
swapon-file /swap
write /mark x'
}

# A session with this stage and end; the third word is what the client does last.
session() {
	# Fresh ones: an array that is on them would be set up at the start.
	rm -f a b
	truncate -s 40M a b
	{
		calls "$1" "$2"
		echo '!. /tmp/active; echo "ACTIVE" $(active)'
		echo "$3"
	} > script
	timeout 100 "$here/guestfs-novm" --instant --guestfsd "$here/guestfsd" -- guestfish --keys-from-stdin -f script 2>&1
	for _ in $(seq 30); do
		left=$(active)
		[ "$left" != swaps=0 ] || break
		sleep 0.3
	done
	echo "ENDED $1 $2: $left"
}
sed -n '/^active() {/,/^}/p' "$0" > /tmp/active

session md quit ''
session lvm client-killed '!kill -9 $PPID'
session all quit ''
session all without-autosync ''
session all daemon-killed '!kill -9 $(pidof guestfsd); sleep 1'
session all daemon-terminated '!kill $(pidof guestfsd); sleep 1'
session all novm-killed '!kill -9 $(pgrep -P $PPID -f -- -global); sleep 1'

# What another process of the host has open stays, and is named.
session luks in-use '!sleep 1000 < /dev/dm-0 & echo $! > /tmp/sleeping'
kill "$(cat /tmp/sleeping)"

echo b > /proc/sysrq-trigger
sleep 100
