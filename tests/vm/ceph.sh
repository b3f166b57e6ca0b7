# SPDX-License-Identifier: Apache-2.0
# A Ceph cluster on one address of the loopback: one monitor and one OSD, with keys, as real ones
# have, and a pool "rbd". Images need no manager; who wants one starts it (start_manager). In the VM it is sourced after lib.sh;
# the store's own tests have one on the machine itself.
CEPH=${CEPH:-/scratch/ceph}
CEPH_ADDRESS=${CEPH_ADDRESS:-127.0.0.1}
# Where the OSD keeps its data: on the disk, or in memory (memstore).
OBJECT_STORE=${OBJECT_STORE:-bluestore}
# How long each step may take, in seconds: Ceph's programs are large, and the CPU may be emulated.
PATIENCE=300

# ceph_key FILE NAME CAPABILITY...: makes a key; the monitor knows it from the start
ceph_key() {
    ceph-authtool --create-keyring $CEPH/$1 --gen-key -n "$2" "${@:3}" &&
        ceph-authtool $CEPH/all.keyring --import-keyring $CEPH/$1
}

# ceph_configure FSID: what all of its programs read
ceph_configure() {
    cat >$CEPH/ceph.conf <<END
[global]
fsid = $1
mon_host = [v2:$CEPH_ADDRESS:3300,v1:$CEPH_ADDRESS:6789]
public_addr = $CEPH_ADDRESS
cluster_addr = $CEPH_ADDRESS
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
auth_allow_insecure_global_id_reclaim = false
run_dir = $CEPH
crash_dir = $CEPH
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
[client.admin]
keyring = $CEPH/admin.keyring
[mon]
log_file = $CEPH/\$name.log
pid_file = $CEPH/\$name.pid
mon_data = $CEPH/mon
mon_cluster_log_file = $CEPH/cluster.log
mon_allow_pool_size_one = true
mon_data_avail_warn = 2
mon_data_avail_crit = 1
[mgr]
log_file = $CEPH/\$name.log
pid_file = $CEPH/\$name.pid
mgr_data = $CEPH/mgr
mgr_initial_modules =
keyring = $CEPH/mgr.keyring
[osd]
log_file = $CEPH/\$name.log
pid_file = $CEPH/\$name.pid
osd_data = $CEPH/osd
keyring = $CEPH/osd.keyring
osd_class_update_on_start = false
osd_crush_initial_weight = 1
osd_objectstore = $OBJECT_STORE
memstore_device_bytes = $((1 << 30))
# What an OSD remembers of each write is memory, of which a process in User-Mode Linux may map 256 MiB.
osd_min_pg_log_entries = 32
osd_max_pg_log_entries = 64
osd_target_pg_log_entries_per_osd = 0
osd_pg_log_dups_tracked = 64
osd_op_num_shards = 2
osd_op_num_threads_per_shard = 1
bluestore_block_size = $((2 << 30))
bluestore_block_db_create = false
bluestore_cache_autotune = false
bluestore_cache_size = $((32 << 20))
END
}

# The monitor's tool; it waits for the monitor, and wants a standard input.
ceph_do() { timeout $PATIENCE ceph --connect-timeout $PATIENCE "$@" </dev/null; }

start_osd() { ceph-osd -i 0; }
# The monitor goes on without it, and clients wait.
stop_osd() { kill -9 $(<$CEPH/osd.0.pid) && within 20 ended $(<$CEPH/osd.0.pid); }

# Makes the cluster and starts it, with what went wrong if something does.
start_cluster() {
    local fsid uuid
    mkdir -p $CEPH/mon $CEPH/osd
    fsid=$(</proc/sys/kernel/random/uuid) uuid=$(</proc/sys/kernel/random/uuid)
    export CEPH_CONF=$CEPH/ceph.conf
    ceph_configure $fsid
    ceph-authtool --create-keyring $CEPH/all.keyring --gen-key -n mon. --cap mon 'allow *' &&
        ceph_key admin.keyring client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' &&
        ceph_key osd.keyring osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' --cap mgr 'allow profile osd' &&
        monmaptool --create --fsid $fsid --addv a "[v2:$CEPH_ADDRESS:3300,v1:$CEPH_ADDRESS:6789]" $CEPH/monmap &&
        ceph-mon -i a --mkfs --monmap $CEPH/monmap --keyring $CEPH/all.keyring && ceph-mon -i a &&
        ceph_do osd new $uuid 0 && ceph-osd -i 0 --mkfs --osd-uuid $uuid && start_osd &&
        ceph_do osd pool create rbd 8 8 && timeout $PATIENCE rbd pool init rbd && return
    tail -n 10 $CEPH/*.log
    return 1
}

# Starts a manager, which knows what services there are.
start_manager() {
    local turn
    mkdir -p $CEPH/mgr &&
        ceph_do auth get-or-create mgr.x mon 'allow profile mgr' osd 'allow *' -o $CEPH/mgr.keyring &&
        ceph-mgr -i x && for turn in {1..100}; do
            ceph_do mgr stat | grep -q '"available": true' && return
            sleep 0.5
        done
    tail -n 10 $CEPH/mgr.x.log
    return 1
}

# Ends all of them, however they are.
stop_cluster() {
    local file
    for file in "$CEPH"/{mgr.x,osd.0,mon.a}.pid; do
        [ ! -e "$file" ] || kill -9 "$(<"$file")"
    done
}
