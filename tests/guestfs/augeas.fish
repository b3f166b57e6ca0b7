# SPDX-License-Identifier: Apache-2.0
# disks: 200M
run
mkfs ext4 /dev/sda
mount /dev/sda /
-aug-get /files
-aug-close
mkdir /etc
write /etc/hosts "127.0.0.1 localhost\n10.0.0.1 a b c\n"
write /etc/fstab "/dev/sda1 / ext4 defaults 1 1\nbroken\n"
write /etc/hosts2 "::1 six\n"
-aug-init relative 0
aug-init / 0
aug-get /augeas/load/Hosts/incl
aug-match /augeas/load/Hosts/incl
aug-match /augeas/*
aug-get /augeas/save
aug-match /files/etc/hosts//*
aug-match /augeas//error/*
aug-get /augeas/files/etc/fstab/error/message
-aug-get /files/etc/hosts/9
-aug-get /files/etc/hosts/1
-aug-get /files/etc/hosts/[
-aug-get /files/etc/hosts/*
aug-set /files/etc/hosts/1/alias[1] foo
-aug-set /files/etc/hosts/[ foo
-aug-set /files/etc/hosts/*/alias foo
aug-defvar h /files/etc/hosts/*
aug-match $h
aug-defvar h ""
-aug-match $h
aug-defvar n 1+1
aug-defvar s 'abc'
-aug-defvar s ][
aug-defnode new /files/etc/hosts/3 xx
aug-defnode new /files/etc/hosts/3 xx
-aug-defnode new /files/etc/hosts/3[ xx
aug-get $new
aug-insert /files/etc/hosts/1 foo true
aug-insert /files/etc/hosts/1 bar false
-aug-insert /files/etc/hosts/1 foo/bar true
-aug-insert /files/etc/hosts/44 foo true
-aug-insert /files/etc/hosts/* foo true
aug-match /files/etc/hosts/*
aug-rm /files/etc/hosts/foo
aug-rm /files/etc/hosts/bar
aug-rm /files/nonesuch
-aug-rm /files/[
aug-mv /files/etc/hosts/3 /files/etc/hosts/4
-aug-mv /files/etc/hosts/33 /files/etc/hosts/4
-aug-mv /files/etc/hosts/4 /files/etc/hosts/4/5
-aug-match /files/[
aug-match /files/nonesuch
-aug-save
aug-get /augeas/files/etc/hosts/error
aug-get /augeas/files/etc/hosts/error/path
aug-rm /files/etc/hosts/4
-aug-ls /files/
-aug-ls /files/*
-aug-ls /files/etc/hosts[1]
aug-ls /files/etc
aug-ls /
aug-ls ""
aug-ls /files/etc/hosts/1
aug-ls files
aug-ls /files/etc/hosts/44
aug-clear /files/etc/hosts/1/alias
-aug-get /files/etc/hosts/1/alias
-aug-clear /files/[
-aug-clear /files/etc/hosts/*/alias
aug-setm /files/etc/hosts/* alias v
aug-setm /files/etc/hosts/*/canonical "" w
-aug-setm /files/[ "" v
aug-match /files/etc/hosts//*[.='v']
aug-rm /files/etc/hosts/2/alias[3]
aug-save
cat /etc/hosts
aug-label /files/etc/hosts
aug-label /files/etc/hosts/2[alias]
-aug-label /files/etc/hosts/*
-aug-label /files/etc/hosts/44
-aug-label /files/[
aug-transform Hosts /etc/hosts2
aug-transform Hosts.lns /etc/hosts3
aug-transform Hosts.lns /etc/hosts3 remove:true
aug-transform Nonesuch.lns /etc/hosts3
-aug-transform "" ""
aug-match /augeas/load/Hosts/*
aug-load
aug-match /augeas//error
aug-match /files/etc/hosts2/*
umount /
aug-match /files/etc/*
mount /dev/sda /
aug-set /files/etc/hosts/1/canonical after
aug-save
cat /etc/hosts
aug-init / 1
aug-set /files/etc/hosts/1/canonical backup
aug-save
ls /etc
aug-close
-aug-close
aug-init / 2
aug-set /files/etc/hosts/1/canonical newfile
aug-save
cat /etc/hosts
cat /etc/hosts.augnew
aug-init / 16
aug-set /files/etc/hosts/1/canonical noop
aug-save
aug-match /augeas/events/saved
cat /etc/hosts
aug-init / 40
aug-match /augeas/load/*
aug-init / 96
aug-match /augeas/load/*
aug-transform Hosts.lns /etc/hosts
aug-load
aug-match /files/etc/hosts/*
mkdir-p /chroot/etc
write /chroot/etc/hosts "1.2.3.4 inner\n"
aug-init /chroot 0
aug-get /files/etc/hosts/1/canonical
umount-all
-aug-get /files
-aug-init / 0
