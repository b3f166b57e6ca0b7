# SPDX-License-Identifier: Apache-2.0
# disks: 400M
# filesystems: ext4 xfs btrfs vfat
# Archives, unpacked into the guest and made from it. Runs in an empty directory of its own; needs tar, cpio and
# the compressing programs.
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
!umask 022; mkdir -p tree/dir/sub && cd tree && echo hello > file && echo deep > dir/sub/deep && ln -s file link && ln file hard && ln -s /etc/passwd absolute && mkfifo fifo && mknod node c 5 1 && truncate -s 300000 sparse && printf end | dd of=sparse bs=1 seek=200000 conv=notrunc status=none && chown 1234:5678 file && chmod 4755 file && chmod 1777 dir && chown 0:42 dir && touch -d '2001-02-03 04:05:06 UTC' file dir/sub/deep dir/sub dir sparse fifo node . && touch -h -d '2001-02-03 04:05:06 UTC' link absolute
!tar -C tree -cf tree.tar . && for c in gzip bzip2 xz lzop zstd lzma; do $c -c < tree.tar > tree.tar.$c; done; tar -C tree --format=pax -S -cf pax.tar . && tar -C tree --format=gnu -S -cf gnu.tar . && tar -C tree --format=v7 -cf v7.tar file dir link && tar -C tree --format=oldgnu -cf oldgnu.tar . && tar -C tree --format=ustar -cf ustar.tar .

# in
mkdir /plain
tar-in tree.tar /plain
find /plain/
cat /plain/file
readlink /plain/link
readlink /plain/absolute
cat /plain/dir/sub/deep
set-trace false
lstatns /plain/file | grep -E '^st_(mode|nlink|uid|gid|size|mtime_sec)'
lstatns /plain/hard | grep -E '^st_(mode|nlink|uid|gid|size|mtime_sec)'
lstatns /plain/dir | grep -E '^st_(mode|uid|gid|mtime_sec)'
lstatns /plain/dir/sub | grep -E '^st_(mode|uid|gid|mtime_sec)'
lstatns /plain/link | grep -E '^st_(mode|uid|gid|mtime_sec)'
lstatns /plain/node | grep -E '^st_(mode|rdev|mtime_sec)'
lstatns /plain/fifo | grep -E '^st_(mode|mtime_sec)'
lstatns /plain | grep -E '^st_(mode|mtime_sec)'
set-trace true
checksum md5 /plain/sparse
mkdir /pax
tar-in pax.tar /pax
find /pax/
checksum md5 /pax/sparse
mkdir /gnu
tar-in gnu.tar /gnu
find /gnu/
checksum md5 /gnu/sparse
mkdir /v7
tar-in v7.tar /v7
find /v7/
mkdir /oldgnu
tar-in oldgnu.tar /oldgnu
find /oldgnu/
mkdir /ustar
tar-in ustar.tar /ustar
find /ustar/
mkdir /c
tar-in tree.tar.gzip /c compress:gzip
cat /c/dir/sub/deep
rm /c/file
tar-in tree.tar.bzip2 /c compress:bzip2
cat /c/file
rm /c/file
tar-in tree.tar.xz /c compress:xz
cat /c/file
rm /c/file
tar-in tree.tar.lzop /c compress:lzop
cat /c/file
-tar-in tree.tar /c compress:gzip
-tar-in tree.tar.gzip /c
tgz-in tree.tar.gzip /c
txz-in tree.tar.xz /c
-tgz-in tree.tar.xz /c
-txz-in tree.tar /c
-tar-in tree.tar /nonesuch
-tar-in tree.tar /plain/file
-tar-in tree.tar plain

# archives that are none, or not all of one
!head -c 2000 tree.tar > cut.tar; head -c 100 tree.tar > short.tar; head -c 3000 /dev/zero > zeroes.tar; yes nonsense | head -c 3000 > nonsense.tar; : > empty.tar; head -c 200 tree.tar.gzip > cut.tar.gz
mkdir /bad
-tar-in cut.tar /bad
-tar-in short.tar /bad
tar-in zeroes.tar /bad
-tar-in nonsense.tar /bad
-tar-in empty.tar /bad
-tar-in cut.tar.gz /bad compress:gzip

# what points out
!mkdir evil && cd evil && ln -s /outside link && tar -cf ../evil.tar link && rm link && mkdir link && echo x > link/file && tar -rf ../evil.tar link/file && echo y > y && tar -P --transform='s,y,/absolute,' -rf ../evil.tar y
mkdir /evil
-tar-in evil.tar /evil
-exists /absolute
-exists /outside

# over what is there
!mkdir over && cd over && mkdir lib && echo new > lib/x && echo new > plain && tar -cf ../over.tar lib plain
mkdir /over
mkdir-p /over/usr/lib
ln-s usr/lib /over/lib
write /over/plain "old and longer"
tar-in over.tar /over
is-symlink /over/lib
cat /over/plain
find /over

