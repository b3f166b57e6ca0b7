# SPDX-License-Identifier: Apache-2.0
# Gluster on one address of the loopback: a glusterd, and a volume "vol" of one brick. Its command
# line refuses bricks on 127.0.0.1.
GLUSTER=${GLUSTER:-/scratch/gluster}
GLUSTER_ADDRESS=${GLUSTER_ADDRESS:-127.0.0.2}

gluster_do() {
    timeout 120 gluster --mode=script --glusterd-sock=$GLUSTER/glusterd.sock \
        --log-file=$GLUSTER/cli.log "$@" </dev/null
}

gluster_configure() {
    cat >$GLUSTER/glusterd.vol <<END
volume management
    type mgmt/glusterd
    option working-directory $GLUSTER/state
    option run-directory $GLUSTER/run
    option logging-directory $GLUSTER/log
    option glusterd-sockfile $GLUSTER/glusterd.sock
    option transport-type socket
    option transport.socket.bind-address $GLUSTER_ADDRESS
    option transport.socket.listen-port 24007
    option rpc-auth-allow-insecure on
    option ping-timeout 0
    option base-port 49152
    option max-port 49171
end-volume
END
}

# The process of the brick.
brick() { cat $GLUSTER/run/vols/vol/*.pid; }
brick_answers() { gluster_do volume status vol detail | grep -q '^Online.*: Y'; }
# Starts a brick again, as soon as its end has been noticed.
start_brick() {
    local turn
    for turn in {1..100}; do
        [ -e "/proc/$(brick)" ] && brick_answers && return
        gluster_do volume start vol force
        sleep 0.2
    done
    return 1
}

# Makes the volume and starts it, with what went wrong if something does.
start_gluster() {
    local turn
    mkdir -p $GLUSTER/{state,run,log,brick} /run/gluster
    # It asks a helper in Python, at each start, for what nobody here uses.
    printf '#!/bin/sh\necho gsyncd\n' >$GLUSTER/state/no-gsyncd
    chmod +x $GLUSTER/state/no-gsyncd
    chmod 1777 $GLUSTER/brick
    gluster_configure
    PYTHON=$GLUSTER/state/no-gsyncd glusterd -f $GLUSTER/glusterd.vol -p $GLUSTER/glusterd.pid \
        -l $GLUSTER/log/glusterd.log </dev/null || return 1
    for turn in {1..300}; do
        gluster_do volume list >/dev/null 2>&1 && break
        sleep 0.2
    done
    gluster_do volume create vol $GLUSTER_ADDRESS:$GLUSTER/brick force &&
        gluster_do volume set vol server.allow-insecure on && gluster_do volume start vol || {
        tail -n 20 $GLUSTER/log/*.log
        return 1
    }
    for turn in {1..100}; do
        brick_answers && return
        sleep 0.2
    done
    return 1
}

# Ends all of it, however it is.
stop_gluster() {
    local file
    for file in $GLUSTER/glusterd.pid $GLUSTER/run/vols/vol/*.pid; do
        [ ! -e "$file" ] || kill -9 "$(<"$file")"
    done
    rm -f /run/gluster/*"${GLUSTER//\//-}"*.socket
}
