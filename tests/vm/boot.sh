#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# boot.sh OURS: a host boots, on which our packages (the directory OURS) are installed and targets are saved.
. "$(dirname "$(realpath "$0")")/lib.sh"
. "$(dirname "$(realpath "$0")")/installed.sh"
SAVED=/etc/rtslib-fb-target/saveconfig.json
MB=64
WWN=naa.5001405000000007

if [ -n "${BEFORE_SYSTEMD:-}" ]; then
    uninstall
    dpkg -i $(packages "$1") >/dev/null 2>&1 || { echo "FAIL our packages are installed"; dpkg -i $(packages "$1"); }
    systemctl enable -q rtslib-fb-targetctl.service || echo "FAIL saved targets are restored at boot"
    for i in 1 2; do qemu-img create -q -f qcow2 /scratch/$i.img ${MB}M; done
    device() {
        printf '{"name": "%s", "plugin": "user", "size": %s, "config": "%s", "wwn": "%s", "attributes": {}}' "$1" $((MB << 20)) "$2" "$3"
    }
    mkdir -p ${SAVED%/*}
    printf '{"fabric_modules": [], "storage_objects": [%s, %s], "targets": [{"fabric": "loopback", "wwn": "%s", "tpgs": [
        {"tag": 1, "enable": true, "luns": [%s, %s], "node_acls": [], "portals": [], "parameters": {}, "attributes": {}}]}]}' \
        "$(device one qcow//scratch/1.img 5b6f4f4e-9c1f-4d67-8a53-0d4d0a8e0001)" \
        "$(device two qcow//scratch/2.img 5b6f4f4e-9c1f-4d67-8a53-0d4d0a8e0002)" $WWN \
        '{"index": 0, "storage_object": "/backstores/user/one"}' '{"index": 1, "storage_object": "/backstores/user/two"}' >$SAVED
    exit
fi

check "the host has booted" eval 'systemctl is-active -q multi-user.target'
check "the daemon runs" runs
check "saved targets are restored" systemctl is-active -q rtslib-fb-targetctl.service
check "after the daemon has started" [ "$(systemctl show -P ActiveEnterTimestampMonotonic $UNIT)" -lt "$(systemctl show -P ExecMainStartTimestampMonotonic rtslib-fb-targetctl.service)" ]
check "both devices are served" eval '[ $(tcmu-runner status | grep -c "  serving  ") = 2 ] || { tcmu-runner status; false; }'
modprobe -a sd_mod sg
check "both are disks" within 20 eval '[ $(ls -d /sys/block/sd* | wc -l) = 2 ]'
D=/dev/$(basename "$(ls -d /sys/block/sd* | head -1)")
check "a disk is written and read" eval 'head -c 64k /dev/urandom >r && dd if=r of=$D bs=64k oflag=direct status=none && dd if=$D of=back bs=64k count=1 iflag=direct status=none && cmp r back'
check "no unit of the boot failed" eval '[ -z "$(systemctl --failed --no-legend)" ] || { systemctl --failed; false; }'
check "the daemon is stopped with its devices, and started again" eval 'systemctl stop $UNIT && systemctl start $UNIT && within 10 runs && dd if=$D of=back bs=64k count=1 iflag=direct status=none && cmp r back'
check "the saved targets are taken down" eval 'systemctl stop rtslib-fb-targetctl.service && ! ls -d $CFG/core/user_*/*/'
check "no task is stuck in the kernel" no_stuck
finish
