# SPDX-License-Identifier: Apache-2.0
# disks: 64M 64M
# Space of filesystems: how much there is, and clearing what is free.
run
mkfs ext4 /dev/sda blocksize:1024
set-uuid /dev/sda 01234567-0123-0123-0123-0123456789ab
mount /dev/sda /
mkdir /dir
statvfs / | grep -E '^(bsize|frsize|blocks|files|flag|namemax)'
statvfs /dir | grep -E '^(bsize|frsize|blocks|files|flag|namemax)'
-statvfs /nonesuch
-statvfs dir
ln-s dir /link
statvfs /link | grep -E '^(bsize|frsize|blocks|files)'
set-trace false
df | tr -s ' ' | grep -o '^/dev/sda .* /sysroot$'
df-h | tr -s ' ' | grep -o '^/dev/sda .* /sysroot$'
set-trace true
du /
fill 1 1000000 /dir/file
sync
du /dir
du /dir/file
du /link
du /
-du /nonesuch
-du dir
mkfs ext2 /dev/sdb
mount /dev/sdb /dir
set-trace false
df | tr -s ' ' | grep -o '^/dev/sd. .* /sysroot.*$'
df-h | tr -s ' ' | grep -o '^/dev/sd. .* /sysroot.*$'
set-trace true
du /
du /dir
umount /dir

# scrub
write /secret "secret"
scrub-file /secret
exists /secret
fill 1 300000 /secret
scrub-file /secret
exists /secret
-scrub-file /nonesuch
-scrub-file /dir
write /target "x"
ln-s target /slink
-scrub-file /slink
exists /target
exists /slink
mkdir /free
-scrub-freespace /free
-scrub-freespace /dir/new/er
scrub-freespace /new
exists /new
-scrub-freespace /target
ls /

# zero_free_space
zero-free-space /
ls /
zero-free-space /dir
ls /dir
-zero-free-space /nonesuch
-zero-free-space /target
statvfs / | grep -E '^blocks'
du /

# fstrim
fstrim /
fstrim /dir
fstrim / offset:0
fstrim / offset:1048576 length:1048576
fstrim / minimumfreeextent:4096
-fstrim / length:0
-fstrim / offset:-1
-fstrim / length:-1
-fstrim / minimumfreeextent:-1
-fstrim / offset:1000000000
-fstrim /nonesuch
umount /
mount-ro /dev/sda /
-fstrim /
-zero-free-space /
umount /
-statvfs /
-df
-du /
-fstrim /
