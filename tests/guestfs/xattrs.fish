# SPDX-License-Identifier: Apache-2.0
# disks: 400M
# filesystems: ext4 xfs btrfs vfat
run
mkfs FSTYPE /dev/sda
mount /dev/sda /
touch /f
mkdir /d
ln-s f /link
ln-s /f /absolute
ln-s /nonexistent /dangling
mkfifo 0600 /fifo
# extended attributes
getxattrs /f
setxattr user.one "value" 5 /f
setxattr user.two "value" 3 /f
setxattr user.empty "" 0 /f
setxattr trusted.t "x" 1 /f
setxattr user.l "by link" 7 /link
setxattr user.a "by absolute link" 16 /absolute
-setxattr user.d "x" 1 /dangling
-setxattr user.d "x" 1 /nonexistent
setxattr user.long "x" 2 /f
-setxattr user.negative "x" -1 /f
-setxattr nonsense "x" 1 /f
-setxattr "" "x" 1 /f
-setxattr user.fifo "x" 1 /fifo
setxattr user.d "on a directory" 14 /d
getxattrs /f
getxattrs /link
getxattrs /absolute
getxattrs /d
getxattrs /fifo
-getxattrs /dangling
-getxattrs /nonexistent
lsetxattr trusted.link "on the link" 11 /link
lsetxattr user.plain "p" 1 /f
-lsetxattr user.link "x" 1 /link
-lsetxattr user.x "x" 1 /nonexistent
lgetxattrs /link
lgetxattrs /f
lgetxattrs /dangling
-lgetxattrs /nonexistent
getxattr /f user.one
getxattr /f user.empty
getxattr /link user.one
-getxattr /f user.nonexistent
-getxattr /nonexistent user.one
-getxattr /f nonsense
lgetxattr /link trusted.link
lgetxattr /f user.one
-lgetxattr /link user.one
-lgetxattr /nonexistent user.one
lxattrlist / "f d link fifo nonexistent"
lxattrlist / ""
lxattrlist /nonexistent "f"
lxattrlist /f "f"
removexattr user.two /f
removexattr user.l /link
-removexattr user.two /f
-removexattr user.two /nonexistent
lremovexattr trusted.link /link
-lremovexattr trusted.link /link
-lremovexattr trusted.link /nonexistent
getxattrs /f
lgetxattrs /link
# access control lists
chmod 0640 /f
acl-get-file /f access
-acl-get-file /f default
acl-get-file /d access
acl-get-file /d default
acl-set-file /f access u::rwx,g::rx,o::-,m::rwx,u:500:rw,g:500:x
acl-get-file /f access
filesize /f
acl-set-file /f access "user::rw-\ngroup::r--\nother::---\n"
acl-get-file /f access
lgetxattrs /f
acl-set-file /f access "u::rw,u:0:r,g::r,g:0:r,m::r,o::r"
acl-get-file /f access
acl-set-file /f access "user::rwx\nuser:5:r-x #effective:r--\ngroup::r-x\nmask::r--\nother::r--"
acl-get-file /f access
acl-get-file /link access
acl-get-file /absolute access
-acl-set-file /f access u::rw
-acl-set-file /f access u::rw,g::r,o::r,u:500:r
-acl-set-file /f access u::rw,u::r,g::r,o::r
-acl-set-file /f access nonsense
acl-set-file /f access ""
-acl-set-file /f access u::rwz,g::r,o::r
-acl-set-file /f access u:nosuchuser:rw,u::r,g::r,o::r,m::r
-acl-set-file /f nonsense u::rw,g::r,o::r
-acl-get-file /f nonsense
-acl-get-file /nonexistent access
-acl-set-file /nonexistent access u::rw,g::r,o::r
-acl-set-file /f default u::rw,g::r,o::r
acl-set-file /d default u::rwx,g::rx,o::rx,m::rx,u:4321:rwx
acl-get-file /d default
acl-get-file /d access
touch /d/inherits
acl-get-file /d/inherits access
acl-delete-def-file /d
acl-get-file /d default
acl-delete-def-file /d
acl-delete-def-file /f
-acl-delete-def-file /nonexistent
# capabilities
cap-get-file /f
cap-set-file /f cap_net_raw=ep
cap-get-file /f
getxattr /f security.capability
cap-set-file /f "cap_net_raw,cap_net_admin+ep"
cap-get-file /f
cap-set-file /f "cap_chown=p cap_fowner=ip"
cap-get-file /f
cap-set-file /f "cap_chown=i"
cap-get-file /f
cap-set-file /f "=p"
cap-get-file /f
cap-set-file /f "=ep"
cap-get-file /f
cap-set-file /f "all=p cap_chown-p"
cap-get-file /f
-cap-set-file /f "=eip cap_chown,cap_kill-ei"
cap-get-file /f
cap-set-file /f "CAP_SYS_ADMIN=ep"
cap-get-file /f
cap-set-file /f "21=ep"
cap-get-file /f
cap-set-file /f "="
cap-get-file /f
cap-set-file /f "cap_chown=p cap_kill=i cap_setuid=ip"
cap-get-file /f
cap-set-file /f "=ep cap_chown-ep"
cap-get-file /f
-cap-set-file /f "cap_chown+p=i"
cap-get-file /f
cap-set-file /f "cap_chown=p+i-p"
cap-get-file /f
-cap-set-file /f "+p"
-cap-set-file /f "cap_chown+"
cap-set-file /f "cap_chown= cap_kill=p"
cap-get-file /f
cap-set-file /f "=p =i"
cap-get-file /f
-cap-set-file /f "cap_chown,=p"
cap-set-file /f "  cap_chown=p  "
cap-get-file /f
cap-set-file /f "all+i"
cap-get-file /f
cap-set-file /f "41=p"
cap-get-file /f
-cap-set-file /f "64=p"
cap-set-file /f "cap_chown=pp"
-cap-set-file /f "cap_chown=p-"
-cap-set-file /f "cap_chown= p"
-cap-set-file /f "cap_chown==p"
cap-get-file /f
cap-set-file /f "ALL=p"
cap-get-file /f
cap-set-file /f "cap_chown=p\ncap_kill=p"
cap-get-file /f
cap-set-file /f ""
cap-get-file /f
-cap-set-file /f "cap_nonsense=ep"
-cap-set-file /f "cap_chown"
-cap-set-file /f "cap_chown=x"
-cap-set-file /f "cap_chown=e cap_kill=p"
-cap-set-file /nonexistent "cap_chown=p"
-cap-get-file /nonexistent
-cap-set-file /link cap_kill=p
cap-get-file /f
cap-get-file /link
cap-get-file /absolute
-cap-set-file /d "cap_chown=p"
cap-get-file /d
-cap-get-file /dangling
