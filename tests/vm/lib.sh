# SPDX-License-Identifier: Apache-2.0
# Shared by the suites in this directory; sourced inside the VM (cargo xtask vm). Each suite takes
# the daemon under test as its first argument, a command line split at spaces, so that the C
# daemon can be run for comparison.
#
# A check is a sentence. It prints a line "ok SENTENCE" or "FAIL SENTENCE", the latter with what
# the command said; `finish` prints how many there were, which tells a suite that came to its end
# from one that broke off.
#
# With HANDLER=SUBTYPE in the environment a handler written in C, which the daemon finds in its handler
# path, comes before what is built in. handler_SUBTYPE.expected lists the checks that it fails, with
# the reasons: such a check is ok when it fails, and a failure when it does not.
[ -n "${LUNETTE_VM:-}" ] || { echo "run this with: cargo xtask vm -- $0 DAEMON" >&2; exit 2; }

CFG=/sys/kernel/config/target
BUS_NAME=org.kernel.TCMUService1
LOOP=$CFG/loopback/naa.5001405000000001
WORK=/scratch/work
DAEMON_LOG=/scratch/daemon.log
DAEMON_PID=
CHECKS=0
FAILED=0
REPO=$(dirname "$(dirname "$(dirname "$(realpath "${BASH_SOURCE[0]}")")")")
mkdir -p $WORK && cd $WORK || exit 1

# configure LINE...: the daemon's configuration
configure() { mkdir -p /etc/tcmu && printf '%s\n' "$@" >/etc/tcmu/tcmu.conf; }

# What is expected to fail, by sentence, and which of it has been checked.
declare -A EXPECTED CHECKED
# expect FILE SCRIPT: takes what stands there of this script
expect() {
    local line sentence=
    while IFS= read -r line; do
        case $line in
        '' | '#'*) ;;
        '    '*) [ -z "$sentence" ] || EXPECTED[$sentence]=${line#    } ;;
        "$2 "*) sentence=${line#"$2 "} ;;
        *) sentence= ;;
        esac
    done <"$1"
}
if [ -n "${HANDLER:-}" ]; then
    configure "plugins_first = \"$HANDLER\""
    expect "$REPO/tests/vm/handler_$HANDLER.expected" "${0##*/}" || exit 1
fi

