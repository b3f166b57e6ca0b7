#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# package.sh OURS THEIRS-RUNNER THEIRS-LIBRARY: our Debian packages (the directory OURS) on a host whose first
# process is systemd: where there were none, and in the place of Debian's (two files) and back, while a LUN
# is under I/O.
. "$(dirname "$(realpath "$0")")/lib.sh"
. "$(dirname "$(realpath "$0")")/installed.sh"
[ -z "${BEFORE_SYSTEMD:-}" ] || exit 0
OURS=$1 THEIRS="$2 $3"
LOG=/var/log/tcmu-runner.log
MB=64
main_pid() { systemctl show -P MainPID $UNIT; }
is_ours() { /usr/bin/tcmu-runner --version | grep -q '^tcmu-runner 0\.'; }
version_of() { dpkg-query -W -f '${Version}' $1; }
install() { forget_files; dpkg -i --force-confold --force-downgrade "$@" >dpkg.out 2>&1 || { cat dpkg.out; return 1; }; }
# A repository with Debian's packages, as its suite stable.
REPOSITORY=/scratch/repository
mkdir -p $REPOSITORY && cp $THEIRS $REPOSITORY
for deb in $REPOSITORY/*.deb; do
    dpkg-deb -f $deb
    printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' ${deb##*/} $(stat -c %s $deb) $(sha256sum <$deb | cut -d' ' -f1)
done >$REPOSITORY/Packages
printf 'Suite: stable\nSHA256:\n %s %s Packages\n' $(sha256sum <$REPOSITORY/Packages | cut -d' ' -f1) $(stat -c %s $REPOSITORY/Packages) \
    >$REPOSITORY/Release
echo "deb [trusted=yes] file:$REPOSITORY ./" >sources.list
printf '%s;\n' 'APT::Get::Assume-Yes "true"' 'APT::Sandbox::User "root"' 'Dpkg::Options { "--force-confold" }' 'Dir::Etc::sourceparts "/dev/null"' \
    "Dir::Etc::sourcelist \"$PWD/sources.list\"" >apt.conf
