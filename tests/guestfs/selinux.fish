# SPDX-License-Identifier: Apache-2.0
# disks: 64M
# SELinux: labels of the guest's files. The kernels that this runs on do not have SELinux; labels need none.
run
-getcon
-setcon system_u:system_r:unconfined_t:s0
mkfs ext4 /dev/sda
mount /dev/sda /
mkdir-p /etc/selinux/targeted/contexts/files
mkdir-p /home/user/.ssh
mkdir-p /dev/pts
mkdir-p /var/lib
mkdir /proc
mkdir /sys
touch /etc/passwd
touch /etc/-x
touch /home/user/.ssh/id
touch /dev/node
touch /proc/file
touch /custom
ln-s /etc/passwd /etc/link
ln-s /tmp /etc/outside
write /etc/selinux/targeted/contexts/files/file_contexts "/.*\tsystem_u:object_r:default_t:s0\n/etc(/.*)?\tsystem_u:object_r:etc_t:s0\n/etc/passwd\t--\tsystem_u:object_r:passwd_file_t:s0\n/etc/link\t-l\tsystem_u:object_r:link_t:s0\n/var(/.*)?\tsystem_u:object_r:var_t:s0\n/custom\t<<none>>\n/dev(/.*)?\tsystem_u:object_r:device_t:s0\n"
write /etc/selinux/targeted/contexts/files/file_contexts.homedirs "/home/[^/]+/\\.ssh(/.*)?\tsystem_u:object_r:ssh_home_t:s0\n"
write /bad_contexts "/(\tsystem_u:object_r:default_t:s0\n"
selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts /
lgetxattrs /
lgetxattrs /etc
lgetxattrs /etc/passwd
lgetxattrs /etc/-x
lgetxattrs /etc/link
lgetxattrs /etc/outside
lgetxattrs /var/lib
lgetxattrs /custom
lgetxattrs /home/user/.ssh/id
lgetxattrs /dev
lgetxattrs /dev/node
lgetxattrs /proc/file
lgetxattrs /sys
lsetxattr security.selinux unconfined_u:object_r:etc_t:s0 30 /etc/-x
lsetxattr security.selinux unconfined_u:object_r:wrong_t:s0 32 /etc/passwd
selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts /etc
lgetxattrs /etc/-x
lgetxattrs /etc/passwd
selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts /etc force:true
lgetxattrs /etc/-x
lgetxattrs /etc/passwd
lremovexattr security.selinux /etc/passwd
selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts /etc/passwd force:false
lgetxattrs /etc/passwd
lremovexattr security.selinux /etc/passwd
selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts /etc/link
lgetxattrs /etc/passwd
-selinux-relabel /none /
-selinux-relabel none /
-selinux-relabel -x /
-selinux-relabel /etc /
-selinux-relabel /bad_contexts /
-selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts /none
-selinux-relabel /etc/selinux/targeted/contexts/files/file_contexts none
