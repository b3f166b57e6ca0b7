#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# cluster.sh DAEMON rbd|glfs: an image of a Ceph cluster, or a file of a Gluster volume, that runs in
# this VM: as a disk, under other images, with its server killed and stopped, its daemon killed, its
# size changed by another client, and 64 devices of it.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1 KIND=$2 DEVICES=${3:-64}
LOG=/var/log/tcmu-runner.log
MB=48

# Of each kind: a server; an image, its name in a configuration string, a larger size, its content as
# another client reads it, its removal; a server that is killed, started again, stopped, continued.
case $KIND in
rbd)
    . "$REPO/tests/vm/ceph.sh"
    start_server() { start_cluster; }
    create() { rbd create $1 --size ${2}M; }
    name() { echo "rbd/rbd/$1;conf=$CEPH_CONF;osd_op_timeout=90"; }
    enlarge() { rbd resize --no-progress --size ${2}M $1; }
    content() { rbd export --no-progress $1 -; }
    kill_server() { stop_osd; }
    restart_server() { start_osd; }
    server() { cat $CEPH/osd.0.pid; }
    ;;
glfs)
    . "$REPO/tests/vm/gluster.sh"
    start_server() { start_gluster; }
    create() { truncate -s ${2}M $GLUSTER/brick/$1; }
    name() { echo "glfs/vol@$GLUSTER_ADDRESS/$1"; }
    content() { cat $GLUSTER/brick/$1; }
    kill_server() { kill -9 $(brick) && within 20 ended $(brick); }
    restart_server() { start_brick; }
    server() { brick; }
    ;;
esac

t=$(now)
must "the server runs" start_server
note "after $(since $t) hundredths of a second"
must "the daemon starts" start "$DAEMON"
truncate -s ${MB}M /scratch/a.img
must "a device beside it" eval 'mk_dev a $((MB << 20)) file//scratch/a.img && lun a 0'
A=$DISK
must "an image" create image $MB
must "it is enabled" mk_dev r $((MB << 20)) "$(name image)"
must "it becomes a disk" lun r 1
R=$DISK R_SG=$SG R_SDEV=$SDEV
note_daemon
check "what is larger than its image is refused" eval 'not mk_dev bad $((MB << 21)) "$(name image)"; rmdir $(dev bad)'
check "what there is not is refused, with its errno" eval 'not mk_dev bad $((MB << 20)) "$(name none)" 2>refused.out; cat refused.out; rmdir $(dev bad); grep -i "no such file" refused.out'

# -- a disk
head -c 1048576 /dev/urandom >r1m; head -c 1048576 /dev/urandom >s1m
written() { dd if=$R bs=1M skip=$2 count=1 iflag=direct status=none | cmp - $1; }
put() { timeout 250 dd if=$1 of=$R bs=64k seek=$(($2 * 16)) oflag=direct status=none; }
in_image() { content image | tail -c +$(($2 * 1048576 + 1)) | head -c 1048576 | cmp - $1; }
check "fio finds what it wrote" fio --name=v --filename=$R --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=16k --size=4M --verify=crc32c --output=fio.out
compound_commands $KIND $R $R_SG
filesystem $KIND $R
check "what is written is in the image" eval 'put r1m 2 && sg_sync $R_SG && in_image r1m 2'
check "it is unmapped, and reads as zeroes" eval 'put s1m 8 && sg_unmap --lba=16384 --num=2048 --force $R_SG && written <(head -c 1048576 /dev/zero) 8'

# -- another size
sees() { echo 1 >$R_SDEV/rescan; [ "$(($(cat $R_SDEV/block/*/size) * 512))" = $(($1 << 20)) ]; }
if [ $KIND = rbd ]; then
    check "another client makes the image larger, and the disk grows by itself" eval 'enlarge image $((MB + 16)) && within 20 sees $((MB + 16))'
else
    check "the administrator makes the device larger, and the file with it" eval 'echo -n $(((MB + 16) << 20)) >$(dev r)/attrib/dev_size && within 20 sees $((MB + 16))'
fi
check "the new part is written" eval 'put s1m $((MB + 8)) && written s1m $((MB + 8)) && in_image s1m $((MB + 8))'

# -- images on it
check "a qcow2 image is made on another image" eval 'create below 16 && qemu-img create -q -f qcow2 q.img 64M && truncate -s 2M q.img && mk_dev b $((16 << 20)) "$(name below)" && lun b 2 && dd if=q.img of=$DISK bs=64k oflag=direct status=none && unlun b 2 && rm_dev b'
must "the qcow2 image is enabled" eval 'mk_dev q $((64 << 20)) "qcow/$(name below)" && lun q 2'
check "fio finds what it wrote to it" fio --name=v --filename=$DISK --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=16k --size=4M --verify=crc32c --output=fio.out
check "it is removed" eval 'unlun q 2 && rm_dev q'
check "it is without errors" eval 'content below >below.qcow2 && clean_image below.qcow2'

