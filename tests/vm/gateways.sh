#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# gateways.sh DAEMON OPEN-ISCSI LIBISNS LIBOPENISCSIUSR: an image of a Ceph cluster behind two iSCSI
# gateways, of which the second is in the other VM of a pair; here are the cluster, the first gateway, and
# the kernel's initiator, which has a path to each and a multipath device on both. The second gateway has
# the lock when its daemon is killed, stopped, or cut off from the cluster. The packages are unpacked.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1
export PATH=$2/sbin:$PATH LD_LIBRARY_PATH=$(echo $3/usr/lib/*-linux-gnu):$(echo $4/usr/lib/*-linux-gnu)
CEPH_ADDRESS=10.7.7.1 INITIATOR=10.7.7.3
. "$REPO/tests/vm/ceph.sh"
LOG=/var/log/tcmu-runner.log
MB=64
# That of the image on both gateways, by which an initiator knows that they are paths to one disk.
SERIAL=5e1f7d0c-8a52-4a0e-9d5b-3d7c0f0a77aa
PEER=/run/vm/peer TOLD=0

# peer COMMAND: runs it in the other VM
peer() {
    local n=$((++TOLD)) rc
    echo "$*" >$PEER/$n.new && mv $PEER/$n.new $PEER/$n.do
    within ${PATIENCE_OF_PEER:-40} [ -e $PEER/$n.rc ] || { echo "the other VM has not done: $*"; return 1; }
    cat $PEER/$n.out
    return $(<$PEER/$n.rc)
}
address() { ip address add $1/24 dev vec0 && ip link set vec0 up; }

# gateway N: an iSCSI target for the image, of the target port group 10 + N with implicit access
target() { echo iqn.2003-01.org.example:gateway$1; }
gateway() {
    local at tpg group
    at=$CFG/iscsi/$(target $1) group=$(dev g)/alua/ours
    tpg=$at/tpgt_1
    modprobe -a iscsi_target_mod && mk_dev g $((MB << 20)) "rbd/rbd/image;conf=$CEPH_CONF;osd_op_timeout=90" || return 1
    echo -n $SERIAL >$(dev g)/wwn/vpd_unit_serial
    mkdir -p $tpg/lun/lun_0 && ln -s $(dev g) $tpg/lun/lun_0/g && mkdir $tpg/np/10.7.7.$1:3260 || return 1
    echo 0 >$tpg/attrib/authentication && echo 0 >$tpg/attrib/demo_mode_write_protect &&
        echo 1 >$tpg/attrib/generate_node_acls && echo 1 >$tpg/attrib/cache_dynamic_acls || return 1
    mkdir $group && echo $((10 + $1)) >$group/tg_pt_gp_id && echo 1 >$group/alua_access_type &&
        echo ours >$tpg/lun/lun_0/alua_tg_pt_gp && echo 1 >$tpg/enable
}
no_gateway() {
    local at tpg
    at=$CFG/iscsi/$(target $1)
    tpg=$at/tpgt_1
    echo 0 >$tpg/enable
    rm $tpg/lun/lun_0/g && rmdir $tpg/lun/lun_0 $tpg/np/* $tpg $at $(dev g)/alua/ours && rm_dev g
}

# start_initiator: with short times, after which a path that does not answer is given up
start_initiator() {
    modprobe -a iscsi_tcp sd_mod sg dm-multipath dm-round-robin || return 1
    mkdir -p /etc/iscsi /run/lock/iscsi
    echo InitiatorName=iqn.2003-01.org.example:initiator >/etc/iscsi/initiatorname.iscsi
    cat >/etc/iscsi/iscsid.conf <<END
node.session.timeo.replacement_timeout = 2
node.conn[0].timeo.login_timeout = 5
node.conn[0].timeo.logout_timeout = 5
node.conn[0].timeo.noop_out_interval = 0
node.conn[0].timeo.noop_out_timeout = 0
node.session.err_timeo.abort_timeout = 1
node.session.err_timeo.lu_reset_timeout = 1
node.session.err_timeo.tgt_reset_timeout = 1
END
    iscsid -f >/scratch/iscsid.log 2>&1 </dev/null &
    within 20 iscsiadm -m iface >/dev/null
}
# path N: its disk, in DISKS and SGS
DISKS=() SGS=()
path() {
    local at="-T $(target $1) -p 10.7.7.$1:3260" session
    iscsiadm -m node -o new $at && iscsiadm -m node $at --login || return 1
    for session in /sys/class/iscsi_session/session*; do
        [ "$(<$session/targetname)" = "$(target $1)" ] || continue
        within 20 eval "ls $session/device/target*/*/block && ls $session/device/target*/*/scsi_generic" || return 1
        set -- $1 $session/device/target*/*/block/* $session/device/target*/*/scsi_generic/*
        DISKS[$1]=/dev/${2##*/} SGS[$1]=/dev/${3##*/}
        return
    done
    return 1
}

