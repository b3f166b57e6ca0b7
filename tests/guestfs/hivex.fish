# SPDX-License-Identifier: Apache-2.0
# disks: 64M
# Hives of Windows' registry: what is in them, changes, damage.
run
mkfs ext4 /dev/sda
mount /dev/sda /
!echo H4sIAAAAAAACA+3YMQqDMBTG8SfobAcP0AN4l4CU0lkwaQk4WAodPU6P0xvFPKoQxalb6f8Hj3yJL0syxaFzNhMRrYXmIslHDYd1D37f+eEspwAAAAAA/+Ha3nqZ3/d7XiGE3tertbgU0rzMdXxuvqfyWI0xJ83v2HP3Itqvpf8Wqs847u29lNwVAAAAAADfmgCbfTzZACAAAA== | base64 -d | gunzip > minimal
!{ printf 'Windows Registry Editor Version 5.00\r\n\r\n[\\A]\r\n"s"="text"\r\n"d"=dword:00000007\r\n@="default"\r\n"x"=hex(2):25,00,61,00,00,00\r\n"m"=hex(7):61,00,00,00,62,00,00,00,00,00\r\n"bad"=hex(1):00,d8,61,00\r\n"odd"=hex(1):61,00,62\r\n"none"=hex(0):\r\n"link"=hex(6):61,00\r\n"nul"=hex(1):61,00,00,00,62,00\r\n"be"=hex(5):00,00,00,01\r\n"long"=hex:11%s\r\n' "$(printf ',%02x' $(seq 5000 | sed 's/.*/34/'))"; for i in $(seq 300); do printf '\r\n[\\A\\Key %d]\r\n' $i; done; printf '\r\n[\\B]\r\n\r\n[\\b2]\r\n\r\n[\\b2\\c]\r\n"v"="w"\r\n'; } > made.reg
!cp minimal made; PERL_HASH_SEED=0 hivexregedit --merge --prefix '' made made.reg; sha256sum < made
upload minimal /minimal
upload made /made
# Nothing is open.
-hivex-root
-hivex-close
-hivex-node-name 4128
-hivex-node-children 4128
-hivex-node-get-child 4128 a
-hivex-node-parent 4128
-hivex-node-values 4128
-hivex-node-get-value 4128 a
-hivex-value-key 4128
-hivex-value-type 4128
-hivex-value-value 4128
-hivex-value-string 4128
-hivex-value-utf8 4128
-hivex-commit ""
-hivex-node-add-child 4128 a
-hivex-node-delete-child 4128
-hivex-node-set-value 4128 a 1 b
-hivex-open /nonesuch
-hivex-open /
-hivex-open relative
# Reading.
hivex-open /made verbose:true debug:true
hivex-root
hivex-node-name 4128
hivex-node-children 4128
hivex-node-get-child 4128 a
hivex-node-get-child 4128 B2
hivex-node-get-child 4128 nonesuch
hivex-node-get-child 4128 ""
hivex-node-name 8224
hivex-node-parent 8224
hivex-node-get-child 8224 "kEY 77"
hivex-node-children 8224
hivex-node-values 4128
hivex-node-values 8224
hivex-node-get-value 8224 S
hivex-node-get-value 8224 ""
hivex-node-get-value 8224 nonesuch
hivex-value-key 8384
hivex-value-type 8384
-hivex-value-value 8384
-hivex-value-string 8384
-hivex-value-utf8 8384
hivex-value-key 8432
hivex-value-type 8432
-hivex-value-value 8432
-hivex-value-string 8432
-hivex-value-utf8 8432
hivex-value-key 8464
hivex-value-type 8464
-hivex-value-value 8464
-hivex-value-string 8464
-hivex-value-utf8 8464
hivex-value-key 8520
hivex-value-type 8520
-hivex-value-value 8520
-hivex-value-string 8520
-hivex-value-utf8 8520
hivex-value-key 8568
hivex-value-type 8568
-hivex-value-value 8568
-hivex-value-string 8568
-hivex-value-utf8 8568
hivex-value-key 8616
hivex-value-type 8616
-hivex-value-value 8616
-hivex-value-string 8616
-hivex-value-utf8 8616
hivex-value-key 8648
hivex-value-type 8648
-hivex-value-value 8648
-hivex-value-string 8648
-hivex-value-utf8 8648
hivex-value-key 8680
hivex-value-type 8680
-hivex-value-value 8680
-hivex-value-string 8680
-hivex-value-utf8 8680
hivex-value-key 8712
hivex-value-type 8712
-hivex-value-value 8712
-hivex-value-string 8712
-hivex-value-utf8 8712
hivex-value-key 8744
hivex-value-type 8744
-hivex-value-value 8744
-hivex-value-string 8744
-hivex-value-utf8 8744
hivex-value-key 8792
hivex-value-type 8792
-hivex-value-value 8792
-hivex-value-string 8792
-hivex-value-utf8 8792
hivex-value-key 8824
hivex-value-type 8824
-hivex-value-value 8824
-hivex-value-string 8824
-hivex-value-utf8 8824
-hivex-node-parent 4128
-hivex-node-name 0
-hivex-node-name 4129
-hivex-node-name 4132
-hivex-node-name -1
-hivex-node-name 4216
-hivex-node-name 9223372036854775807
-hivex-node-children 8225
-hivex-node-get-child 8225 x
-hivex-node-values 4216
-hivex-node-get-value 4216 x
-hivex-value-key 4128
-hivex-value-type 4128
-hivex-value-value 4128
-hivex-value-string 4128
-hivex-value-utf8 0
-hivex-node-add-child 4128 x
-hivex-node-delete-child 8224
-hivex-node-set-value 4128 x 1 abc
-hivex-commit ""
-umount /
hivex-close
-hivex-close
# Changing.
hivex-open /minimal write:true
hivex-node-add-child 4128 beta
hivex-node-add-child 4128 Alpha
hivex-node-add-child 4128 gämma
hivex-node-add-child 8224 child
hivex-node-add-child 4128 €uro
-hivex-node-add-child 4128 BETA
-hivex-node-add-child 4128 ""
-hivex-node-add-child 1 x
-hivex-node-delete-child 4128
-hivex-node-delete-child 8225
hivex-node-children 4128
hivex-node-name 8224
hivex-node-set-value 8224 "" 1 "abcdef"
hivex-node-set-value 8224 x 4 "abcd"
hivex-node-set-value 8224 X 3 "longer data"
hivex-node-set-value 8224 €uro 3 "e"
-hivex-node-set-value 8224 y -1 "z"
-hivex-node-set-value 8224 z 4294967295 "z"
-hivex-node-set-value 8224 z 4294967296 "z"
-hivex-node-set-value 8225 x 4 "abcd"
hivex-commit /new
download /new new
!hivexregedit --export new '\\'
!hivexml new | sed 's/byte_run file_offset=[^>]*//g; s/<mtime>[^<]*<.mtime>//g'
hivex-commit ""
-hivex-commit relative
-hivex-commit /nonesuch/x
hivex-close
# Into what others made.
chmod 0640 /made
chown 12 34 /made
setxattr user.kept "yes" 3 /made
hivex-open /made write:true
umount /
mount /dev/sda /
hivex-node-delete-child 49800
-hivex-node-name 49800
-hivex-node-delete-child 49800
hivex-node-add-child 8224 "key 77"
hivex-node-add-child 8224 "zz"
hivex-node-set-value 8224 long 3 short
hivex-node-set-value 543224 v 1 wxyz
hivex-commit ""
hivex-node-delete-child 543112
hivex-commit /made2
stat /made
getxattr /made user.kept
download /made made
download /made2 made2
!hivexregedit --export made '\\' | sha256sum
!hivexregedit --export made2 '\\' | sha256sum
ls /
hivex-open /made2
hivex-node-children 4128
hivex-close
# Damaged.
!cp minimal sum; printf 'x' | dd of=sum bs=1 seek=100 conv=notrunc 2>/dev/null
!cp minimal cut; truncate -s 6000 cut
!head -c 100 minimal > head; : > empty; cp minimal bin; printf 'x' | dd of=bin bs=1 seek=4096 conv=notrunc 2>/dev/null
!cp minimal cell; printf '\001\000\000\000' | dd of=cell bs=1 seek=4264 conv=notrunc 2>/dev/null
!cp minimal lists; printf '\003' | dd of=lists bs=1 seek=4152 conv=notrunc 2>/dev/null; printf '\002' | dd of=lists bs=1 seek=4168 conv=notrunc 2>/dev/null
!cp minimal long; head -c 8192 /dev/zero >> long
upload sum /sum
upload cut /cut
upload head /head
upload empty /empty
upload bin /bin
upload cell /cell
upload lists /lists
upload long /long
-hivex-open /sum
-hivex-open /sum unsafe:true
-hivex-open /cut
-hivex-open /cut unsafe:true
-hivex-open /head
-hivex-open /empty
-hivex-open /bin
-hivex-open /bin unsafe:true
-hivex-open /cell
-hivex-open /cell unsafe:true
-hivex-root
-hivex-open /lists
-hivex-node-children 4128
-hivex-node-values 4128
-hivex-node-get-child 4128 x
-hivex-open /lists unsafe:true
-hivex-node-children 4128
-hivex-node-values 4128
-hivex-open /long
-hivex-root
-hivex-open /long write:true
-hivex-node-add-child 4128 x
-hivex-commit ""
filesize /long
-hivex-close
umount /