now() { local t; read -r t _ </proc/uptime; echo "$t"; }
# since T: hundredths of a second since T
since() { local a=${1/./} b; b=$(now); echo $((10#${b/./} - 10#$a)); }
not() { ! "$@"; }
# within S CMD...: tries until CMD succeeds, at most S seconds
within() {
    local s=$1 t; shift; t=$(now)
    until "$@"; do [ "$(since "$t")" -lt $((s * 100)) ] || return 1; sleep 0.1; done
}
# ended PID: it has ended (a zombie counts as ended)
ended() { [ ! -e /proc/$1 ] || [ "$(state $1)" = Z ]; }
state() { local s; { s=$(</proc/$1/stat); } 2>/dev/null || return; s=${s##*) }; echo "${s%% *}"; }

# threads PID: where each thread of a process is in the kernel, for a hang that is to be explained
threads() {
    local t
    for t in /proc/$1/task/*; do echo "$(<$t/comm) $(state ${t#/proc/}): $(tr '\0' ' ' <$t/wchan) $(<$t/syscall)"; done 2>/dev/null
}

# check SENTENCE CMD...: CMD succeeds
check() {
    local sentence=$1 rc why; shift
    "$@" >$WORK/check.out 2>&1; rc=$?
    CHECKS=$((CHECKS + 1))
    why=${EXPECTED[$sentence]-}
    CHECKED[$sentence]=1
    if [ -n "$why" ] && [ $rc != 0 ]; then
        echo "ok as expected, this fails: $sentence ($why)"
    elif [ -n "$why" ]; then
        FAILED=$((FAILED + 1))
        echo "FAIL this succeeds, and is expected to fail: $sentence ($why)"
    elif [ $rc = 0 ]; then
        echo "ok $sentence"
    else
        FAILED=$((FAILED + 1))
        echo "FAIL $sentence (exit $rc): $*"
        tr -d '\0' <$WORK/check.out | head -${LINES_SHOWN:-20} | sed 's/^/     | /'
    fi
    return $rc
}
# For checks that the rest depends on: a failure ends the suite.
must() { check "$@" || { FAILED=$((FAILED + 1)); finish; exit 1; }; }
note() { echo "# $*"; }

finish() {
    local sentence
    for sentence in "${!EXPECTED[@]}"; do
        [ -z "${CHECKED[$sentence]-}" ] || continue
        FAILED=$((FAILED + 1))
        echo "FAIL this is expected to fail, and was not checked: $sentence"
    done
    if [ "$FAILED" != 0 ]; then
        local f
        for f in $DAEMON_LOG /var/log/tcmu-runner.log; do
            [ -s $f ] && { echo "     -- end of $f --"; tail -25 $f | sed 's/^/     | /'; }
        done
        dmesg | grep -vE ' vm: |9p' | tail -15 | sed 's/^/     | kernel: /'
    fi
    echo "1..$CHECKS"
    [ "$FAILED" = 0 ]
}

# The system bus with our policy. Activation is switched off: it would start an installed daemon
# instead of the one under test.
start_dbus() {
    [ -S /run/dbus/system_bus_socket ] && return
    rm -f /usr/share/dbus-1/system-services/$BUS_NAME.service
    rm -f /etc/dbus-1/system.d/tcmu-runner.conf /usr/share/dbus-1/system.d/tcmu-runner.conf
    cp "$REPO/dist/dbus-1/tcmu-runner.conf" /etc/dbus-1/system.d/
    dbus-daemon --system --fork --nopidfile --nosyslog
}
bus_has() {
    dbus-send --system --print-reply --dest=org.freedesktop.DBus /org/freedesktop/DBus \
        org.freedesktop.DBus.NameHasOwner string:$BUS_NAME 2>/dev/null | grep -q true
}
call() { dbus-send --system --print-reply --dest=$BUS_NAME "$@"; }

# launch DAEMON: starts it and does not wait; sets DAEMON_PID
launch() { $1 >>$DAEMON_LOG 2>&1 </dev/null & DAEMON_PID=$!; }
ready() { bus_has || ended $DAEMON_PID; }
# start DAEMON: starts it and waits for its name on the bus
start() {
    modprobe target_core_user && start_dbus || return 1
    launch "$1"
    within 600 ready
    bus_has && ! ended $DAEMON_PID
}
# stop [S]: SIGTERM, and at most S seconds for the end
stop() { kill $DAEMON_PID && within ${1:-10} ended $DAEMON_PID && wait $DAEMON_PID; }
crash() { kill -9 $DAEMON_PID; wait $DAEMON_PID 2>/dev/null; true; }
# Forty characters of CPU time and memory are worth a note in each log.
note_daemon() { note "$(grep -E '^(VmRSS|Threads)' /proc/$DAEMON_PID/status | tr -s '\t\n ' ' ')"; }

# mk_dev NAME BYTES CONFIG [CONTROL...]: a TCMU device, as rtslib makes it
dev() { echo $CFG/core/user_0/$1; }
mk_dev() {
    local d bytes=$2 config=$3 c; d=$(dev "$1"); shift 3
    mkdir -p "$d" && echo -n "dev_config=$config" >"$d/control" &&
        echo -n "dev_size=$bytes" >"$d/control" || return 1
    for c in "$@"; do echo -n "$c" >"$d/control" || return 1; done
    echo -n "$(</proc/sys/kernel/random/uuid)" >"$d/wwn/vpd_unit_serial"
    echo -n 1 >"$d/enable"
}
rm_dev() { timeout 60 rmdir "$(dev "$1")"; }

# lun NAME N: exports it over tcm_loop as LUN N; sets DISK (/dev/sdX) and SG (/dev/sgN)
lun() {
    modprobe -a tcm_loop sd_mod sg || return 1
    local t=$LOOP/tpgt_1
    [ -e $t/nexus ] || { mkdir -p $t && echo -n naa.5001405000000002 >$t/nexus; } || return 1
    mkdir -p $t/lun/lun_$2 && ln -s "$(dev $1)" $t/lun/lun_$2/$1 && find_lun $2
}
find_lun() {
    SDEV=/sys/bus/scsi/devices/$(<$LOOP/tpgt_1/address):$1
    within 20 disk_there || return 1
    set -- $SDEV/block/*; DISK=/dev/${1##*/}
    set -- $SDEV/scsi_generic/*; SG=/dev/${1##*/}
}
disk_there() { local s; s=$(cat $SDEV/block/*/size 2>/dev/null) && [ "$s" != 0 ] && [ -d $SDEV/scsi_generic ]; }
unlun() { rm $LOOP/tpgt_1/lun/lun_$2/$1 && rmdir $LOOP/tpgt_1/lun/lun_$2; }

# image KIND FILE MiB [OPTION...]: an empty image for the backstore KIND; OPTIONs are those of qemu-img
image() {
    case $1 in
    qcow) qemu-img create -q -f qcow2 "${@:4}" $2 ${3}M ;;
    *) rm -f $2; truncate -s ${3}M $2 ;;
    esac
}

# sense KEY TEXT SG_RAW_ARGS...: the command ends in CHECK CONDITION with this sense
sense() {
    local key=$1 text=$2 out; shift 2
    out=$(sg_raw "$@" 2>&1); echo "$out"
    [[ ${out,,} == *"sense key: ${key,,}"* && ${out,,} == *"${text,,}"* ]]
}
# flowing DISK: there is I/O on it
flowing() { local a b; a=$(cat /sys/block/${1#/dev/}/stat); sleep 0.2; b=$(cat /sys/block/${1#/dev/}/stat); [ "$a" != "$b" ]; }
# hex FILE OFFSET LENGTH: bytes as hexadecimal digits; num: as a number
hex() { od -An -v -tx1 -j$2 -N$3 $1 | tr -d ' \n'; }
num() { echo $((16#$(hex "$@"))); }
rd() { dd if=$DISK of=back bs=512 skip=$1 count=$2 iflag=direct,fullblock status=none; }
# reads LBA BLOCKS FILE: the blocks hold what is in FILE
reads() { rd $1 $2 && cmp back "$3"; }

# compound_commands NAME DISK SG: COMPARE AND WRITE and WRITE SAME, at the beginning of the disk
compound_commands() {
    local name=$1 disk=$2 sg=$3
    head -c 32768 /dev/urandom >noise
    { dd if=$disk bs=512 count=1 iflag=direct status=none; head -c 512 noise; } >caw
    check "$name: COMPARE AND WRITE writes" eval "sg_compare_and_write --in=caw --lba=0 --num=1 --xferlen=1024 $sg && dd if=$disk bs=512 count=1 iflag=direct status=none | cmp -n 512 - noise"
    check "$name: COMPARE AND WRITE with other bytes is a miscompare" eval "sg_compare_and_write --in=caw --lba=0 --num=1 --xferlen=1024 $sg; [ \$? = 14 ]"
    check "$name: WRITE SAME of zeroes" eval "dd if=noise of=$disk bs=32k seek=32 oflag=direct status=none && sg_write_same --16 --in=/dev/zero --xferlen=512 --lba=2048 --num=64 $sg && dd if=$disk bs=512 skip=2048 count=64 iflag=direct status=none | cmp -n 32768 - /dev/zero"
}

FILES="/usr/share/perl5/Debconf /usr/bin/bash"
MNT=/scratch/mnt
files_are_right() { local f; for f in $FILES; do diff -r $f $MNT/${f##*/} || return 1; done; }
# filesystem NAME DISK [MEANWHILE]: an ext4 whose files are what they were when it is mounted again.
# MEANWHILE is run while they are copied.
filesystem() {
    local name=$1 disk=$2 copy
    mkdir -p $MNT
    check "$name: mkfs.ext4" mkfs.ext4 -q -F $disk
    check "$name: mount" mount $disk $MNT
    cp -r $FILES $MNT/ & copy=$!
    ${3:-:}
    check "$name: files are copied" wait $copy
    check "$name: umount" umount $MNT
    echo 3 >/proc/sys/vm/drop_caches
    check "$name: fsck finds nothing" fsck.ext4 -fn $disk
    check "$name: mounted again, the files are what they were" eval "mount $disk $MNT && files_are_right"
    umount $MNT
}

# No task is stuck in the kernel: none is in state D at two looks, a second apart.
blocked() {
    local p s
    for p in /proc/[0-9]*; do
        s=$(cat $p/stat 2>/dev/null) || continue
        s=${s##*) }
        [ "${s%% *}" != D ] || echo "${p#/proc/} $(cat $p/comm)"
    done
}
no_stuck() {
    local a b; a=$(blocked); [ -z "$a" ] && return
    sleep 1; b=$(blocked); grep -xF "$a" <<<"$b"; [ $? != 0 ]
}
ring_is_whole() { not grep -iE 'ring (is )?broken' <(dmesg); }
# After kill -9 a cluster may be allocated and not yet used by anything: a leak (exit status 3),
# which QEMU leaves, too, and no error.
sound_image() { local text; text=$(qemu-img check "$1"); case $? in 0 | 3) ;; *) echo "$text"; false ;; esac; }
clean_image() { qemu-img check -q "$1" || { qemu-img check "$1"; false; }; }
