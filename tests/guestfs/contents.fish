# SPDX-License-Identifier: Apache-2.0
# disks: 400M 1M
# filesystems: ext4 xfs btrfs vfat
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
# what is looked at
write /empty ""
write /lines "one\ntwo\nthree\nfour\nfive\nsix\nseven\neight\nnine\nten\neleven\ntwelve\n"
write /unterminated "one\ntwo\nthree"
write /blank "\n\n\n"
write /words "  a bc\tdef\x0bg\x0ch\r i\n\x01 \xe9 \xc3\xa9 j"
touch /binary
truncate-size /binary 28
pwrite /binary "abcd" 0
pwrite /binary "efgh\nijkl" 5
pwrite /binary "\x01\x02mnop\xe9qrs\tt\n" 15
touch /nul
truncate-size /nul 6
pwrite /nul "a" 0
pwrite /nul "b\nc\n" 2
touch /utf16le
truncate-size /utf16le 22
pwrite /utf16le "a" 0
pwrite /utf16le "b" 2
pwrite /utf16le "c" 4
pwrite /utf16le "d" 6
pwrite /utf16le "x" 10
pwrite /utf16le "y" 12
pwrite /utf16le "z" 14
pwrite /utf16le "\xe9" 16
pwrite /utf16le "w" 18
touch /utf16be
truncate-size /utf16be 24
pwrite /utf16be "a" 1
pwrite /utf16be "b" 3
pwrite /utf16be "c" 5
pwrite /utf16be "d" 7
pwrite /utf16be "\x01" 10
pwrite /utf16be "x" 13
pwrite /utf16be "y" 15
pwrite /utf16be "z" 17
pwrite /utf16be "\xe9" 19
pwrite /utf16be "w" 21
touch /utf32le
truncate-size /utf32le 20
pwrite /utf32le "a" 0
pwrite /utf32le "b" 4
pwrite /utf32le "c" 8
pwrite /utf32le "d" 12
touch /utf32be
truncate-size /utf32be 22
pwrite /utf32be "zz" 0
pwrite /utf32be "a" 5
pwrite /utf32be "b" 9
pwrite /utf32be "c" 13
pwrite /utf32be "d" 17
write /text "Hello\nhello world\na.c\nabc\na+c\nHELLO\nfoo|bar\nfoo\n\ncaf\xc3\xa9\n-dash\n"
write /script "#!/bin/sh\necho hello\n"
fill-pattern "abcdefghijklmnopqrstuvwxyz\n" 1000000 /big
fill 0 100000 /zeroes
truncate-size /zeroes 100003
mkdir /dir
mkfifo 0600 /fifo
mknod-c 0600 1 3 /null
mknod-b 0600 7 0 /loop
mknod 0140600 0 0 /socket
ln-s /lines /link
ln-s /nonexistent /dangling
ln-s /dir /dirlink
# file
file /empty
file /lines
file /binary
file /script
file /dir
file /fifo
file /null
file /loop
file /socket
file /link
file /dangling
file /dirlink
-file /nonexistent
file /dev/sda
-file relative
base64-in -<<END /lines.gz
H4sIAAAAAAAAAx3KSQoAMAgEwfv8cxKFoBDN8vwsx27KjcjlSOkkio+OopMI3QhOGqhVEqYPvmz/5mK77ABWFiGGPwAAAA==
END
file /lines.gz
zfile gzip /lines.gz
zfile compress /lines.gz
-zfile nonsense /lines.gz
# checksums
checksum crc /empty
checksum md5 /empty
checksum sha256 /empty
checksum crc /big
checksum md5 /big
checksum sha1 /big
checksum sha224 /big
checksum sha256 /big
checksum sha384 /big
checksum sha512 /big
-checksum crc /lines
-checksum sha512 /link
-checksum sha256 /dangling
-checksum sha256 /dir
-checksum sha256 /nonexistent
-checksum nonsense /lines
-checksum gost /lines
-checksum gost12 /lines
-checksum SHA1 /lines
-checksum sha256 relative
-checksum sha256 /null
# equal
equal /lines /lines
-equal /lines /unterminated
-equal /empty /lines
-equal /lines /nonexistent
-equal /nonexistent /lines
-equal /lines /dir
# strings
strings /binary
-strings /empty
-strings /link
-strings /nonexistent
strings-e s /binary
strings-e S /binary
strings-e l /utf16le
strings-e b /utf16be
strings-e L /utf32le
strings-e B /utf32be
-strings-e b /utf16le
-strings-e l /utf16be
-strings-e x /binary
strings-e "" /binary
strings-e l /nonexistent
# hexdump
hexdump /binary
hexdump /empty
-hexdump /zeroes
-hexdump /utf16le
hexdump /nonexistent
hexdump /big
# wc
wc-l /lines
wc-l /unterminated
wc-l /empty
wc-l /big
wc-w /lines
wc-w /words
wc-w /empty
wc-w /binary
wc-w /big
wc-c /lines
wc-c /empty
wc-c /big
wc-c /zeroes
-wc-c /link
-wc-c /null
-wc-l /nonexistent
-wc-w /nonexistent
-wc-c /nonexistent
wc-l /dir
wc-c /dir
# head and tail
head /lines
head /unterminated
-head /empty
-head /blank
head /dir
head /nonexistent
head-n 3 /lines
head-n 0 /lines
head-n -3 /lines
head-n -100 /lines
head-n 100 /lines
head-n -1 /unterminated
head-n 1 /unterminated
tail /lines
tail /unterminated
-tail /empty
-tail /blank
tail /dir
tail /nonexistent
tail-n 3 /lines
tail-n 0 /lines
tail-n -3 /lines
tail-n -1 /lines
tail-n -100 /lines
tail-n 100 /lines
tail-n 1 /unterminated
tail-n 2 /big
tail-n -37036 /big
# the grep family
grep hello /text
grep a.c /text
grep "a\\+c" /text
grep a+c /text
grep foo|bar /text
grep "foo\\|Hello" /text
grep hello /text extended:true
grep a+c /text extended:true
grep "foo|Hello" /text extended:true
grep a+c /text fixed:true
grep foo|bar /text fixed:true
grep hello /text insensitive:true
grep "A.C" /text insensitive:true extended:true
grep "A.C" /text insensitive:true fixed:true
grep "" /text
grep ^$ /text
grep nothing /text
grep two /lines.gz compressed:true
grep t.o /lines.gz compressed:true extended:true
grep t.o /lines.gz compressed:true fixed:true
grep T.O /lines.gz compressed:true insensitive:true
grep two /lines compressed:true
grep mnop /binary
-grep "caf.$" /text
-grep hello /link
-grep hello /text extended:true fixed:true
-grep "\\(" /text
-grep "(" /text extended:true
-grep "[" /text
-grep hello /nonexistent
grep hello /dangling
grep hello /dir
egrep a+c /text
fgrep a+c /text
grepi hello /text
egrepi "HEL+O" /text
fgrepi A+C /text
zgrep two /lines.gz
zegrep "two|three" /lines.gz
zfgrep two /lines.gz
zgrepi TWO /lines.gz
-zegrepi "TWO|THREE" /lines.gz
zfgrepi TWO /lines.gz
zgrep two /nonexistent
# checksums of a device and of trees
umount /
-checksum-device md5 /dev/sdb
-checksum-device crc /dev/sdb
checksum-device nonsense /dev/sdb
checksum-device sha256 /dev/nonexistent
mount /dev/sda /
mkdir-p /tree/sub/deeper
write /tree/a "a"
write /tree/sub/b "b"
write "/tree/sub/new\nline" "c"
write "/tree/sub/back\\slash" "d"
write "/tree/sub/return\r" "e"
ln-s a /tree/link
mkfifo 0600 /tree/fifo
checksums-out crc /tree - | sort
checksums-out md5 /tree - | sort
checksums-out sha1 /tree - | sort
checksums-out sha224 /tree - | sort
checksums-out sha256 /tree - | sort
checksums-out sha384 /tree - | sort
-checksums-out sha512 /tree - | sort
-mkdir /emptydir
-checksums-out nonsense /tree - | sort
checksums-out sha256 /nonexistent - | sort
checksums-out sha256 /lines - | sort
