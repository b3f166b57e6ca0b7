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
configure 'plugins_first = "rbd"'
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

# -- images of a cluster of this VM
# written FILE MiB: the disk has what is in the file, there
written() { dd if=$R bs=1M skip=$2 count=1 iflag=direct status=none | cmp - $1; }
put() { timeout 150 dd if=$1 of=$R bs=64k seek=$(($2 * 16)) oflag=direct status=none; }
sees() { echo 1 >$SDEV/rescan; [ "$(($(cat $SDEV/block/*/size) * 512))" = $(($1 << 20)) ]; }
clients() { rbd status image | grep -o '127\.0\.0\.1:[^ ]*'; }
opened() { grep -c 'user_0/r: is open again' $LOG; }
with_cluster() {
    local t before
    t=$(now)
    must "a cluster of one monitor and one OSD" start_cluster
    must "an image of it" rbd create image --size ${MB}M
    note "that took $(since $t) hundredths of a second"
    must "the image is enabled" mk_dev r $((MB << 20)) "rbd/rbd/image;conf=$CEPH_CONF;osd_op_timeout=90"
    must "it becomes a disk" lun r 1
    R=$DISK R_SG=$SG
    check "VPD page B0h has the granularity that the handler says" eval 'sg_vpd -p bl $R_SG | tee /dev/stderr | grep -i "optimal unmap granularity: 128"'
    check "an image of another size is refused" eval 'not mk_dev bad $((MB << 21)) "rbd/rbd/image;conf=$CEPH_CONF"; rmdir $(dev bad)'
    check "an image that there is not is refused" eval 'not mk_dev bad $((MB << 20)) "rbd/rbd/none;conf=$CEPH_CONF"; rmdir $(dev bad)'
    check "fio finds what it wrote" fio --name=v --filename=$R --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=16k --size=4M --verify=crc32c --output=fio.out
    compound_commands rbd $R $R_SG
    filesystem rbd $R
    head -c 1048576 /dev/urandom >r1m; head -c 1048576 /dev/urandom >s1m
    check "what is written is in the image" eval 'put r1m 2 && sg_sync $R_SG && rbd export --no-progress image image.raw && cmp -n 1048576 -i 2097152:0 image.raw r1m'
    check "it is unmapped, and reads as zeroes" eval 'put s1m 8 && sg_unmap --lba=16384 --num=2048 --force $R_SG && written <(head -c 1048576 /dev/zero) 8'

    check "the image grows, and the disk with it" eval 'rbd resize --no-progress --size $((MB + 16))M image && echo -n $(((MB + 16) << 20)) >$(dev r)/attrib/dev_size && within 10 sees $((MB + 16))'
    check "the new part is written" eval 'put s1m $((MB + 8)) && written s1m $((MB + 8))'

    # -- an OSD that is gone for a while
    stop_osd
    put r1m 4 & WRITE=$!
    sleep 5
    check "without its OSD a write waits" not ended $WRITE
    check "another device is served meanwhile" eval 'dd if=r1m of=$A bs=64k oflag=direct status=none && dd if=$A bs=64k count=16 iflag=direct status=none | cmp - r1m'
    must "the OSD is started again" start_osd
    check "then the write is done" wait $WRITE
    check "and there" written r1m 4

    # -- kill -9: the cluster gives its lock to nobody else for half a minute
    fio --name=k --filename=$R --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=16k --size=4M --offset=24M --rate=,1m --verify=crc32c --output=fio.out >/dev/null 2>&1 & FIO=$!
    sleep 2; crash; sleep 1
    must "killed under I/O, the daemon starts again" start "$DAEMON"
    check "fio finds what it wrote" eval 'wait $FIO || { cat fio.out; false; }'
    check "the image has what was written before" written r1m 2

    # -- a group with implicit access: the lock is taken for it, and when the cluster has shut this
    # host out, the device is opened again and has it again
    group=$(dev r)/alua/ours
    check "a group is made" eval 'mkdir $group && echo 7 >$group/tg_pt_gp_id && echo 1 >$group/alua_access_type && echo ours >$LOOP/tpgt_1/lun/lun_1/alua_tg_pt_gp; sg_turs $R_SG; sleep 1.5'
    check "the lock is taken for it" eval 'written r1m 2 && grep "user_0/r: has the lock for group 7" $LOG && rbd lock ls image | grep client'
    before=$(opened)
    check "the cluster shuts this host out" eval 'for client in $(clients); do ceph_do osd blocklist add $client 600; done'
    check "a write opens the image again, and is done" put s1m 2
    check "the log says so" eval '[ $(opened) -gt $before ] && [ $(grep -c "user_0/r: has the lock for group 7" $LOG) -gt 1 ]'
    check "and the image has it" written s1m 2
    echo default_tg_pt_gp >$LOOP/tpgt_1/lun/lun_1/alua_tg_pt_gp; rmdir $group

    check "it is removed" eval 'unlun r 1 && rm_dev r'
    check "the cluster knows of no client of the image any more" eval '[ -z "$(clients)" ]'
}
if [ -n "$CLUSTER" ]; then
    . "$REPO/tests/vm/ceph.sh"
    with_cluster
fi

check "the other device is removed" eval 'unlun a 0 && rm_dev a'
check "SIGTERM ends the daemon" stop 15
check "no ring was broken" ring_is_whole
check "no task is stuck in the kernel" no_stuck
finish
