# SPDX-License-Identifier: Apache-2.0
# Shared by the suites of a host with systemd on which packages are installed.
UNIT=tcmu-runner.service
export DEBIAN_FRONTEND=noninteractive
runs() { systemctl is-active -q $UNIT && bus_has; }
# forget_files: User-Mode Linux has each file of the host's open that it knows of, and may have only so many
forget_files() { echo 2 >/proc/sys/vm/drop_caches; echo 2 >/proc/sys/vm/drop_caches; }
# packages DIRECTORY: the files of the daemon's package and the library's
packages() { echo $1/tcmu-runner_*.deb $1/libtcmu2_*.deb; }
NAMES="tcmu-runner libtcmu2 libtcmu-dev guestfsd guestfs-novm"
# uninstall: the host is as it was before it had any of them
uninstall() {
    # An index of all manual pages takes longer than all else.
    rm -f /var/lib/man-db/auto-update
    dpkg --purge --force-depends $NAMES >/dev/null 2>&1
    forget_files
    rm -rf /etc/tcmu /var/lib/tcmu-runner /usr/lib/*/tcmu-runner /var/log/tcmu-runner*
}
