# SPDX-License-Identifier: Apache-2.0
# disks: 300M
# Journals of systemd, made by systemd-journal-remote of what is written here.
run
mkfs ext4 /dev/sda
mount /dev/sda /
!for i in $(seq 12); do printf '__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=0123456789abcdef0123456789abcdef\nMESSAGE=message %d\nPRIORITY=6\nLONG=%s\n\n' $((1700000000000000 + i * 1000000)) $((1000 + i * 1000000)) $i "$(printf '%06000d' $i)"; done > one
!for i in $(seq 5); do printf '__REALTIME_TIMESTAMP=%d\n__MONOTONIC_TIMESTAMP=%d\n_BOOT_ID=ffffffffffffffffffffffffffffffff\nMESSAGE=other %d\n\n' $((1700000000500000 + i * 2000000)) $((i * 1000)) $i; done > two
!remote=/lib/systemd/systemd-journal-remote; SYSTEMD_JOURNAL_COMPACT=0 $remote --output=$PWD/one.journal - < one 2>/dev/null; $remote --output=$PWD/two.journal - < two 2>/dev/null; SYSTEMD_JOURNAL_KEYED_HASH=0 $remote --compress=no --output=$PWD/plain.journal - < one 2>/dev/null; ls *.journal
!cp one.journal damaged.journal; printf 'zzzz' | dd of=damaged.journal bs=1 seek=3800 conv=notrunc 2>/dev/null; head -c 100 one.journal > short.journal; printf 'garbage' > garbage.journal; head -c 5000000 plain.journal > cut.journal
mkdir-p /j/0123456789abcdef0123456789abcdef/deeper
mkdir-p /j/notanid
mkdir /empty
mkdir /plain
mkdir /damaged
upload one.journal /j/0123456789abcdef0123456789abcdef/system.journal
upload two.journal /j/user-1000.journal
upload plain.journal /j/notanid/system.journal
upload plain.journal /j/0123456789abcdef0123456789abcdef/deeper/system.journal
upload two.journal /j/copy@x.journal~
upload plain.journal /j/plain.other
upload plain.journal /plain/system.journal
upload damaged.journal /damaged/a.journal
upload short.journal /damaged/b.journal
upload garbage.journal /damaged/c.journal
upload cut.journal /damaged/d.journal
ln-s ../plain/system.journal /damaged/e.journal
ln-s notanid /j/11111111111111111111111111111111
ln-s /j /link
touch /file
# Nothing is open.
-journal-close
-journal-next
-journal-skip 1
-journal-get
-journal-get-realtime-usec
-journal-get-data-threshold
-journal-set-data-threshold 5
-journal-open /nonesuch
-journal-open relative
-journal-open /file
journal-open /empty
journal-next
-journal-get
-journal-get-realtime-usec
journal-skip 5
journal-skip -5
journal-skip 0
-journal-open /link
# Files of a directory and of a machine in it.
journal-open /j
journal-get-data-threshold
-journal-get
-journal-get-realtime-usec
journal-next
journal-get-realtime-usec
journal-set-data-threshold 1000
journal-get-data-threshold
set-trace false
journal-get | cut -c1-60
journal-get | wc -c
set-trace true
journal-skip 0
journal-get-realtime-usec
journal-skip 3
journal-get-realtime-usec
set-trace false
journal-get | cut -c1-60
set-trace true
journal-skip -2
journal-get-realtime-usec
set-trace false
journal-get | cut -c1-60
set-trace true
journal-skip 100
journal-get-realtime-usec
set-trace false
journal-get | cut -c1-60
set-trace true
journal-next
journal-get-realtime-usec
journal-skip -100
journal-get-realtime-usec
journal-skip -1
journal-get-realtime-usec
journal-next
journal-get-realtime-usec
journal-close
-journal-close
journal-open /j
journal-skip -1
journal-get-realtime-usec
journal-open /j
journal-skip 0
-journal-get-realtime-usec
journal-set-data-threshold 0
journal-next
journal-get-realtime-usec
set-trace false
journal-get | wc -c
set-trace true
# One without compression or keys.
journal-open /plain
journal-next
set-trace false
journal-get | wc -c
set-trace true
-umount /
journal-close
# Damaged ones, and none.
journal-open /damaged
journal-next
journal-get-realtime-usec
set-trace false
journal-get | cut -c1-60
set-trace true
journal-skip 100
journal-get-realtime-usec
journal-close
umount /
-journal-open /plain
