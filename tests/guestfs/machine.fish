# SPDX-License-Identifier: Apache-2.0
# disks: 64M
# The machine that the daemon runs on, initrds, and the daemon's insides.
run
set-trace false
utsname | grep -c .
dmesg | head -c 0
set-trace true
drop-caches 1
drop-caches 2
drop-caches 3
-drop-caches 4
-drop-caches 0
-drop-caches -1
-drop-caches 100
-modprobe no-such-module-at-all
-modprobe "-V"
-modprobe ""

mkfs ext4 /dev/sda
mount /dev/sda /
!mkdir -p tree/sub/deep && echo main > tree/main && echo deep > tree/sub/deep/file && ln -s main tree/link && head -c 5000 /dev/zero > tree/zeroes && mkdir -p early/kernel/x86 && echo code > early/kernel/x86/code
!cd tree && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible > ../plain.cpio
!cd tree && find * | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible > ../nodots.cpio
!cd tree && find . | LC_ALL=C sort | cpio --quiet -o -H crc --reproducible > ../crc.cpio
!cd early && find . | LC_ALL=C sort | cpio --quiet -o -H newc --reproducible > ../early.cpio
!for c in gzip bzip2 xz zstd lzma lzop; do $c -c < plain.cpio > plain.$c; done; xz -c --check=crc32 < plain.cpio > plain.kernelxz; (cat early.cpio; gzip -c < plain.cpio) > both.gz; (cat early.cpio; zstd -c < plain.cpio) > both.zst; (cat early.cpio; cat plain.cpio) > both; lz4 -l -c < plain.cpio > plain.lz4 2>/dev/null || true
!head -c 300 plain.cpio > cut; head -c 300 plain.gzip > cut.gz; echo nonsense > nonsense; : > empty
copy-in plain.cpio nodots.cpio crc.cpio plain.gzip plain.bzip2 plain.xz plain.kernelxz plain.zstd plain.lzma plain.lzop both.gz both.zst both cut cut.gz nonsense empty /
-initrd-list /plain.cpio
-initrd-list /nodots.cpio
-initrd-list /crc.cpio
-initrd-list /plain.gzip
-initrd-list /plain.bzip2
-initrd-list /plain.xz
-initrd-list /plain.kernelxz
-initrd-list /plain.zstd
-initrd-list /plain.lzma
-initrd-list /plain.lzop
-initrd-list /both.gz
-initrd-list /both.zst
-initrd-list /both
-initrd-list /cut
-initrd-list /cut.gz
-initrd-list /nonsense
-initrd-list /empty
-initrd-list /nonesuch
-initrd-list /
-initrd-list plain.cpio
-initrd-cat /plain.cpio main
-initrd-cat /plain.gzip sub/deep/file
-initrd-cat /plain.zstd main
-initrd-cat /nodots.cpio main
-initrd-cat /plain.gzip /main
-initrd-cat /plain.gzip ./main
-initrd-cat /plain.gzip link
-initrd-cat /plain.gzip sub
-initrd-cat /plain.gzip nonesuch
-initrd-cat /plain.gzip "*"
-initrd-cat /plain.gzip ""
-initrd-cat /both.gz main
-initrd-cat /both.gz kernel/x86/code
-initrd-cat /cut main
-initrd-cat /nonsense main
-initrd-cat /nonesuch main
-initrd-cat /plain.gzip zeroes | wc -c

# debug
-debug help ""
-debug nonesuch ""
-debug sh ""
debug sh "echo hello; echo error >&2"
debug sh "echo two words"
-debug sh "exit 3"
-debug sh "echo failure >&2; exit 1"
debug ls "/sysroot/plain.cpio"
-debug ls "/nonesuch"
set-trace false
debug ll "/sysroot/empty" | sed 's/ [A-Z].*//'
set-trace true
debug setenv "LUNETTE_TEST value"
set-trace false
debug env "" | grep LUNETTE
set-trace true
-debug unsetenv LUNETTE_TEST
set-trace false
-debug env "" | grep -c LUNETTE
set-trace true
-debug setenv ""
-debug setenv LUNETTE_TEST
-debug unsetenv ""
-debug error 0
-debug error 20
-debug error x
-debug error ""
set-trace false
debug binaries "" | grep -c '^/usr/bin/ls$'
debug ldd /bin/ls | grep -c libc.so
set-trace true
-debug ldd /nonesuch
-debug ldd ""
debug print "a message"
-debug print ""
set-trace false
debug fds "" | head -1 | sed 's/ .*//'
set-trace true
debug spew 100 | wc -c
-debug spew ""
-debug spew x
debug progress "1"
-debug progress ""
-debug progress x
-debug progress "-1"
-debug error ""
-debug error "some text"
-debug qtrace "/dev/sda on"
-debug qtrace ""
-debug qtrace "/dev/sda maybe"
-debug device_speed ""
set-trace false
debug device_speed "/dev/sda r 1" | grep -c .
set-trace true
-debug core_pattern ""