# -- a server that is gone for a while: fio goes on, for initiators try again
others_work() { dd if=r1m of=$A bs=64k oflag=direct status=none && dd if=$A bs=64k count=16 iflag=direct status=none | cmp - r1m; }
kill_server
put r1m 4 & WRITE=$!
sleep 3
check "without its server a write waits" not ended $WRITE
check "another device is served meanwhile" others_work
must "the server is started again" restart_server
check "then the write is done" eval 'within 200 ended $WRITE; wait $WRITE'
check "and there" eval 'written r1m 4 && in_image r1m 4'
kill -STOP $(server)
put s1m 4 & WRITE=$!
sleep 3
check "while its server hangs a write waits" not ended $WRITE
check "another device is served meanwhile" others_work
kill -CONT $(server)
check "then the write is done" eval 'within 200 ended $WRITE; wait $WRITE'
check "and there" eval 'written s1m 4 && in_image s1m 4'

# -- kill -9
fio --name=k --filename=$R --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=16k --size=4M --offset=24M --rate=,1m --verify=crc32c --output=fio.out >/dev/null 2>&1 & FIO=$!
sleep 2; crash; sleep 1
must "killed under I/O, the daemon starts again" start "$DAEMON"
check "fio finds what it wrote" eval 'within 300 ended $FIO; wait $FIO || { cat fio.out; false; }'
check "the image has what was written before" eval 'written s1m 4 && in_image s1m 4'

# -- a client that is shut out
if [ $KIND = rbd ]; then
    clients() { rbd status image | grep -o '127\.0\.0\.1:[^ ]*'; }
    check "the cluster shuts this host out" eval '[ -n "$(clients)" ] && for client in $(clients); do ceph_do osd blocklist add $client 600; done'
    check "writes go on, by a new client" eval 'put r1m 6 || put r1m 6; grep "open again, by a new client" $LOG'
    check "and the image has them" eval 'written r1m 6 && in_image r1m 6'

    # -- a group with implicit access: the lock is taken for it, and taken again by the next client
    group=$(dev r)/alua/ours
    locked() { grep -c "rbd/rbd/image: has the lock for group 7" $LOG; }
    check "a group is made" eval 'mkdir $group && echo 7 >$group/tg_pt_gp_id && echo 1 >$group/alua_access_type && echo ours >$LOOP/tpgt_1/lun/lun_1/alua_tg_pt_gp; sg_turs $R_SG; sleep 1.5'
    check "a write takes the lock for it" eval 'put s1m 2 && [ $(locked) = 1 ] && rbd lock ls image | grep client'
    check "the image says for which group" eval 'rbd image-meta get image tcmu_rbd_locker_tag | grep "^tcmu_tag=7,"'
    check "the cluster shuts this host out again" eval 'for client in $(clients); do ceph_do osd blocklist add $client 600; done'
    check "writes go on, with the lock" eval 'put r1m 2 || put r1m 2; [ $(locked) = 2 ]'
    check "and the image has them" eval 'written r1m 2 && in_image r1m 2'
    check "the group is removed" eval 'echo default_tg_pt_gp >$LOOP/tpgt_1/lun/lun_1/alua_tg_pt_gp; rmdir $group'
    check "without it writes go on" eval 'put s1m 2 && in_image s1m 2'

    # -- another image in its place, which has no lock
    shows_lock() { ${DAEMON%% *} status | tee status.out | awk '/^user_/ { r = $1 == "user_0/r" } r' | grep "^  lock "; }
    check "status says who has the lock" eval 'shows_lock || { cat status.out; false; }'
    check "another image without a lock takes its place" eval 'rbd create plain --size $((MB + 16))M --image-feature layering && echo -n "$(name plain)" >$(dev r)/attrib/dev_config && put r1m 2 && rbd export --no-progress plain - | tail -c +2097153 | head -c 1048576 | cmp - r1m'
    check "status shows no lock" eval '! shows_lock'
    check "the first image takes its place again" eval 'echo -n "$(name image)" >$(dev r)/attrib/dev_config && written s1m 2'
fi

# -- removed under I/O
fio --name=h --filename=$R --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bs=4k --size=${MB}M --time_based --runtime=300 --output=h.out >/dev/null 2>&1 & HOT=$!
within 20 flowing $R
check "it is removed under I/O" eval 'unlun r 1 && rm_dev r'
check "the initiator sees that it is gone" within 60 ended $HOT

# -- many
many() { local i; for i in $(seq $DEVICES); do "$1" $i || { echo "device $i"; return 1; }; done; }
made() { create m$1 8; }
enabled() { mk_dev m$1 $((8 << 20)) "$(name m$1)"; }
on() { lun m$1 $((1 + $1)) && DISKS[$1]=$DISK; }
own() { printf 'device %08d\n%.0s' $(yes $1 | head -240) | dd of=${DISKS[$1]} bs=4096 seek=$1 conv=sync oflag=direct status=none; }
same() { dd if=${DISKS[$1]} bs=4096 skip=$1 count=1 iflag=direct status=none | head -1 | grep -qx "device $(printf %08d $1)"; }
gone() { unlun m$1 $((1 + $1)) && rm_dev m$1; }
DISKS=()
t=$(now)
must "$DEVICES images" many made
must "all of them are enabled" many enabled
note "in $(since $t) hundredths of a second"
note_daemon
must "all of them become disks" many on
check "each is written" many own
check "each reads its own bytes" many same
crash
must "killed, the daemon starts again" start "$DAEMON"
check "each reads its own bytes again" many same
check "all of them are removed" many gone

check "the other device is removed" eval 'unlun a 0 && rm_dev a'
check "SIGTERM ends the daemon" stop 20
check "no ring was broken" ring_is_whole
check "no task is stuck in the kernel" no_stuck
finish
