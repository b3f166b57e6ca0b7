# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M 64M 2M
run
# MBR.
-part-get-parttype /dev/sda
-part-list /dev/sda
part-init /dev/sda mbr
part-get-parttype /dev/sda
part-list /dev/sda
part-init /dev/sda msdos
part-add /dev/sda e 20480 -64
part-add /dev/sda p 64 20479
part-add /dev/sda l 20544 40959
part-add /dev/sda logical 41024 61439
part-add /dev/sda logical 61504 -65
part-list /dev/sda
-part-add /dev/sda x 64 100
-part-add /dev/sda p -5 100
-part-add /dev/sda p 64 100
part-set-bootable /dev/sda 2 true
part-get-bootable /dev/sda 2
part-get-bootable /dev/sda 1
part-set-bootable /dev/sda 2 false
part-get-bootable /dev/sda 2
-part-get-bootable /dev/sda 0
-part-get-bootable /dev/sda 9
-part-set-bootable /dev/sda 9 true
part-get-mbr-id /dev/sda 1
part-get-mbr-id /dev/sda 2
part-get-mbr-id /dev/sda 5
part-set-mbr-id /dev/sda 2 0x07
part-set-mbr-id /dev/sda 6 0x7f
part-get-mbr-id /dev/sda 2
part-get-mbr-id /dev/sda 6
-part-get-mbr-id /dev/sda 9
-part-get-mbr-id /dev/sda 0
-part-set-mbr-id /dev/sda 9 0x7f
part-get-mbr-part-type /dev/sda 1
part-get-mbr-part-type /dev/sda 2
part-get-mbr-part-type /dev/sda 5
-part-get-mbr-part-type /dev/sda 9
part-get-gpt-type /dev/sda 2
part-get-gpt-type /dev/sda 5
-part-set-gpt-type /dev/sda 2 01234567-89AB-CDEF-0123-456789ABCDEF
-part-set-gpt-guid /dev/sda 2 01234567-89AB-CDEF-0123-456789ABCDEF
-part-set-disk-guid /dev/sda 01234567-89AB-CDEF-0123-456789ABCDEF
-part-set-disk-guid-random /dev/sda
-part-set-gpt-attributes /dev/sda 2 4
-part-expand-gpt /dev/sda
-part-set-name /dev/sda 1 abc
-part-get-name /dev/sda 1
list-partitions
part-to-dev /dev/sda5
part-to-partnum /dev/sda5
-part-to-dev /dev/sda
-part-to-partnum /dev/sda
-part-to-dev /dev/sda77
part-del /dev/sda 6
part-list /dev/sda
list-partitions
part-resize /dev/sda 5 45000
part-list /dev/sda
-part-resize /dev/sda 5 -64
-part-resize /dev/sda 9 1000
-part-del /dev/sda 9
part-del /dev/sda 1
part-list /dev/sda
# GPT.
part-disk /dev/sdb efi
part-list /dev/sdb
part-get-parttype /dev/sdb
part-get-name /dev/sdb 1
part-init /dev/sdb gpt
part-add /dev/sdb primary 40960 -100
part-add /dev/sdb p 64 30000
part-list /dev/sdb
part-get-name /dev/sdb 2
part-set-name /dev/sdb 1 hello
part-get-name /dev/sdb 1
part-set-name /dev/sdb 1 0123456789012345678901234567890123456789
part-get-name /dev/sdb 1
-part-get-name /dev/sdb 3
-part-set-name /dev/sdb 3 x
part-set-gpt-type /dev/sdb 1 01234567-89ab-cdef-0123-456789abcdef
part-get-gpt-type /dev/sdb 1
-part-get-gpt-type /dev/sdb 3
-part-set-gpt-type /dev/sdb 1 bogus
part-set-gpt-guid /dev/sdb 1 11234567-89AB-CDEF-0123-456789ABCDEF
part-get-gpt-guid /dev/sdb 1
-part-get-gpt-guid /dev/sdb 3
part-set-disk-guid /dev/sdb 21234567-89AB-CDEF-0123-456789ABCDEF
part-get-disk-guid /dev/sdb
part-set-disk-guid-random /dev/sdb
part-set-gpt-attributes /dev/sdb 1 5
part-get-gpt-attributes /dev/sdb 1
part-get-bootable /dev/sdb 1
-part-get-gpt-attributes /dev/sdb 3
-part-get-gpt-attributes /dev/sdb 0
part-get-mbr-part-type /dev/sdb 1
-part-get-mbr-part-type /dev/sdb 3
-part-set-mbr-id /dev/sdb 1 0x83
part-set-bootable /dev/sdb 1 true
part-get-bootable /dev/sdb 1
part-get-gpt-type /dev/sdb 1
part-set-bootable /dev/sdb 1 false
part-get-bootable /dev/sdb 1
part-get-gpt-type /dev/sdb 1
part-resize /dev/sdb 2 40000
part-list /dev/sdb
part-expand-gpt /dev/sdb
-part-del /dev/sdb 3
part-del /dev/sdb 1
part-list /dev/sdb
# In use.
mkfs ext4 /dev/sdb2
mount /dev/sdb2 /
-part-init /dev/sdb gpt
part-set-name /dev/sdb 2 used
part-get-name /dev/sdb 2
-part-del /dev/sdb 2
-part-resize /dev/sdb 2 50000
umount /
part-resize /dev/sdb 2 50000
part-list /dev/sdb
# Whole disk.
part-disk /dev/sdc mbr
part-list /dev/sdc
part-get-mbr-id /dev/sdc 1
part-disk /dev/sdd gpt
part-list /dev/sdd
zero /dev/sdc
mkfs ext4 /dev/sdc
-part-get-parttype /dev/sdc
part-list /dev/sdc
# Other kinds.
-part-init /dev/sdc bogus
-part-disk /dev/sdc bogus
-part-init /dev/sdc aix
part-init /dev/sdc amiga
part-get-parttype /dev/sdc
part-init /dev/sdc rdb
part-get-parttype /dev/sdc
part-init /dev/sdc bsd
part-get-parttype /dev/sdc
-part-init /dev/sdc dasd
part-init /dev/sdc dvh
part-get-parttype /dev/sdc
part-list /dev/sdc
part-init /dev/sdc mac
part-get-parttype /dev/sdc
part-list /dev/sdc
part-add /dev/sdc p 1000 2000
part-list /dev/sdc
-part-get-mbr-id /dev/sdc 1
part-init /dev/sdc pc98
part-get-parttype /dev/sdc
part-init /dev/sdc sun
part-get-parttype /dev/sdc
part-list /dev/sdc
part-disk /dev/sdd mac
part-list /dev/sdd
-part-disk /dev/sdd amiga
# sfdisk.
part-init /dev/sdc mbr
sfdisk /dev/sdc 0 0 0 ",10M ,20M ,"
part-list /dev/sdc
sfdisk-N /dev/sdc 2 0 0 0 ",5M"
part-list /dev/sdc
sfdisk-kernel-geometry /dev/sdc
sfdisk-disk-geometry /dev/sdc
-sfdisk /dev/sdc 0 0 0 bogus
-sfdisk /dev/sdc 10 255 63 ","
part-list /dev/sdc
part-disk /dev/sdd gpt
part-set-disk-guid /dev/sdd 21234567-89AB-CDEF-0123-456789ABCDEF
sfdisk-l /dev/sdd
