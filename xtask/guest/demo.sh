#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# demo.sh DAEMON IMAGE FORMAT [SUMS]: the guest's part of `cargo xtask demo`. Serves a throw-away
# overlay of IMAGE, mounts what is in it, reads and writes, and cleans up. SUMS holds the sha256 of
# the files that are expected, as sha256sum writes them. What was seen is left in /share, for the
# second half: `types` that blkid found, the `device` that was mounted (nothing, or a partition's
# number), and `sums` of its files.
. "$(dirname "$(realpath "$0")")/../../tests/vm/lib.sh"
DAEMON=$1 IMAGE=$2 FORMAT=$3 SUMS=${4:-}
MNT=/scratch/mnt
say() { printf '%-10s %s\n' "$1" "$2"; }
die() { say ERROR "$1"; shift; "$@" 2>&1 | sed 's/^/           /'; exit 1; }
# hundredths N: hundredths of a second as seconds
hundredths() { printf '%d.%02d' $(($1 / 100)) $(($1 % 100)); }
human() { numfmt --to=iec-i --suffix=B "$1"; }

say Kernel "Linux $(uname -r), $(nproc) CPUs, up after $(</run/vm/boot-seconds) s of its own clock"

# -- the daemon
# The bus says so where the group of its policy is not there.
getent group tcmu >/dev/null || groupadd --system tcmu
modprobe target_core_user && start_dbus || die "no target_core_user, or no system bus" dmesg
T=$(now)
start "$DAEMON" || die "the daemon did not start:" tail -5 $DAEMON_LOG
say Daemon "$($DAEMON -V 2>&1 | head -1), on the bus after $(hundredths $(since $T)) s"

# -- the logical unit
qemu-img create -q -f qcow2 -b "$IMAGE" -F "$FORMAT" /scratch/demo.qcow2 || exit 1
bytes=$(qemu-img info -f qcow2 /scratch/demo.qcow2 | sed -n 's/^virtual size:.*(\([0-9]*\) bytes)/\1/p')
bytes=$((bytes / 512 * 512))
mk_dev demo $bytes qcow//scratch/demo.qcow2 2>err || die "the device was refused:" tail -5 err /var/log/tcmu-runner.log
lun demo 0 || die "the device did not become a disk:" dmesg
say LUN "qcow//scratch/demo.qcow2 is $DISK, $(human $bytes), through tcm_loop"
say "" "an overlay of the image, thrown away at the end: the image stays as it is"

# -- what is on it
partitions() { sleep 0.3; ls $DISK*; }
for d in $(partitions); do
    type=$(blkid -p -o value -s TYPE $d 2>/dev/null) label=$(blkid -p -o value -s LABEL $d 2>/dev/null)
    table=$(blkid -p -o value -s PTTYPE $d 2>/dev/null)
    size=$(human $(blockdev --getsize64 $d))
    [ -z "$type" ] || echo "$type" >>/share/types
    if [ -n "$type" ]; then say Found "$d: $type${label:+ \"$label\"}, $size"
    elif [ -n "$table" ]; then say Found "$d: a partition table ($table), $size"
    else say Found "$d: nothing that blkid knows, $size"; fi
    if [ -z "${FS:-}" ] && [ -n "$type" ]; then
        modprobe $type 2>/dev/null
        mkdir -p $MNT && mount -t $type $d $MNT 2>/dev/null && FS=$type FSDEV=$d
    fi
done

