# SPDX-License-Identifier: Apache-2.0
# disks: 64M
# Scans by rules of YARA. (Damaged compiled rules end the distribution's daemon.)
run
mkfs ext4 /dev/sda
mount /dev/sda /
write /file "some secret, and a number: 12345"
write /other "nothing of interest"
touch /empty
mkdir /dir
mkfifo 0644 /fifo
ln-s file /link
!printf 'rule Secret : tag { meta: author = "x" strings: $a = "secret" condition: $a }\nrule Number { strings: $n = /[0-9]{5}/ condition: $n }\nprivate rule Hidden { condition: true }\nrule Empty { condition: filesize == 0 }\nrule Any { condition: Hidden }\n' > rules
!printf 'rule Broken { strings: $a = \n' > broken
!printf 'include "/etc/hostname"\nrule A { condition: true }\n' > included
!printf 'import "elf"\nimport "math"\nrule E { condition: elf.type == elf.ET_EXEC or math.entropy(0, filesize) < 8 }\n' > modules
!printf 'rule A { condition: true }\nrule A { condition: true }\n' > twice
!: > none; yarac rules compiled
-yara-scan /file
-yara-destroy
-yara-load nonesuch
yara-load rules
yara-scan /file
yara-scan /other
yara-scan /empty
yara-scan /link
-yara-scan /dir
-yara-scan /nonesuch
-yara-scan relative
yara-load compiled
yara-scan /file
yara-load modules
yara-scan /file
yara-load none
-yara-scan /file
yara-destroy
-yara-destroy
-yara-scan /file
-yara-load broken
-yara-scan /file
-yara-load twice
-yara-load included
-yara-scan /file
umount /
-yara-scan /file