must "the VMs have a network between them" eval 'address $CEPH_ADDRESS && address $INITIATOR; ip route add 10.7.7.2 dev vec0 src $INITIATOR && peer "export LUNETTE_VM=1; . $REPO/tests/vm/lib.sh; $(declare -f address gateway no_gateway target); address 10.7.7.2" && busybox ping -c 1 10.7.7.2'
t=$(now)
must "a cluster of one monitor and one OSD" start_cluster
must "an image of it" rbd create image --size ${MB}M
note "that took $(since $t) hundredths of a second"
must "the other VM gets its configuration and the key" eval 'cp $CEPH/ceph.conf $CEPH/admin.keyring $PEER/ && peer "CEPH=$CEPH MB=$MB SERIAL=$SERIAL; mkdir -p $CEPH && cp /run/vm/ceph.conf /run/vm/admin.keyring $CEPH/ && export CEPH_CONF=$CEPH/ceph.conf"'
must "a daemon starts in both" eval 'start "$DAEMON" && peer "start \"$DAEMON\""'
must "the first gateway has the image" gateway 1
must "the second gateway has it, too" peer gateway 2
must "the initiator has a path to each" eval 'start_initiator && path 1 && path 2'

# -- both live: the lock goes to whoever is written to, and nobody is shut out
head -c 1048576 /dev/urandom >r1m; head -c 1048576 /dev/urandom >s1m
put() { timeout 60 dd if=$2 of=$1 bs=64k seek=$(($3 * 16)) oflag=direct status=none; }
has() { timeout 60 dd if=$1 bs=1M skip=$3 count=1 iflag=direct status=none | cmp - $2; }
optimized() { sg_rtpg -d ${SGS[$1]} | tee /dev/stderr | grep -A8 "target port group id : 0x$(printf %x $((10 + $1)))" | grep -q 'access state.*active/optimized'; }
for_group() { rbd image-meta get image tcmu_rbd_locker_tag | tee /dev/stderr | grep -q "^tcmu_tag=$((10 + $1)),"; }
shut_out() { ceph_do osd blocklist ls 2>/dev/null | grep -o "10\.7\.7\.$1:[0-9]*/[0-9]*"; }
# The kernel may still look for partitions, through the other path.
takes_it() { put ${DISKS[1]} r1m 1 && for_group 1 && optimized 1 && not optimized 2; }
check "a write through the first takes the lock for its group" within 20 takes_it
check "a write through the second takes it over" eval 'put ${DISKS[2]} s1m 2 && for_group 2 && optimized 2 && within 10 not optimized 1'
check "each reads what came through the other" eval 'has ${DISKS[1]} s1m 2 && has ${DISKS[2]} r1m 1'
in_turn() { local i; for i in {1..5}; do put ${DISKS[1]} r1m 3 && put ${DISKS[2]} s1m 3 && has ${DISKS[1]} s1m 3 || return 1; done; }
t=$(now)
check "they take turns, and the later write stays" in_turn
note "10 turns in $(since $t) hundredths of a second"
check "nobody was shut out for that" eval 'not shut_out 1 && not shut_out 2'

