#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# bus.sh DAEMON: who may do what on the system bus, with the real dbus-daemon and our policy.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1
GID=991
truncate -s 16M /scratch/good.img
grep -q ^tcmu: /etc/group && sed -i /^tcmu:/d /etc/group
must "the daemon starts while the group of the policy does not exist" start "$DAEMON"

O=/org/kernel/TCMUService1
HM=$BUS_NAME.HandlerManager1
as_root() { "$@"; }
as_nobody() { setpriv --reuid=65534 --regid=65534 --clear-groups -- "$@"; }
as_member() { setpriv --reuid=65534 --regid=65534 --groups=$GID -- "$@"; }
ask() { dbus-send --system --print-reply --reply-timeout=30000 --dest=$BUS_NAME "$@" 2>&1; }
denied() { local o; o=$("$@"); echo "$o"; grep -q 'AccessDenied\|Rejected send message' <<<"$o"; }
answers() { local o want=$1; shift; o=$("$@"); echo "$o"; grep -q -- "$want" <<<"$o"; }
export BUS_NAME O; export -f ask
# who WHO METHOD...: the method is called by WHO
who() { local w=$1; shift; as_$w bash -c 'ask "$@"' ask "$@"; }
owns() { as_$1 python3 -c 'import dbus, sys; print(dbus.SystemBus().request_name(sys.argv[1]))' $2 2>&1; }

# The interface field of a message is optional.
no_interface() {
    as_$1 python3 -c '
import dbus, sys
from dbus.lowlevel import MethodCallMessage
message = MethodCallMessage(sys.argv[1], sys.argv[2], None, "CheckConfig")
message.append("file//etc/shadow")
try:
    print(dbus.SystemBus().send_message_with_reply_and_block(message))
except dbus.DBusException as error:
    print(error.get_dbus_name())' $BUS_NAME $O/file 2>&1
}

LIST="$O org.freedesktop.DBus.ObjectManager.GetManagedObjects"
CHECK="$O/file $BUS_NAME.CheckConfig string:file//scratch/good.img"
REGISTER="$O/HandlerManager1 $HM.RegisterHandler string:ext string:text"
everybody_reads() {
    check "$1 introspects" answers CheckConfig who $1 $O/file org.freedesktop.DBus.Introspectable.Introspect
    check "$1 reads a property" answers path who $1 $O/file org.freedesktop.DBus.Properties.Get string:$BUS_NAME string:ConfigDesc
    check "$1 reads all properties" answers path who $1 $O/file org.freedesktop.DBus.Properties.GetAll string:$BUS_NAME
}
reads_only() {
    everybody_reads $1
    check "$1 cannot have a configuration checked" denied who $1 $CHECK
    check "nor by a message that names no interface" denied no_interface $1
    check "$1 cannot register a handler" denied who $1 $REGISTER
    check "$1 cannot own a handler's name" denied owns $1 $HM.evil
    check "$1 cannot own the daemon's name" denied owns $1 $BUS_NAME
}
may_all() {
    everybody_reads $1
    check "$1 lists the handlers" answers $O/qcow who $1 $LIST
    check "$1 has a configuration checked" answers 'boolean true' who $1 $CHECK
    check "$1 may own a handler's name" answers 1 owns $1 $HM.ext
    check "$1 reaches the registration of handlers" answers 'must own the bus name' who $1 $REGISTER
}
note "$(dbus-daemon --version | head -1)"
may_all root
reads_only nobody
check "nobody cannot list the handlers" denied who nobody $LIST
reads_only member

echo "tcmu:x:$GID:" >>/etc/group
reload() { dbus-send --system --print-reply --dest=org.freedesktop.DBus / org.freedesktop.DBus.ReloadConfig >/dev/null; }
check "the bus takes the group when it exists" reload
may_all member
check "a member cannot own the daemon's name" denied owns member $BUS_NAME
reads_only nobody

cp $REPO/dist/dbus-1/examples/tcmu-runner-listing.conf /etc/dbus-1/system.d/ && reload
check "with the example, nobody lists the handlers" answers $O/qcow who nobody $LIST
reads_only nobody
rm /etc/dbus-1/system.d/tcmu-runner-listing.conf && reload

# -- checks that hang: the device holds back all I/O
export DM_DISABLE_UDEV=1
modprobe -a loop dm_mod
qemu-img create -q -f qcow2 h.img 16M && truncate -s 16M h.img && BACK=$(losetup -f --show h.img)
must "a block device" dmsetup create hang --table "0 32768 linear $BACK 0"
dmsetup suspend --noflush --nolockfs hang
echo 3 >/proc/sys/vm/drop_caches
HANG="$O/qcow $BUS_NAME.CheckConfig string:qcow//dev/mapper/hang"
for i in 1 2 3 4 5 6; do who member $HANG >hang.$i & done
said() { [ $(grep -l "$1" hang.? | wc -l) = $2 ]; }
check "of six checks of one user that hang, two are refused" within 30 said 'too many checks' 2
check "root's checks still run" eval 't=$(now); answers "boolean true" who root $CHECK && [ $(since $t) -lt 500 ]'
check "those that hang are answered in the end" within 40 said 'no answer within' 4
check "until they really end they count" answers 'too many checks' who member $CHECK
dmsetup resume hang
check "then its user may check again" within 10 answers 'boolean true' who member $CHECK
dmsetup remove hang; losetup -d $BACK

# -- the C daemon's policy, which an administrator may have kept
cat >/etc/dbus-1/system.d/tcmu-runner.conf <<EOF
<busconfig>
<policy user="root"><allow own="$BUS_NAME"/></policy>
<policy context="default">
  <allow send_destination="$BUS_NAME"/><allow own_prefix="$HM"/><allow send_interface="$BUS_NAME"/>
</policy>
</busconfig>
EOF
check "with the C daemon's policy" reload
may_all root
check "tcmu-runner check notes that it is open to all" eval '$DAEMON check | tee /dev/stderr | grep "D-Bus policy.*every user"'
cp $REPO/dist/dbus-1/tcmu-runner.conf /etc/dbus-1/system.d/ && reload
check "and that ours is fine" eval '$DAEMON check | tee /dev/stderr | grep "^ok *D-Bus policy"'
check "SIGTERM ends the daemon in 5 s" stop 5
check "no task is stuck in the kernel" no_stuck
finish
