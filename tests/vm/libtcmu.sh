#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# libtcmu.sh DAEMON PACKAGE [valgrind]: a C program on libtcmu (crates/libtcmu/examples/consumer.c) with
# our library, which lies beside the daemon; the same program watched by the compiler's sanitizers, and
# by valgrind if that is asked for; and the same program with Debian's library, whose package's files
# are in the directory PACKAGE: it answers initiators in the same way.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1 DEBIANS=$(echo $2/usr/lib/*) VALGRIND=${3:-}
LIB=$REPO/crates/libtcmu
MB=32
BYTES=$((MB << 20))
INSTALLED=$WORK/ours
mkdir -p $INSTALLED && cp "$(dirname "${DAEMON%% *}")/liblibtcmu.so" $INSTALLED/libtcmu.so.2 && ln -sf libtcmu.so.2 $INSTALLED/libtcmu.so
compile() { cc -Wall -Wextra -Werror "$@" $LIB/examples/consumer.c -I$LIB/include -L$INSTALLED -ltcmu -lpthread; }
must "the program compiles with the headers and links" compile -o consumer
modprobe target_core_user && modprobe -a tcm_loop sd_mod sg

# consumer DIR ARGUMENT...: starts the program on the library in DIR; sets CONSUMER
PROGRAM=./consumer
consumer() {
    : >consumer.out
    LD_LIBRARY_PATH=$1 $PROGRAM "${@:2}" >>consumer.out 2>>$DAEMON_LOG & CONSUMER=$!
    within 120 grep -q ready consumer.out
}
end() { kill $CONSUMER && within ${1:-10} ended $CONSUMER && wait $CONSUMER; }

# disk NAME N CONFIG: a device that becomes LUN N
disk() { mk_dev $1 $BYTES "$3" && lun $1 $2; }
gone() { unlun $1 $2 && rm_dev $1; }
verified() {
    fio --name=v --filename=$1 --direct=1 --ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --size=$2M \
        --verify=crc32c --verify_fatal=1 --output=v.out "${@:3}" >/dev/null 2>&1 || { cat v.out; false; }
}
# status N: how reading block N of the disk ends: the sense, and how often it was tried
status() {
    local out
    out=$(timeout 60 sg_raw -r 512 $SG 28 00 00 00 00 $(printf %02x $1) 00 00 01 00 2>&1)
    echo "$1: $(grep -iE 'sense key|additional sense|field|info|status|progress|completed|descriptor' <<<"$out" | tr -s ' \n' ' ')"
}
# statuses DIR: all of them with the library in DIR
statuses() {
    local i
    consumer $1 && disk st 7 status/all || return 1
    for i in $(seq 28); do status $i; done
    gone st 7 && end
}

# -- ours
must "the program starts" consumer $INSTALLED -l /scratch
must "a device becomes a disk" disk a 0 mem/a
A=$DISK A_SDEV=$SDEV
must "one of another subtype, whose commands end in any order" disk b 1 late/b
B=$DISK
check "what is written reads back" verified $A 16
check "also where commands end in any order" verified $B 16
check "ext4 on it" eval 'mkfs.ext4 -q $B && mount $B /mnt && dd if=/dev/urandom of=/mnt/f bs=1M count=8 status=none && cp /mnt/f f && umount /mnt && mount $B /mnt && cmp f /mnt/f; umount /mnt'
check "INQUIRY names the program's disk" eval 'sg_inq $SG | grep "RAM disk"'
check "an opcode that the program does not know" sense "illegal request" "invalid command operation code" $SG 3c 00 00 00 00 00 00 00 00 00
check "an address beyond the end" sense "illegal request" "logical block address out of range" -r 512 $SG 28 00 7f ff ff ff 00 00 01 00
check "a configuration that the program refuses" eval '! mk_dev bad $BYTES mem/ && rmdir $(dev bad)'
check "a subtype that nobody serves is refused at once" eval 't=$(now); ! mk_dev bad $BYTES nosuch/x && rmdir $(dev bad) && [ $(since $t) -lt 500 ]'
check "the log of the program is in its file" grep -q 'added mem/a' /scratch/tcmu-runner.log

# -- changes
(verified $A 16 --rate=,4m) & FIO=$!
must "there is I/O on it" within 60 flowing $A
check "a device grows under I/O" eval 'echo -n $((BYTES * 2)) >$(dev a)/attrib/dev_size'
check "it cannot shrink" eval '! echo -n 4096 2>/dev/null >$(dev a)/attrib/dev_size'
check "the initiator sees the new size" eval 'echo 1 >$A_SDEV/rescan; [ $(($(<$A_SDEV/block/${A#/dev/}/size) * 512)) = $((BYTES * 2)) ]'
check "another configuration is taken" eval 'echo -n mem/renamed >$(dev a)/attrib/dev_config'
check "a write cache is refused" eval '! echo -n 1 2>/dev/null >$(dev a)/attrib/emulate_write_cache'
check "the I/O went on meanwhile" wait $FIO

# -- removal under I/O
for lun in "a 0 $A" "b 1 $B"; do
    set -- $lun
    fio --name=h --filename=$3 --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bs=4k --size=${MB}M --time_based --runtime=300 --output=h.out >/dev/null 2>&1 & HOT=$!
    # Earlier, fio would make a file of the disk's name.
    must "there is I/O on $1" within 60 flowing $3
    check "the LUN of $1 is removed under I/O" timeout 60 rm $LOOP/tpgt_1/lun/lun_$2/$1
    check "its I/O ends" within 60 ended $HOT
    check "its device is removed" eval "rmdir $LOOP/tpgt_1/lun/lun_$2 && rm_dev $1"
