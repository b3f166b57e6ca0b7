# SPDX-License-Identifier: Apache-2.0
# disks: 64M
# rsync, in the guest and with a daemon of this script's on the network.
set-network true
run
mkfs ext4 /dev/sda
mount /dev/sda /
mkdir-p /src/sub/deep
write /src/file hello
write /src/-x option
write /src/sub/deep/file deep
ln-s /etc/passwd /src/link
ln-s file /src/sub/link
chmod 0600 /src/file
chown 7 8 /src/file
mkdir /dest
mkdir /other
write /dest/extra extra

# In the guest
-rsync /src/ /dest/
find /dest/
rsync /src/ /dest/ archive:true
find /dest/
-rsync /src/ /dest/ archive:true deletedest:true
find /dest/
readlink /dest/link
stat /dest/file
rsync /src /dest archive:true
find /dest/
rsync /src/file /new
cat /new
rsync /src/file /dest/file2
rsync /src/-x /dest/
cat /dest/-x
rsync /src/link /other archive:true
-readlink /other/link
rsync /src/ /made archive:true
find /made/
rsync /src/ /made2/ archive:true
find /made2/
-rsync /src/ /none/none archive:true
-rsync /none /dest
-rsync /none/ /dest
-rsync /src/ /dest deletedest:true
ln-s /dest /inside
rsync /src/file /inside/
rsync /src/file /inside
ls /dest
-rsync /src/file/ /dest
-rsync src /dest
-rsync /src dest

# A link to a directory that there is on the machine, and not in the guest
mkdir /o
ln-s /tmp /o/outside
-rsync /src/ /o/outside/ archive:true
-rsync /src/file /o/outside
-rsync /src/file /o/outside/
-rsync /o/outside/ /dest archive:true
find /o/

# With a daemon
!mkdir -p tree/sub out && echo host > tree/file && echo sub > tree/sub/file && ln -s /etc/passwd tree/link && chown -R 0:0 tree
!printf 'pid file = %s/rsyncd.pid\nuse chroot = no\nuid = 0\ngid = 0\n[tree]\npath = %s/tree\n[out]\npath = %s/out\nread only = no\n' "$PWD" "$PWD" "$PWD" > rsyncd.conf
!timeout 100 rsync --daemon --no-detach --config=rsyncd.conf --address=127.0.0.1 --port=28734 </dev/null >/dev/null 2>&1 & sleep 1
mkdir /in
rsync-in rsync://127.0.0.1:28734/tree/ /in archive:true
find /in/
cat /in/sub/file
readlink /in/link
write /in/extra extra
rsync-in rsync://127.0.0.1:28734/tree/ /in/ archive:true deletedest:true
find /in/
-rsync-in rsync://127.0.0.1:28734/tree/ /in
rsync-in rsync://127.0.0.1:28734/tree/file /infile
cat /infile
-rsync-in rsync://127.0.0.1:28734/none/ /in archive:true
-rsync-in rsync://127.0.0.1:1/tree/ /in archive:true
rsync-out /src/ rsync://127.0.0.1:28734/out/ archive:true
!find out | LC_ALL=C sort; readlink out/link; stat -c %a:%u:%g out/file
rsync-out /src/sub rsync://127.0.0.1:28734/out/ archive:true deletedest:true
rsync-out /in rsync://127.0.0.1:28734/out/ archive:true
!find out | LC_ALL=C sort
-rsync-out /none rsync://127.0.0.1:28734/out/
-rsync-out /src/ rsync://127.0.0.1:28734/tree/ archive:true
-rsync-in -e:x /in
-rsync-out /src/ --daemon
-rsync-in rsync://127.0.0.1:28734/tree/ /o/outside
!kill $(cat rsyncd.pid)
