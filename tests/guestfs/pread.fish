# SPDX-License-Identifier: Apache-2.0
# disks: 400M 1M
# filesystems: ext4 xfs btrfs vfat
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
write /f "0123456789"
ln-s f /link
ln-s /f /absolute
ln-s /nonexistent /dangling
mkdir /d
# parts
pread /f 4 3
pread /f 100 8
pread /f 4 10
pread /f 4 1000
pread /f 0 0
pread /link 3 0
pread /absolute 3 0
-pread /f -1 0
-pread /f 4 -1
-pread /f 5000000 0
-pread /nonexistent 1 0
-pread /d 1 0
-pread /dangling 1 0
pwrite /f "abc" 3
cat /f
pwrite /f "xyz" 12
hexdump /f
pwrite /f "" 0
pwrite /link "L" 0
cat /f
-pwrite /f "x" -1
-pwrite /nonexistent "x" 0
-pwrite /d "x" 0
pwrite-device /dev/sdb "device" 512
pread-device /dev/sdb 6 512
pread-device /dev/sdb 10 1048570
pread-device /dev/sdb 10 1048576
-pread-device /dev/sdb 10 -1
-pread-device /dev/sdb -1 0
-pread-device /dev/sdz 1 0
-pwrite-device /dev/sdb "x" 1048576
pwrite-device /dev/sdb "xyz" 1048574
-pwrite-device /dev/sdb "x" -1
# writing
write /w "hello\nworld"
cat /w
write /w ""
filesize /w
write-append /w "one "
write-append /w "two"
cat /w
write-append /new "x"
cat /new
write /link "through"
cat /f
write /dangling "made"
cat /nonexistent
-write /d "x"
-write /nonexistent/x "x"
-write-append /d "x"
write-file /w "0123456789" 4
cat /w
write-file /w "0123" 0
cat /w
-write-file /w "0123" 5
-write-file /w "0123" -1
read-file /w
read-lines /w
read-file /nonexistent
-read-file /d
# whole files
upload -<<END /u
uploaded text
END
cat /u
download /u -
-upload -<<END /absolute
-other text
END
-cat /f
-upload -<<END /d
x
END
-upload -<<END /nonexistent/x
x
END
download /nonexistent -
-download /d -
-upload-offset -<<END /u 3
XYZ
END
hexdump /u
upload-offset -<<END /u2 5
XYZ
END
hexdump /u2
-download-offset /u - 3 4
-download-offset /u - 10 100
-download-offset /u - 100 5
download-offset /nonexistent - 0 1
upload -<<END /dev/sdb
on the device
END
download-offset /dev/sdb - 0 14
upload-offset -<<END /dev/sdb 100
more
END
download-offset /dev/sdb - 100 5
is-zero-device /dev/sdb