done

# -- the end of the program
must "a device" disk c 0 late/c
C=$DISK
fio --name=k --filename=$C --direct=1 --ioengine=libaio --iodepth=16 --rw=randread --bs=4k --size=${MB}M --time_based --runtime=20 --output=k.out >/dev/null 2>&1 & FIO=$!
must "there is I/O on it" within 60 flowing $C
kill -9 $CONSUMER; wait $CONSUMER 2>/dev/null
sleep 1
must "killed under I/O, it starts again" consumer $INSTALLED
check "it finds the device, and the I/O goes on" eval 'within 60 ended $FIO && wait $FIO || { cat k.out; false; }'
check "SIGTERM ends it" end
check "it has come to its end by itself" grep -q ended consumer.out
must "it starts again" consumer $INSTALLED
check "the device is removed" gone c 0
check "the program ends" end

# -- D-Bus: with our daemon beside it
must "the daemon starts" start "$DAEMON"
must "the program starts and registers" consumer $INSTALLED -r
listed() { call /org/kernel/TCMUService1 org.freedesktop.DBus.ObjectManager.GetManagedObjects | grep -q /late; }
check "its handlers are in the daemon's list" within 20 listed
valid() { call /org/kernel/TCMUService1/mem $BUS_NAME.CheckConfig string:"$1"; }
check "a configuration is checked by the program" eval 'valid mem/x | tee /dev/stderr | grep "boolean true"'
check "which gives the reason if it is wrong" eval 'valid mem/ | tee /dev/stderr | grep "there is no name"'
check "a device of the program's and one of the daemon's" eval 'truncate -s 16M /scratch/f.img && disk p 0 mem/p && verified $DISK 4 && mk_dev q 16777216 file//scratch/f.img && lun q 1 && verified $DISK 4'
check "both are removed" eval 'gone p 0 && gone q 1'
check "when the daemon is started again, the handlers are registered again" eval 'stop && start "$DAEMON" && within 20 listed'
check "when the program ends, they are gone" eval 'end && within 10 not listed'
check "the daemon ends" stop

# -- the same, watched: the first finding ends the program, and what is lost is found at its end
# found: what there is to see of findings, none
found() { ! cat found.* 2>/dev/null | grep .; }
# watched TOOL PROGRAM
watched() {
    local tool=$1; PROGRAM=$2
    rm -f found.*
    must "$tool: the daemon and the program start" eval 'start "$DAEMON" && consumer $INSTALLED -r'
    check "$tool: a configuration is checked, and the reason given if it is wrong" \
        eval 'within 60 listed && valid mem/x | grep "boolean true" && valid mem/ | grep "there is no name"'
    must "$tool: two devices become disks" eval 'disk a 0 mem/a && A=$DISK A_SDEV=$SDEV && disk b 1 late/b && B=$DISK'
    check "$tool: commands that end in any order" verified $B 2
    (verified $A 4 --rate=,1m) & FIO=$!
    must "$tool: there is I/O" within 60 flowing $A
    check "$tool: a device grows under it, and takes another configuration" \
        eval 'echo -n $((BYTES * 2)) >$(dev a)/attrib/dev_size && echo -n mem/renamed >$(dev a)/attrib/dev_config'
    check "$tool: the I/O went on meanwhile" wait $FIO
    for lun in "a 0 $A" "b 1 $B"; do
        read -r NAME NUMBER OF <<<"$lun"
        fio --name=h --filename=$OF --direct=1 --ioengine=libaio --iodepth=16 --rw=randrw --bs=4k --size=8M --time_based --runtime=300 --output=h.out >/dev/null 2>&1 & HOT=$!
        must "$tool: there is I/O on $NAME" within 60 flowing $OF
        check "$tool: $NAME is removed under it" eval 'timeout 100 rm $LOOP/tpgt_1/lun/lun_$NUMBER/$NAME && within 100 ended $HOT && rmdir $LOOP/tpgt_1/lun/lun_$NUMBER && rm_dev $NAME'
    done
    check "$tool: the program ends" end 60
    check "$tool: nothing is found" found
    must "$tool: the daemon ends" stop
    PROGRAM=./consumer
}
must "the program compiles with sanitizers" compile -g -fsanitize=address,undefined -fno-sanitize-recover=all -o sanitized
export ASAN_OPTIONS=detect_leaks=1:exitcode=9:log_path=$WORK/found UBSAN_OPTIONS=print_stacktrace=1:log_path=$WORK/found
# Addresses that are chosen at random may be those that this compiler's sanitizers need (Linux 6.12).
watched sanitizers "setarch -R ./sanitized"
if [ -n "$VALGRIND" ]; then
    must "the program compiles for valgrind" compile -g -o watched
    # What the threads that go on have at the end, the library refers to by pointers to its inside: to valgrind
    # that is possibly lost.
    watched valgrind "valgrind -q --error-exitcode=9 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite --log-file=found.valgrind ./watched"
fi

# -- how statuses look to an initiator
statuses $INSTALLED >ours.statuses
check "each status has its sense" eval 'cat ours.statuses; [ $(wc -l <ours.statuses) = 28 ]'
check "with Debian's library the program serves as well" eval 'consumer $DEBIANS && disk a 0 mem/a && disk b 1 late/b && verified $DISK 8 && gone a 0 && gone b 1 && end'
statuses $DEBIANS >debians.statuses
check "statuses look the same" diff ours.statuses debians.statuses
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