# -- a multipath device, which prefers the second gateway
name() { echo ${DISKS[$1]#/dev/}; }
prefers_second() {
    dmsetup create both --table "0 $((MB * 2048)) multipath 1 queue_if_no_path 0 2 1 round-robin 0 1 1 ${DISKS[2]} 1 round-robin 0 1 1 ${DISKS[1]} 1" && dmsetup mknodes
}
number() { echo $(($(stat -c 0x%t $1))):$(($(stat -c 0x%T $1))); }
failed() { dmsetup status both | tee /dev/stderr | grep "$(number ${DISKS[$1]}) F"; }
# A path that answers is used again.
again() {
    echo running >/sys/block/$(name 2)/device/state
    timeout 60 dd if=${DISKS[2]} bs=4k count=1 iflag=direct status=none of=/dev/null && dmsetup message both 0 reinstate_path ${DISKS[2]} && dmsetup message both 0 switch_group 1
}
for N in 1 2; do echo $((N == 2 ? 5 : 60)) >/sys/block/$(name $N)/device/timeout; done
BOTH=/dev/mapper/both
must "a multipath device has both" prefers_second
check "what is written to it comes through the second" eval 'put $BOTH r1m 4 && for_group 2'

# pattern BYTE MiB [OPTION...]: 8 MiB of this byte, 16 writes of 32k under way at a time
head -c 8388608 /dev/zero | LC_ALL=C tr '\0' '\273' >newest
pattern() { timeout 120 fio --name=p --filename=$BOTH --direct=1 --ioengine=libaio --iodepth=16 --rw=write --bs=32k --size=8M --offset=${2}M --buffer_pattern=0x$1 --end_fsync=1 --output=pattern.$1 "${@:3}"; }
# What the image has, as another client of the cluster reads it: in_image FILE MiB; newer FILE MiB: bb is there
content() { rm -f image.raw; rbd export --no-progress image image.raw; }
in_image() { cmp -n 1048576 -i $(($2 * 1048576)):0 image.raw $1; }
newer() { dd if=$1 bs=1M skip=$2 count=8 iflag=direct status=none | cmp - newest; }
# fault NAME MiB BREAK MEND: the second gateway has the lock, and writes under way
fault() {
    local name=$1 at=$2 writer late fio t
    check "$name: the second gateway has the lock" eval 'put $BOTH s1m 5 && for_group 2'
    pattern aa $at --time_based --runtime=4 & writer=$!
    fio --name=v --filename=$BOTH --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=16k --size=4M --offset=24M --rate=,500k --verify=crc32c --output=fio.out & fio=$!
    sleep 1.5
    check "$name: it is, under writes" peer "$3"
    t=$(now)
    # These come when it does not answer any more.
    pattern cc $at & late=$!
    check "$name: the writes are done" eval 'within 120 ended $writer && wait $writer && within 120 ended $late; wait $late'
    note "$name: after $(since $t) hundredths of a second"
    check "$name: newer ones, to the same place, come through the first gateway" eval 'pattern bb $at && failed 2 && for_group 1'
    check "$name: fio finds what it wrote" eval 'within 120 ended $fio; wait $fio || { cat fio.out; false; }'
    check "$name: the second one is shut out" shut_out 2
    check "$name: the image has the newer writes" eval 'content && newer image.raw $at'
    check "$name: it is no more" peer "$4"
    t=$(now)
    check "$name: its path answers again" within 60 again
    note "$name: after $(since $t) hundredths of a second"
    check "$name: it reads the newer writes" newer ${DISKS[2]} $at
    check "$name: writes come through it again, and the image has all" eval 'put $BOTH r1m 6 && for_group 2 && content && in_image r1m 6 && newer image.raw $at'
    ceph_do osd blocklist clear 2>/dev/null
}
fault "killed" 32 crash "start \"$DAEMON\""
fault "stopped" 40 'kill -STOP $DAEMON_PID; within 5 [ $(state $DAEMON_PID) = T ]' 'kill -CONT $DAEMON_PID'
fault "cut off from the cluster" 48 "ip route add blackhole $CEPH_ADDRESS" "ip route del blackhole $CEPH_ADDRESS"
[ $FAILED = 0 ] || peer "tail -n 40 $LOG; dmesg | tail -n 20"

# -- the end
check "the multipath device and the paths are removed" eval 'dmsetup remove both && timeout 60 iscsiadm -m node --logout'
check "both gateways are removed" eval 'peer no_gateway 2 && no_gateway 1'
check "SIGTERM ends both daemons" eval 'stop 20 && peer stop 20'
check "no ring was broken" eval 'ring_is_whole && peer ring_is_whole'
check "no task is stuck in either kernel" eval 'no_stuck && peer no_stuck'
finish
