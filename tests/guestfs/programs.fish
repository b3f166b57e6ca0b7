# SPDX-License-Identifier: Apache-2.0
# disks: 256M
# Programs of the guest: what they find, what they yield, how they fail.
run
mkfs ext4 /dev/sda
mount /dev/sda /
!cp /bin/busybox busybox 2>/dev/null || true
mkdir-p /bin
mkdir /dev
mkdir /proc
mkdir /sys
mkdir /tmp
mkdir /etc
upload busybox /bin/busybox
chmod 0755 /bin/busybox
ln-s busybox /bin/sh
-command ""
-command /nonesuch
command "/bin/busybox echo hello world"
command "busybox echo found by path"
command "/bin/busybox printf 'a\nb\n\nc'"
command-lines "/bin/busybox printf 'a\nb\n\nc'"
command-lines "/bin/busybox printf 'a\nb\n'"
command-lines "/bin/busybox printf 'a\r\nb\r\n'"
command-lines "/bin/busybox printf ''"
command-lines "/bin/busybox printf '\n'"
sh "echo $((1 + 2)); echo error >&2"
sh-lines "echo one; echo two; printf three"
-sh "exit 1"
-sh "exit 77"
-sh "echo some failure >&2; echo out; exit 2"
-sh "kill -9 $$"
-sh "kill -15 $$"
-command "/bin/busybox false"
-command "/etc"
write /notexec "x"
-command "/notexec"
chmod 0755 /notexec
-command "/notexec"
-sh "nonesuch"
sh "pwd"
sh "id -u"
sh "ls /dev/null /proc/self/exe /sys/kernel | busybox head -1"
sh "echo $LC_ALL"
sh "busybox mount | busybox grep -c /nonesuch || true"
sh "ls /dev/sda"
sh "busybox cat < /dev/stdin"
sh "umask"
sh "printf 'x\\000y'" | od -c
set-trace false
sh "busybox yes | busybox head -c 1000000" | wc -c
set-trace true
-sh "busybox yes | busybox head -c 5000000" | wc -c
sh "busybox sleep 0.1 & exit 0"
ls /dev
ls /proc
ls /sys
sh "touch /dev/made-by-guest; busybox rm /dev/made-by-guest"
rm-rf /sys
rmdir /proc
sh "echo no proc"
ln-s /nonesuch /proc
sh "echo dangling proc"
mountpoints
umount-all
-command "/bin/busybox echo x"
-sh "echo x"