# extended attributes and access control lists
!mkdir attr && touch attr/f && setfattr -n user.color -v blue attr/f && setfacl -m u:7:r,g:8:rw attr/f && mkdir attr/d && setfacl -d -m u:9:rx attr/d && tar -C attr --xattrs --acls -cf attr.tar f d
mkdir /attr
tar-in attr.tar /attr
lgetxattrs /attr/f
tar-in attr.tar /attr xattrs:true
lgetxattr /attr/f user.color
tar-in attr.tar /attr acls:true
acl-get-file /attr/f access
acl-get-file /attr/d default
tar-in attr.tar /attr selinux:true
tar-in attr.tar /attr xattrs:false selinux:false acls:false
tar-in attr.tar /attr xattrs:true selinux:true acls:true
tar-out /attr a.tar
!tar --xattrs --acls -tvvf a.tar | grep -c -e user.color -e 'user:7' || true
tar-out /attr a.tar xattrs:true
!rm -rf out; mkdir out; tar --xattrs --acls -C out -xf a.tar; getfattr -d out/f; getfacl -cn out/f
tar-out /attr a.tar acls:true
!rm -rf out; mkdir out; tar --xattrs --acls -C out -xf a.tar; getfattr -d out/f; getfacl -cn out/f; getfacl -cn out/d
tar-out /attr a.tar selinux:true
tar-out /attr a.tar xattrs:true selinux:true acls:true
!rm -rf out; mkdir out; tar --xattrs --acls -C out -xf a.tar; getfattr -d out/f; getfacl -cn out/f
tar-out /attr a.tar xattrs:false selinux:false acls:false

# out
tar-out /plain out.tar
!tar --numeric-owner --utc --full-time -tvf out.tar | grep -v 'link to' | sed 's:./hard$:./file:' | LC_ALL=C sort -k 6
!rm -rf out; mkdir out; tar -C out -xpf out.tar; md5sum < out/sparse; stat -c %h out/file out/hard; tar -tvf out.tar | grep -c 'link to' || true
tar-out /plain out.tar numericowner:true
!tar -tvf out.tar | awk '{print $2}' | sort | uniq -c
tar-out /plain out.tar numericowner:false
!tar -tvf out.tar | awk '{print $2}' | sort | uniq -c
tar-out /plain out.tar "excludes:sub sparse"
!tar -tf out.tar | LC_ALL=C sort
tar-out /plain out.tar "excludes:*e ./dir/s* ha?d"
!tar -tf out.tar | LC_ALL=C sort
tar-out /plain out.tar "excludes:dir/sub/deep [f]i*"
!tar -tf out.tar | LC_ALL=C sort
tar-out /plain out.tgz compress:gzip
!gzip -dc out.tgz | tar -tf - | LC_ALL=C sort
tar-out /plain out.x compress:bzip2
!bzip2 -dc < out.x | tar -tf - | wc -l
tar-out /plain out.x compress:xz
!xz -dc < out.x | tar -tf - | wc -l
tar-out /plain out.x compress:lzop
!lzop -dc < out.x | tar -tf - | wc -l
tgz-out /plain out.tgz
!gzip -dc < out.tgz | tar -tf - | wc -l
txz-out /plain out.txz
!xz -dc < out.txz | tar -tf - | wc -l
-tar-out /nonesuch out.tar
-tar-out /plain/file out.tar
-tgz-out /nonesuch out.tar
-txz-out /nonesuch out.tar
ln-s plain /linked
tar-out /linked out.tar
!tar -tf out.tar | LC_ALL=C sort

# cpio
cpio-out /plain out.cpio
!cpio --quiet -it < out.cpio | LC_ALL=C sort
!rm -rf out; mkdir out; cd out && cpio --quiet -idm < ../out.cpio && md5sum < sparse && stat -c '%h %a %u %g %Y' file hard && cat hard dir/sub/deep && readlink link && stat -c '%F %t %T' node fifo
cpio-out /plain out.cpio format:newc
!head -c 6 out.cpio; cpio --quiet -it < out.cpio | wc -l
cpio-out /plain out.cpio format:crc
!head -c 6 out.cpio; rm -rf out; mkdir out; cd out && cpio --quiet -idm < ../out.cpio && md5sum < sparse && cat hard
-cpio-out /plain out.cpio format:odc
-cpio-out /plain out.cpio "format:"
-cpio-out /nonesuch out.cpio
-cpio-out /plain/file out.cpio
cpio-out /linked out.cpio
!cpio --quiet -it < out.cpio | wc -l
umount /
-tar-in tree.tar /
-tar-out / out.tar
-cpio-out / out.cpio
