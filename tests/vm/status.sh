#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# status.sh DAEMON: how the daemon does, for people, scripts, D-Bus and Prometheus; also while a
# backstore hangs.
. "$(dirname "$(realpath "$0")")/lib.sh"
PLUGINS=/scratch/plugins
BINARY=$1
DAEMON="$BINARY --handler-path $PLUGINS"
mkdir -p $PLUGINS
for plugin in handler_right handler_wrong; do
    must "$plugin.c is compiled" cc -std=gnu11 -O1 -fPIC -shared -pthread -I $REPO/crates/libtcmu/include \
        -o $PLUGINS/$plugin.so $REPO/crates/tcmu-plugin/tests/plugins/$plugin.c
done
ip link set lo up
status() { $BINARY status "$@"; }
# json EXPRESSION: prints it, of the report (r) and its devices by name (d)
json() {
    status --json >report.json && python3 -c "
import json, sys
r = json.load(open('report.json'))
d = {device['name'].split('/')[1]: device for device in r['devices']}
print($1)"
}
is() { local found; found=$(json "$1"); echo "$1: $found"; [ "$found" = "$2" ]; }
# fetched URL-PATH PLACE: by HTTP, from a port of this host or a socket
fetched() {
    python3 -c "
import http.client, socket, sys
path, place = sys.argv[1:]
class Unix(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(place)
connection = Unix('localhost') if place.startswith('/') else http.client.HTTPConnection(place)
connection.request('GET', path)
answer = connection.getresponse()
print(answer.status, answer.getheader('Content-Type'))
sys.stdout.write(answer.read().decode())" "$@"
}

no_daemon() { local out; out=$(status 2>&1) && return 1; echo "$out"; grep -q 'no daemon runs here' <<<"$out"; }
check "without a daemon, status fails and says so" no_daemon
configure 'metrics = "127.0.0.1:9101"'
must "the daemon starts" start "$DAEMON"
check "without devices it says that there are none" eval 'status | grep -E "^tcmu-runner [0-9.]+, pid $DAEMON_PID, running for .*: no devices$"'
check "only root may ask" eval '! setpriv --reuid 65534 --clear-groups $BINARY status 2>err.out && grep "only root may ask" err.out'
check "a wrong option is refused" eval '! status --jsno 2>/dev/null'

truncate -s 64M /scratch/base.img
qemu-img create -q -f qcow2 -b /scratch/base.img -F raw /scratch/q.img
must "a device becomes a disk" eval 'mk_dev q 67108864 qcow//scratch/q.img && lun q 0'
check "it serves" is "d['q']['state']" serving
check "its size is there" is "d['q']['size']" 67108864
check "its configuration string is there" is "d['q']['config']" qcow//scratch/q.img
check "the files of its stack are there" is "sorted(d['q']['files'])" "['/scratch/base.img', '/scratch/q.img']"
before=$(json "d['q']['operations']['write']['bytes']")
dd if=/dev/urandom of=$DISK bs=64k count=64 oflag=direct status=none
check "what is written is counted" is "d['q']['operations']['write']['bytes'] - $before" 4194304
dd if=$DISK of=/dev/null bs=64k count=32 iflag=direct status=none
check "what is read is counted" eval '[ "$(json "d[\"q\"][\"operations\"][\"read\"][\"bytes\"]")" -ge 2097152 ]'
check "those that waited and those that did not are all" is "all(o['count'] == o['immediate'] + sum(o['waits']) for o in d['q']['operations'].values())" True
failed=$(json "d['q']['commands']['failed']")
sg_raw -r 512 $SG 28 00 7f ff ff ff 00 00 01 00 >/dev/null 2>&1
check "a command that fails is counted" is "d['q']['commands']['failed'] - $failed" 1
check "people see it, too" eval 'status | grep -A6 "^user_0/q  serving  64.00 MiB  qcow//scratch/q.img$" | grep -E "^  write +[0-9]+ \([0-9.]+ MiB\)"'

check "D-Bus has the same report" eval 'call /org/kernel/TCMUService1/Status1 $BUS_NAME.Status1.GetStatus | grep "user_0/q"'
check "Prometheus finds its figures at the port" eval 'fetched /metrics 127.0.0.1:9101 >m.out; head -1 m.out | grep "^200 text/plain; version=0.0.4" && grep "^tcmu_runner_device_state{device=\"user_0/q\",state=\"serving\"} 1$" m.out'
check "each of its lines is one of the format" eval '! tail -n +2 m.out | grep -vE "^# (HELP|TYPE) tcmu_runner_|^tcmu_runner_[a-z_]+(\{[^}]*\})? [0-9.]+$"'
check "a histogram ends with all of them" python3 - <<'EOF'
import re
lines = open('m.out').read().splitlines()
def value(start): return [float(l.rsplit(' ', 1)[1]) for l in lines if l.startswith(start)]
labels = '{device="user_0/q",operation="write"'
buckets = value('tcmu_runner_wait_seconds_bucket' + labels)
assert buckets == sorted(buckets) and buckets[-1] > 0, buckets
assert buckets[-1:] == value('tcmu_runner_wait_seconds_count' + labels), buckets
EOF
check "configuration strings are not told there" eval '! grep -q scratch m.out'
check "the whole report is not to be had at the port" eval 'fetched /status 127.0.0.1:9101 | head -1 | grep ^404'
check "what is no request gets an error, and the next one an answer" eval 'printf "\026\003\001nonsense\r\n\r\n" >/dev/tcp/127.0.0.1/9101; fetched /metrics 127.0.0.1:9101 | head -1 | grep ^200'
exec 9<>/dev/tcp/127.0.0.1/9101
check "who says nothing is not waited for" within 80 eval 'fetched /metrics 127.0.0.1:9101 | head -1 | grep -q ^200'
exec 9>&-

# -- a device whose image is not there, and one that hangs
must "a second device" eval 'truncate -s 1M /scratch/gone.img && mk_dev gone 1048576 file//scratch/gone.img'
must "the daemon is killed, and the image taken away" eval 'crash; mv /scratch/gone.img /scratch/gone2.img'
must "the daemon starts again" start "$DAEMON"
check "the device is absent" within 20 is "d['gone']['state']" absent
check "and the reason is there" eval 'json "d[\"gone\"][\"reason\"]" | grep "/scratch/gone.img.*No such file"'
check "people see that" eval 'status | grep -A1 "^user_0/gone  absent" | grep "^  reason .*No such file"'
check "counters begin anew with the daemon" eval '[ "$(json "d[\"q\"][\"operations\"][\"write\"][\"bytes\"]")" = 0 ]'
must "a device that never ends a command" eval 'mk_dev w 1048576 "wrong/never;tcmur_cmd_time_out=3" && echo 20 >$(dev w)/attrib/cmd_time_out && lun w 1'
dd if=$DISK of=/dev/null bs=4k skip=32 count=1 iflag=direct status=none 2>/dev/null & HANGS=$!
check "its command is under way" within 50 is "d['w']['commands']['under_way']" 1
t=$(now)
check "status answers meanwhile" status
check "at once" eval '[ $(since $t) -lt 100 ]'
check "and tells that it takes too long" within 100 is "d['w']['timed_out'] >= 1" True
wait $HANGS
check "they are removed" eval 'unlun w 1 && rm_dev w && rm_dev gone && unlun q 0 && rm_dev q'
check "none is left in the report" is "len(r['devices'])" 0

# -- a lock
truncate -s 48M /scratch/a.img
must "a device with a lock" eval 'mk_dev a $((48 << 20)) plock//scratch/a.img && lun a 0'
group=$(dev a)/alua/ours
must "a group for it" eval 'mkdir $group && echo 7 >$group/tg_pt_gp_id && echo 1 >$group/alua_access_type && echo ours >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; sg_turs $SG; sleep 1.5; dd if=$DISK of=/dev/null bs=64k count=1 iflag=direct status=none'
check "who has the lock is there" within 20 is "(d['a']['lock']['owner'], d['a']['lock']['group'])" "('us', 7)"
check "people see that, too" eval 'status | grep "^  lock  *this host has it, for target port group 7"'
echo default_tg_pt_gp >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; rmdir $group
check "it is removed" eval 'unlun a 0 && rm_dev a'

# -- other places
check "SIGTERM ends the daemon" stop 10
check "status says that none runs" no_daemon
mkdir -p /scratch/run
configure 'metrics = "/scratch/run/metrics"'
must "the daemon starts with a socket for Prometheus" start "$DAEMON"
check "anybody who can enter its directory may ask there" eval 'chmod 755 /scratch /scratch/run; fetched /metrics /scratch/run/metrics | head -1 | grep ^200'
crash
must "after kill -9 it takes the place of the socket" start "$DAEMON"
check "and answers there" eval 'fetched /metrics /scratch/run/metrics | head -1 | grep ^200'
check "SIGTERM ends it" stop 10
configure 'metrics = "0.0.0.0:9101"'
must "a place that others reach is no reason not to serve" start "$DAEMON"
check "but it is refused, with its line" grep -E 'tcmu.conf: line [0-9]+: metrics: .*other hosts' /var/log/tcmu-runner.log
check "and nobody listens there" eval '! fetched /metrics 127.0.0.1:9101 2>/dev/null'
check "and the daemon ends" stop 10
check "no ring was broken" ring_is_whole
finish
