# SPDX-License-Identifier: Apache-2.0
# What a User-Mode Linux is to have before sessions run in it in namespaces, as on a host whose kernel has dm and md.

export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LC_ALL=C
here=$(dirname "$0")
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev 2>/dev/null
for dir in /tmp /run /var/tmp; do mount -t tmpfs tmpfs $dir; done
mkdir -p /tmp/modules/lib
ln -s /usr/lib/uml/modules /tmp/modules/lib/modules
printf '#!/bin/sh\nexec /sbin/modprobe -d /tmp/modules "$@"\n' > /tmp/modprobe
chmod +x /tmp/modprobe
echo /tmp/modprobe > /proc/sys/kernel/modprobe

modules() {
	for module in "$@"; do
		modprobe -d /tmp/modules $module || echo "no module $module"
	done
}
modules loop fuse dm-mod
cd /tmp || exit
