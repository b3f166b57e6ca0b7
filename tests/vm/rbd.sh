#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rbd.sh DAEMON PACKAGE [cluster]: Debian's handler_rbd.so, from its package tcmu-runner, which is
# unpacked in PACKAGE: devices of a Ceph cluster that cannot be reached, and with a third argument an
# image on a cluster of one monitor and one OSD in this VM.
. "$(dirname "$(realpath "$0")")/lib.sh"
PLUGINS=/scratch/plugins
DAEMON="$1 --handler-path $PLUGINS" CLUSTER=${3:-}
LOG=/var/log/tcmu-runner.log
MB=48
mkdir -p $PLUGINS
must "Debian's package has the plugin" cp $2/usr/lib/*/tcmu-runner/handler_rbd.so $PLUGINS/
must "the daemon starts with it" start "$DAEMON"
note_daemon
objects() { call /org/kernel/TCMUService1 org.freedesktop.DBus.ObjectManager.GetManagedObjects; }
check "D-Bus lists it, with what it says of its configuration strings" eval 'objects | tee /dev/stderr | grep -A40 "TCMUService1/rbd" | grep -i "image"'
truncate -s ${MB}M /scratch/a.img
must "a device beside it" eval 'mk_dev a $((MB << 20)) file//scratch/a.img && lun a 0'
A=$DISK

# -- nobody listens where the cluster should be
WAITS=40
cat >nobody.conf <<END
[global]
mon_host = 127.0.0.1:1
client_mount_timeout = $WAITS
auth_client_required = none
END
(t=$(now); mk_dev r $((MB << 20)) "rbd/rbd/image;conf=$WORK/nobody.conf" >refused.out 2>&1; echo "$? $(since $t)" >refused) & ENABLE=$!
sleep 2
check "a device of a cluster that does not answer is not there yet" not ended $ENABLE
check "another device is served meanwhile" fio --name=v --filename=$A --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k --size=2M --verify=crc32c --output=fio.out
check "another device is made and removed meanwhile" eval 'truncate -s 16M /scratch/b.img && mk_dev b 16777216 file//scratch/b.img && lun b 1 && unlun b 1 && rm_dev b'
check "D-Bus answers meanwhile" objects
check "all of that was while it waited" not ended $ENABLE
check "it is refused when the time of its configuration is over" eval 'within $((WAITS + 30)) ended $ENABLE; read -r rc hundredths <refused; cat refused refused.out; [ $rc != 0 ] && [ $hundredths -lt $(((WAITS + 30) * 100)) ]'
check "the error is that of a connection that timed out" grep -i 'timed out' refused.out
check "the log says which device, and why" grep -i 'rbd/rbd/image.*timed out' $LOG
rmdir $(dev r)
check "without its configuration file it is refused at once" eval 't=$(now); not mk_dev r $((MB << 20)) "rbd/rbd/image;conf=$WORK/none.conf"; [ $(since $t) -lt 1000 ]'
rmdir $(dev r)
check "a configuration string without an image is refused" eval 'not mk_dev r $((MB << 20)) rbd/rbd; rmdir $(dev r)'

# -- a cluster of one machine, all of it in /scratch
start_cluster() {
    local d=/scratch/ceph fsid uuid
    mkdir -p $d/mon $d/osd && cd $d || return 1
    fsid=$(</proc/sys/kernel/random/uuid) uuid=$(</proc/sys/kernel/random/uuid)
    export CEPH_CONF=$d/ceph.conf
    cat >$CEPH_CONF <<END
[global]
fsid = $fsid
mon_host = [v2:127.0.0.1:3300,v1:127.0.0.1:6789]
public_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = $d
log_file = $d/\$name.log
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_crush_chooseleaf_type = 0
[mon]
mon_data = $d/mon
mon_allow_pool_size_one = true
mon_data_avail_warn = 2
mon_data_avail_crit = 1
[osd]
osd_data = $d/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824
osd_class_update_on_start = false
osd_crush_initial_weight = 1
osd_max_object_name_len = 256
END
    monmaptool --create --fsid $fsid --addv a '[v2:127.0.0.1:3300,v1:127.0.0.1:6789]' monmap >/dev/null &&
        ceph-mon -i a --mkfs --monmap monmap && ceph-mon -i a &&
        timeout 300 ceph osd new $uuid 0 </dev/null &&
        ceph-osd -i 0 --mkfs --osd-uuid $uuid && ceph-osd -i 0 &&
        within 300 eval 'timeout 60 ceph osd stat </dev/null | grep -q "1 up"' &&
        timeout 300 ceph osd pool create rbd 8 8 </dev/null && timeout 300 rbd pool init rbd &&
        rbd create image --size ${MB}M
    local rc=$?
    tail -n 5 mon.a.log osd.0.log
    cd $WORK; return $rc
}
if [ -n "$CLUSTER" ]; then
    must "a cluster of one monitor and one OSD" start_cluster
    R="rbd/rbd/image;conf=$CEPH_CONF;osd_op_timeout=90"
    must "an image of it is enabled" mk_dev r $((MB << 20)) "$R"
    must "it becomes a disk" lun r 1
    check "fio finds what it wrote" fio --name=v --filename=$DISK --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=16k --size=4M --verify=crc32c --output=fio.out
    check "it is unmapped, and reads as zeroes" eval 'sg_unmap --lba=0 --num=8192 --force $SG && dd if=$DISK bs=64k count=64 iflag=direct status=none | cmp -n 4194304 - /dev/zero'
    head -c 1048576 /dev/urandom >r1m
    check "what is written is in the image" eval 'dd if=r1m of=$DISK bs=64k seek=32 oflag=direct status=none && sg_sync $SG && rbd export image image.raw && cmp -n 1048576 -i 2097152:0 image.raw r1m'
    { dd if=$DISK bs=512 count=1 iflag=direct status=none; head -c 512 r1m; } >caw
    check "COMPARE AND WRITE writes" sg_compare_and_write --in=caw --lba=0 --num=1 --xferlen=1024 $SG
    check "COMPARE AND WRITE of other bytes is a miscompare" eval 'sg_compare_and_write --in=caw --lba=0 --num=1 --xferlen=1024 $SG; [ $? = 14 ]'
    crash
    must "after kill -9 the daemon starts again" start "$DAEMON"
    check "the image has what was written" eval 'dd if=$DISK bs=64k skip=32 count=16 iflag=direct status=none | cmp - r1m'
    check "it is removed" eval 'unlun r 1 && rm_dev r'
fi

check "the other device is removed" eval 'unlun a 0 && rm_dev a'
check "SIGTERM ends the daemon" stop 15
check "no ring was broken" ring_is_whole
check "no task is stuck in the kernel" no_stuck
finish
