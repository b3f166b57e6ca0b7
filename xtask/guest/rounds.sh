#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# rounds.sh OURS KINDS C KINDS RUNTIME MB ROUNDS: the guest's part of `cargo xtask bench tcmu --wall`.
# Both daemons, each with its backstores KINDS (separated by commas), in turns in one boot; the order
# turns from round to round. What is measured goes to /share/ROUND-KIND-WHO (see fio.sh), and to
# /share/about kernel and versions.
. "$(dirname "$(realpath "$0")")/fio.sh"
OURS=$1 KINDS=${2//,/ } C=$3 C_KINDS=,$4, RUNTIME=$5 MB=$6 ROUNDS=$7

TURNS=()
for kind in $KINDS; do
    must "an image for $kind" image $kind /scratch/$kind.img $MB
    must "ours starts" start "$OURS"
    must "its device is a disk" export_disk $kind $MB /scratch/$kind.img
    must "it is filled" fill $MB
    must "it is removed" eval 'unlun disk0 0 && rm_dev disk0 && stop'
    TURNS+=("$kind ours")
    [[ $C_KINDS != *,$kind,* ]] || TURNS+=("$kind c")
done
for round in $(seq 0 $((ROUNDS - 1))); do
    for n in "${!TURNS[@]}"; do
        read -r kind who <<<"${TURNS[$(((n + round) % ${#TURNS[@]}))]}"
        case $who in ours) daemon=$OURS ;; *) daemon=$C ;; esac
        note "round $round: $kind, $who"
        dir=/share/$round-$kind-$who
        mkdir $dir
        must "the daemon starts" start "$daemon"
        must "its device is a disk" export_disk $kind $MB /scratch/$kind.img
        run_jobs $RUNTIME $MB $dir
        must "it is removed" eval 'unlun disk0 0 && rm_dev disk0 && stop'
    done
done
{
    echo "kernel $(uname -r)"
    echo "fio $(fio --version)"
    echo "ours $($OURS -V 2>&1 | head -1)"
    echo "c $($C -V 2>&1 | head -1)"
} >/share/about
check "the ring was never broken" ring_is_whole
finish