export APT_CONFIG=$PWD/apt.conf
# readme START: runs the command of the README's that begins so
readme() {
    local command
    forget_files
    command=$(grep -m1 "^    $1" $REPO/README.md) || { echo "no such command in README.md"; return 1; }
    command=${command%%#*}
    eval "${command//.\/target\/debian/$OURS}" >apt.out 2>&1 || { echo "$command"; cat apt.out; return 1; }
}

# -- a host without either
uninstall
check "the first process is systemd" [ "$(</proc/1/comm)" = systemd ]
# What is where packages put files; not all of /usr, of which the VM's kernel would keep each file open.
snapshot() {
    find /etc /usr/bin /usr/sbin /lib/systemd /usr/share/dbus-1 /usr/share/man/man[158] /var/lib/tcmu-runner /var/log /run/tcmu* \
        /usr/share/bash-completion /usr/share/zsh /usr/share/fish /usr/share/lintian ! -path '/var/log/journal*' \
        ! -path /etc/ld.so.cache ! -path '/var/log/dpkg.log' ! -path '/var/log/apt*' 2>/dev/null
    find /usr/share/doc /usr/lib /usr/lib/*-linux-gnu /var/lib -maxdepth 1
}
snapshot | sort >before.list
must "our packages are installed where the C daemon never was" readme "apt-get install ./"
check "the daemon runs, as systemd has it" eval 'within 100 runs && is_ours'
check "it is started at boot" systemctl is-enabled -q $UNIT
check "before what restores saved targets" eval 'systemctl show -P Before $UNIT | grep -q target.service'
check "its configuration, its policy and its manual pages are there" eval '[ -e /etc/tcmu/tcmu.conf ] && [ -e /etc/dbus-1/system.d/tcmu-runner.conf ] && [ -e /usr/share/man/man8/tcmu-runner.8.gz ]'
check "check finds nothing that is missing" eval 'tcmu-runner check >check.txt || { cat check.txt; false; }'
check "status answers" eval 'tcmu-runner status | grep "no devices"'
check "what D-Bus starts it with is there" eval 'systemctl stop $UNIT && call /org/kernel/TCMUService1 org.freedesktop.DBus.Introspectable.Introspect >/dev/null && within 50 runs'
check "the other packages are installed" install $OURS/libtcmu-dev_*.deb $OURS/guestfsd_*.deb $OURS/guestfs-novm_*.deb
forget_files
check "a program in C is built with the headers" eval 'cc -o consumer /usr/share/doc/libtcmu-dev/examples/consumer.c $(pkg-config --cflags --libs libtcmu) && ldd consumer | grep "libtcmu.so.2 => /"'
check "guestfish reads a file of an image" eval 'mkdir tree && echo hello >tree/greeting && mke2fs -q -t ext4 -d tree fs.img 16M && guestfs-novm -- guestfish --ro -a fs.img -m /dev/sda cat /greeting | grep -x hello'
must "the packages are purged" dpkg --purge $NAMES
check "nothing of it runs" eval '! pgrep -x tcmu-runner'
snapshot | sort >after.list
check "nothing is left of them" eval 'diff before.list after.list'

# -- in the place of the C daemon, under I/O
must "Debian's packages are installed" install $THEIRS
must "the C daemon runs" eval 'systemctl start $UNIT && within 100 runs && ! is_ours'
HANDLERS=$(dirname /usr/lib/*/tcmu-runner/handler_file_zbc.so)
echo mine >$HANDLERS/handler_mine.so; ln -s /nowhere $HANDLERS/handler_link.so
modprobe target_core_user && modprobe -a tcm_loop sd_mod sg
qemu-img create -q -f qcow2 /scratch/q.img ${MB}M
must "a device of the C daemon becomes a disk" eval 'mk_dev q $((MB << 20)) qcow//scratch/q.img && lun q 0'
echo 180 >$SDEV/timeout
# told EXPRESSION: of what fio tells of its job
told() { python3 -c "import json; text = open('fio.json').read(); job = json.loads(text[text.index('{'):])['jobs'][0]; print($1)"; }
# swap SENTENCE COMMAND...: under fio, which writes and verifies until the command has ended; sets GAP, the
# longest time that a write took, in hundredths of a second
swap() {
    local what=$1; shift
    fio --name=v --filename=$DISK --direct=1 --ioengine=libaio --iodepth=4 --rw=randwrite --bs=4k --size=1M --rate_iops=,100 --verify=crc32c \
        --verify_fatal=1 --loops=100000 --output-format=json --output=fio.json >fio.out 2>&1 & FIO=$!
    sleep 1
    check "$what, under I/O" "$@"
    # For another round, and its verification.
    sleep 6
    kill -INT $FIO; wait $FIO
    check "$what: fio finds what it wrote" eval '[ "$(told "job[\"error\"] == 0 and job[\"read\"][\"total_ios\"] > 0")" = True ] || { cat fio.out fio.json; false; }'
    GAP=$(told "round(job['write']['clat_ns']['max'] / 1e7)")
    note "$what: the longest write took $GAP hundredths of a second"
}
swap "the C daemon is restarted" eval 'systemctl restart $UNIT && within 100 runs'
C_GAP=$GAP
before=$(main_pid)
swap "our packages take the place of Debian's" readme "apt-get install ./"
check "our daemon runs" eval 'within 100 runs && is_ours && [ $(main_pid) != $before ]'
check "and serves the device" eval 'tcmu-runner status | grep "^user_0/q  serving"'
check "initiators waited at most two seconds longer than for a restart of the C daemon" [ $GAP -le $((C_GAP + 200)) ]
check "handlers of Debian's package that are not built in serve on" eval 'ls $HANDLERS/handler_file_zbc.so && ! ls $HANDLERS/handler_qcow.so'
rm $HANDLERS/handler_file_optical.so
check "what is left of Debian's service for another init is gone" eval '[ ! -e /etc/init.d/tcmu-runner ] && ! ls -d /etc/rc*.d/*tcmu-runner'
check "it is started at boot" systemctl is-enabled -q $UNIT

# -- ours in the place of ours
rm -rf newer; mkdir newer
for deb in $(packages $OURS); do
    dpkg-deb -R $deb newer/tree && sed -i '/^Version:/s/$/+1/' newer/tree/DEBIAN/control &&
        dpkg-deb --root-owner-group -Znone -b newer/tree newer/$(basename $deb) >/dev/null
    rm -rf newer/tree
done
swap "a newer version of ours takes its place" install newer/*.deb
check "it runs" eval 'within 100 runs && [[ $(version_of tcmu-runner) == *+1 ]]'
check "a handler that was removed stays away" eval '[ ! -e $HANDLERS/handler_file_optical.so ] && ls $HANDLERS/handler_file_zbc.so'
swap "it is restarted" systemctl restart $UNIT
check "it runs after it" within 100 runs
before=$(main_pid)
swap "it is killed, and systemd starts it again" eval 'kill -9 $(main_pid) && sleep 1 && within 100 runs && [ $(main_pid) != $before ]'

# -- what an administrator has changed, and what is broken
cp -p /etc/tcmu/tcmu.conf packaged.conf
printf 'log_level = 4\nlog_dir = relative\nnonsense\n' >/etc/tcmu/tcmu.conf
: >$LOG
swap "with a broken configuration it goes back to the older version" install $(packages $OURS)
check "it runs with that" within 100 runs
check "the configuration is as it was" grep -qx nonsense /etc/tcmu/tcmu.conf
check "the log says which lines" eval 'grep "line 2: log_dir" $LOG && grep "line 3: " $LOG'
check "lines that are right count" grep -q '\[DEBUG\]' $LOG
mkdir -p /mnt/full && mount -t tmpfs -o size=64k tmpfs /mnt/full && head -c 1M /dev/zero >/mnt/full/fill 2>/dev/null
printf 'log_dir = "/mnt/full"\n' >/etc/tcmu/tcmu.conf
swap "with a full directory for its log it is restarted" systemctl restart $UNIT
check "it runs with that, too" within 100 runs
cp -p packaged.conf /etc/tcmu/tcmu.conf; systemctl restart $UNIT; umount /mnt/full

# -- and back
must "apt knows of Debian's packages" apt-get -qq update
swap "Debian's packages take their place again" readme "apt-get install --allow-downgrades"
check "the C daemon runs" eval 'within 100 runs && ! is_ours || { systemctl --no-pager -l status $UNIT; journalctl --no-pager -u $UNIT | tail -20; cat apt.out; false; }'
check "with its own handlers" eval '[ ! -e /var/lib/tcmu-runner ] && ls $HANDLERS/handler_qcow.so $HANDLERS/handler_file_optical.so'
check "the device is removed" eval 'unlun q 0 && rm_dev q'

# -- a start with many devices
N=64
for i in $(seq $N); do qemu-img create -q -f qcow2 /scratch/m$i.img 8M; mk_dev m$i $((8 << 20)) qcow//scratch/m$i.img; done
must "one of $N devices becomes a disk" lun m1 1
all_served() { [ $(tcmu-runner status | grep -c "  serving  ") = $N ]; }
# first_answer WHOSE: restarts the daemon, three times; sets T, after how long the disk answers at best, in
# hundredths of a second
first_answer() {
    local t
    T=100000
    for _ in 1 2 3; do
        t=$(now)
        systemctl restart $UNIT
        dd if=$DISK of=/dev/null bs=4k count=1 iflag=direct status=none
        t=$(since $t)
        T=$((t < T ? t : T))
        sleep 2
    done
    note "the first answer after a restart of $1 with $N devices took $T hundredths of a second"
}
first_answer "the C daemon"
C_T=$T
must "ours once more" install $(packages $OURS)
check "our daemon runs again" eval 'within 100 runs && is_ours'
check "all devices are served" within 100 all_served
first_answer ours
check "it took at most three seconds longer than with the C daemon" [ $T -le $((C_T + 300)) ]
check "all of them are served" within 100 all_served
check "they are removed" eval 'unlun m1 1; for i in $(seq $N); do rm_dev m$i || exit 1; done'
must "the packages are removed" dpkg --remove tcmu-runner libtcmu2
check "the daemon has ended" eval '! pgrep -x tcmu-runner'
check "the configuration stays" [ -e /etc/dbus-1/system.d/tcmu-runner.conf ]
must "the packages are purged at the end" dpkg --purge tcmu-runner libtcmu2
check "handlers of others stay" eval '[ $(ls $HANDLERS | wc -l) = 2 ] && grep -q mine $HANDLERS/handler_mine.so && [ -L $HANDLERS/handler_link.so ]'
rm -r $HANDLERS
snapshot | sort >after.list
check "nothing is left" diff before.list after.list
check "no task is stuck in the kernel" no_stuck
finish
