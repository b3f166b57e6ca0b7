# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 16K
# modules: dm_mod dm_crypt
# Encrypted devices. The line after a call with a key is the key; after luks-add-key, two.
!printf %s "-first" > first; printf %s "-second" > second
!cryptsetup luksFormat -q --type luks1 --uuid 11111111-2222-3333-4444-555555555555 --iter-time 10 --key-file first disk0
!cryptsetup luksFormat -q --type luks2 --uuid 66666666-7777-8888-9999-aaaaaaaaaaaa --label two --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file first disk1
!cryptsetup luksAddKey -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-slot 3 --key-file first disk1 second
run
luks-uuid /dev/sda
luks-uuid /dev/sdb
-luks-uuid /dev/sdc
-luks-uuid /dev/nonesuch
vfs-type /dev/sdb
list-filesystems
list-dm-devices

# Version 1.
-luks-open /dev/sda one
-wrong
list-dm-devices
luks-open /dev/sda one
-first
list-dm-devices
-luks-open /dev/sda one
-first
-luks-open /dev/sda other
-first
blockdev-getsize64 /dev/mapper/one
mkfs ext4 /dev/mapper/one label:inside
mount /dev/mapper/one /
write /file secret
cat /file
mounts
-luks-close /dev/mapper/one
umount-all
list-filesystems
findfs-label inside
-luks-close /dev/sda
-luks-close /dev/mapper/none
luks-close /dev/mapper/one
-luks-close /dev/mapper/one
list-dm-devices
luks-open-ro /dev/sda one
-first
mount-ro /dev/mapper/one /
cat /file
-write /file changed
umount-all
-pwrite-device /dev/mapper/one x 0
luks-close /dev/mapper/one

# Version 2, with two keys.
cryptsetup-open /dev/sdb two
-second
blockdev-getro /dev/mapper/two
list-dm-devices
is-lv /dev/mapper/two
cryptsetup-close /dev/mapper/two
cryptsetup-open /dev/sdb two readonly:true crypttype:luks
-first
blockdev-getro /dev/mapper/two
cryptsetup-close /dev/mapper/two
cryptsetup-open /dev/sdb two readonly:false crypttype:luks2
-first
cryptsetup-close /dev/mapper/two
-cryptsetup-open /dev/sdb two crypttype:luks1
-first
-cryptsetup-open /dev/sdb two crypttype:bitlk
-first
-cryptsetup-open /dev/sdb two crypttype:nonesuch
-first
-cryptsetup-open /dev/sdb two crypttype:-x
-first
-cryptsetup-open /dev/sdc two
-first
-cryptsetup-open /dev/sdb two
-wrong
-cryptsetup-open /dev/sdb ""
-first
-cryptsetup-open /dev/sdb a/b
-first
-cryptsetup-open /dev/sdb ../sdd
-first
cryptsetup-open /dev/sdb -x
-first
list-dm-devices
cryptsetup-close /dev/mapper/-x
-cryptsetup-close /dev/sdb
list-dm-devices

# Keys.
-luks-kill-slot /dev/sdb 3
-second
-luks-kill-slot /dev/sdb 5
-first
-luks-kill-slot /dev/sdb -1
-first
luks-kill-slot /dev/sdb 3
-first
-cryptsetup-open /dev/sdb two
-second
-luks-add-key /dev/sda 0
-first
-third
-luks-add-key /dev/sda -1
-first
-third
luks-add-key /dev/sda 5
-first
-third
cryptsetup-open /dev/sda one
-third
cryptsetup-close /dev/mapper/one
luks-kill-slot /dev/sda 0
-third
-cryptsetup-open /dev/sda one
-first
-luks-add-key /dev/sdc 0
-first
-third
-luks-kill-slot /dev/sdc 0
-first

# New ones.
luks-format /dev/sdc 2
-first
vfs-type /dev/sdc
luks-format-cipher /dev/sdc 0 aes-cbc-essiv:sha256

luks-open /dev/sdc three

blockdev-getsize64 /dev/mapper/three
luks-close /dev/mapper/three
-luks-format /dev/sdc -1
-first
-luks-format /dev/sdd 0
-first
-luks-format /dev/nonesuch 0
-first
set-trace false
luks-uuid /dev/sdc | grep -c -E "^[0-9a-f-]{36}$"
set-trace true

# A header that is damaged: there is a second one.
pwrite-device /dev/sdb XXXX 170
-luks-uuid /dev/sdb
pwrite-device /dev/sdb XXXX 16554
-luks-uuid /dev/sdb
# One that lies.
pwrite-device /dev/sda XXXX 72
-luks-uuid /dev/sda

available luks