sum() { sha256sum "$1" | cut -c1-16; }
MB=16
head -c $((MB << 20)) /dev/urandom >/scratch/data
want=$(sum /scratch/data)
if [ -n "${FS:-}" ]; then
    say Mounted "$FSDEV ($FS)"
    df -h --output=size,used,avail $MNT | sed -n '2{s/ *\([^ ]*\) *\([^ ]*\) *\([^ ]*\)/size \1, used \2, free \3/;s/^/           /;p}'
    files=$(find $MNT -xdev -type f | wc -l)
    t=$(now)
    if [ -n "$SUMS" ]; then
        (cd $MNT && sha256sum --quiet -c "$SUMS") >sums.out 2>&1 || die "the files are not what they were:" cat sums.out
        say Read "$files files, $(human $(du -sb $MNT | cut -f1)), each with its sha256, in $(hundredths $(since $t)) s"
        cp "$SUMS" sums
    else
        (cd $MNT && find . -xdev -type f | head -200 | xargs -d '\n' -r sha256sum) >sums 2>sums.err
        say Read "$(wc -l <sums) of $files files, in $(hundredths $(since $t)) s; sha256 of their sums $(sum sums)..."
    fi
    echo "${FSDEV#$DISK}" >/share/device
    cp sums /share/sums
    ls -1p $MNT | head -8 | paste -sd' ' | sed 's/^/           /'
    t=$(now)
    if cp /scratch/data $MNT/lunette-demo.bin 2>cp.err && sync -f $MNT; then
        say Wrote "lunette-demo.bin, $MB MiB, sha256 $want..., in $(hundredths $(since $t)) s"
        umount $MNT; echo 3 >/proc/sys/vm/drop_caches
        mount -t $FS $FSDEV $MNT || die "it cannot be mounted again" dmesg
        got=$(sum $MNT/lunette-demo.bin)
        [ "$got" = "$want" ] || die "what was written does not read back: sha256 $got"
        say "Read back" "after umount and mount, caches dropped: sha256 $got..."
        rm $MNT/lunette-demo.bin
    else
        say Wrote "nothing: $(tail -1 cp.err)"
    fi
    umount $MNT
else
    say Mounted "nothing: no file system that this kernel mounts; reading and writing blocks instead"
    n=$((bytes / 1048576 < MB ? bytes / 1048576 : MB))
    head -c $((n << 20)) /scratch/data >part; want=$(sum part)
    dd if=part of=$DISK bs=1M oflag=direct status=none || die "cannot write" dmesg
    dd if=$DISK of=back bs=1M count=$n iflag=direct status=none
    [ "$(sum back)" = "$want" ] || die "what was written does not read back"
    say Wrote "$n MiB of blocks, and read them back: sha256 $want..."
fi

# -- speed, on blocks of the overlay that are allocated
n=$((bytes / 1048576 < MB ? bytes / 1048576 : MB))
dd if=/scratch/data of=$DISK bs=1M count=$n oflag=direct status=none
speed() { # NAME RW BS QD FIELD
    local iops
    iops=$(fio --name=j --filename=$DISK --direct=1 --ioengine=libaio --rw=$2 --bs=$3 --iodepth=$4 --time_based \
        --runtime=2 --size=${n}M --norandommap --randrepeat=1 --output-format=terse --terse-version=3 2>/dev/null | tail -1 | cut -d';' -f$5)
    printf '%-10s %-15s QD %-3s %7s IOPS %6s MiB/s\n' "$1" "$2 $3" $4 "$iops" $((iops * ${3%k} / 1024))
}
[ $n = 0 ] || {
    speed Speed randread 4k 1 8
    speed "" randread 4k 32 8
    speed "" randwrite 4k 32 49
    speed "" read 64k 32 8
}
note_daemon() { say "" "the daemon's memory: $(awk '/^VmRSS/ { print $2 " kB" }' /proc/$DAEMON_PID/status), $(awk '/^Threads/ { print $2 }' /proc/$DAEMON_PID/status) threads"; }
note_daemon

# -- the end
unlun demo 0 && rm_dev demo || die "the device cannot be removed" dmesg
t=$(now); stop 10 || die "the daemon does not end"
say "Cleaned up" "LUN and device removed, daemon ended in $(hundredths $(since $t)) s"
out=$(qemu-img check /scratch/demo.qcow2 2>&1) || die "qemu-img check:" echo "$out"
say "" "qemu-img check of the overlay: $(head -1 <<<"$out")"
