#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# scsi.sh DAEMON KIND: SCSI commands of a LUN of the backstore KIND (file or qcow), sent by
# sg3-utils through the kernel's loopback fabric.
. "$(dirname "$(realpath "$0")")/lib.sh"
DAEMON=$1 KIND=$2
MB=256 END=$((256 * 2048))
IMG=/scratch/x.img
image $KIND $IMG $MB && image $KIND /scratch/y.img 64
must "the daemon starts" start "$DAEMON"
must "a device of 256 MiB is enabled" mk_dev disk0 $((MB << 20)) $KIND/$IMG
must "it becomes a disk" lun disk0 0
A=$SG; A_DISK=$DISK
head -c 1048576 /dev/urandom >r1m; head -c 512 r1m >r512; tail -c 512 r1m >s512
head -c 65536 /dev/zero >z64k; head -c 512 z64k >z512

# -- identity
check "TEST UNIT READY succeeds" sg_turs $SG
check "INQUIRY names the vendor LIO-ORG" eval 'sg_inq $SG | grep "Vendor identification: LIO-ORG"'
check "VPD page 00h lists 80h, 83h, B0h, B1h and B2h" eval \
    '(l=$(sg_raw -r 252 $SG 12 01 00 00 fc 00 2>&1); echo "$l"; grep -E "80.*83.*b0.*b1.*b2" <<<"$l")'
check "each page that VPD page 00h lists is there" eval \
    '(for p in $(sg_vpd $SG | grep -o "0x[0-9a-f][0-9a-f]"); do sg_vpd -p $p $SG >/dev/null || exit 1; done)'
check "VPD page 80h holds the unit's serial number" eval \
    's=$(sed "s/.*: //" $(dev disk0)/wwn/vpd_unit_serial) && sg_vpd -p sn $SG | grep -F "$s"'
check "VPD page 83h has an NAA designator" eval 'sg_vpd -p di $SG | grep -i NAA'
check "READ CAPACITY 10 tells the last LBA" eval \
    'sg_readcap --brief $SG | grep -i "0x$(printf %x $END) "'
check "READ CAPACITY 16 tells the last LBA" eval 'sg_readcap --16 $SG | grep "=$((END - 1)) "'
check "REPORT LUNS lists LUN 0" sg_luns $SG
check "MODE SENSE tells the caching page" eval 'sg_modes -p 8 $SG | grep -i caching'
check "MODE SENSE tells all pages" sg_modes -a $SG
check "MODE SENSE 6 tells all pages" sg_modes -6 -a $SG
check "REQUEST SENSE says that there is nothing to say" sg_requests $SG
check "START STOP UNIT succeeds" sg_start --start $SG
check "PREVENT ALLOW MEDIUM REMOVAL succeeds" sg_raw $SG 1e 00 00 00 00 00
check "REPORT SUPPORTED OPERATION CODES lists READ 16" eval 'sg_opcodes $SG | grep "Read(16)"'
check "it tells the CDB usage of WRITE 10" eval 'sg_opcodes -o 0x2a $SG'
check "it tells that an opcode is not supported" eval 'sg_opcodes -o 0xff $SG | grep -i "not supported"'
check "REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS tells LUN reset" eval 'sg_opcodes --tmf $SG | grep -i "logical unit reset"'

# -- answers have their own length
sg_dd if=r1m of=$SG bs=512 count=2048 >/dev/null 2>&1
tail_is_zero() { # FILE LENGTH
    local n; n=$(stat -c %s $1); [ $n -le $2 ] && return
    [ -z "$(hex $1 $2 $((n - $2)) | tr -d 0)" ]
}
answer() { # the answer to a CDB of a large allocation length; the bytes after its end are zeroes
    local len=$1; shift; rm -f a.bin
    # The data area is filled first with what must not be seen.
    sg_dd if=$SG of=/dev/null bs=512 count=256 >/dev/null 2>&1
    sg_raw -o a.bin "$@" || return 1
    tail_is_zero a.bin $(eval "echo $len")
}
check "INQUIRY data is followed by no stale bytes" answer '$(($(num a.bin 4 1) + 5))' -r 8192 $SG 12 00 00 20 00 00
check "VPD page 83h is followed by no stale bytes" answer '$(($(num a.bin 2 2) + 4))' -r 8192 $SG 12 01 83 20 00 00
check "VPD page B0h is followed by no stale bytes" answer '$(($(num a.bin 2 2) + 4))' -r 8192 $SG 12 01 b0 20 00 00
check "MODE SENSE 10 data is followed by no stale bytes" answer '$(($(num a.bin 0 2) + 2))' -r 8192 $SG 5a 00 3f 00 00 00 00 20 00 00
check "READ CAPACITY 16 data is followed by no stale bytes" answer 32 -r 512 $SG 9e 10 00 00 00 00 00 00 00 00 00 00 02 00 00 00
check "an allocation length of 0 is no error" sg_raw $SG 12 00 00 00 00 00

# -- what the pages say about each other
vpd() { sg_raw -o $2 -r 252 $SG 12 01 $1 00 fc 00; }
check "VPD pages B0h and B2h and READ CAPACITY 16 are read" eval \
    'vpd b0 b0.bin && vpd b2 b2.bin && sg_raw -o rc16.bin -r 32 $SG 9e 10 00 00 00 00 00 00 00 00 00 00 00 20 00 00'
lbpme=$(($(num rc16.bin 14 1) >> 7)) lbprz=$(($(num rc16.bin 14 1) >> 6 & 1))
flags=$(num b2.bin 5 1)
check "READ CAPACITY 16 and VPD page B2h agree on logical block provisioning" \
    [ $lbpme = $((flags >> 5 ? 1 : 0)) ]
check "so is whether unmapped blocks read as zeroes" [ $lbprz = $((flags >> 2 & 7 ? 1 : 0)) ]
check "UNMAP is offered with a count above 0, or not at all" \
    [ $((flags >> 7)) = $(($(num b0.bin 20 4) ? 1 : 0)) ]
check "the kernel sees a disk that discards" eval '[ $(</sys/block/${DISK#/dev/}/queue/discard_max_bytes) != 0 ]'

# -- data
check "1 MiB is written" dd if=r1m of=$DISK bs=64k oflag=direct conv=fsync status=none
check "1 MiB reads back" reads 0 2048 r1m
check "the last block is written" sg_dd if=r512 of=$SG bs=512 seek=$((END - 1)) count=1
check "the last block reads back" reads $((END - 1)) 1 r512
for n in 6 10 12 16; do
    check "READ $n reads" eval "sg_dd if=$SG of=back bs=512 count=128 cdbsz=$n blk_sgio=1 && cmp -n 65536 back r1m"
    check "WRITE $n writes" eval "sg_dd if=r1m of=$SG bs=512 seek=4096 count=64 cdbsz=$n && rd 4096 64 && cmp -n 32768 back r1m"
done
# Page B0h tells 64 KiB; initiators that do not read it send what they like.
max=$(($(num b0.bin 8 4) * 512)); note "VPD page B0h: at most $max bytes a transfer"
check "a READ 10 of twice the maximum transfer length reads" eval 'sg_raw -o back -r 131072 $SG 28 00 00 00 00 00 00 01 00 00 && cmp -n 131072 back r1m'
check "a WRITE 10 of it writes" eval 'sg_raw -s 131072 -i r1m $SG 2a 00 00 00 10 00 00 01 00 00 && reads 4096 256 <(head -c 131072 r1m)'
check "a READ 16 and a WRITE 16 of 1 MiB do" eval 'sg_raw -s 1048576 -i r1m $SG 8a 00 00 00 00 00 00 00 20 00 00 00 08 00 00 00 && sg_raw -o back -r 1048576 $SG 88 00 00 00 00 00 00 00 20 00 00 00 08 00 00 00 && cmp back r1m'
check "a WRITE AND VERIFY 10 of 1 MiB does" sg_raw -s 1048576 -i r1m $SG 2e 02 00 00 30 00 00 08 00 00
check "a VERIFY 10 of 1 MiB finds equal bytes" sg_raw -s 1048576 -i r1m $SG 2f 02 00 00 30 00 00 08 00 00
check "READ with DPO and FUA reads" eval "sg_raw -o back -r 512 $SG 28 18 00 00 00 00 00 00 01 00 && cmp back r512"
check "WRITE with FUA writes" eval "sg_raw -s 512 -i s512 $SG 2a 08 00 00 10 00 00 00 01 00 && reads 4096 1 s512"
check "a READ of no blocks succeeds" sg_raw $SG 28 00 00 00 00 00 00 00 00 00
check "a WRITE of no blocks succeeds" sg_raw $SG 2a 00 00 00 00 00 00 00 00 00
check "VERIFY 10 succeeds" sg_verify --lba=0 --count=8 $SG
check "VERIFY 16 succeeds" sg_verify --16 --lba=0 --count=8 $SG
check "VERIFY of equal bytes succeeds" sg_verify --lba=0 --count=1 --ndo=512 --in=r512 $SG
check "VERIFY of other bytes is a MISCOMPARE" eval 'sg_verify --lba=0 --count=1 --ndo=512 --in=s512 $SG; [ $? = 14 ]'
check "WRITE AND VERIFY 10 writes" eval 'sg_write_verify --lba=4096 --num=1 --ilen=512 --in=r512 $SG && reads 4096 1 r512'
check "WRITE AND VERIFY 16 writes" eval 'sg_write_verify --16 --lba=4097 --num=1 --ilen=512 --in=s512 $SG && reads 4097 1 s512'
check "SYNCHRONIZE CACHE 10 succeeds" sg_sync $SG
check "SYNCHRONIZE CACHE 16 succeeds" sg_sync --16 $SG
check "PRE-FETCH 10 succeeds, or is said not to be supported" eval \
    'sg_raw $SG 34 00 00 00 00 00 00 00 08 00 || sense "Illegal Request" "Invalid command operation code" $SG 34 00 00 00 00 00 00 00 08 00'
for c in 10 16; do
    check "WRITE SAME $c writes its block to each" eval "sg_write_same --$c --lba=8192 --num=128 --in=r512 $SG && reads 8319 1 r512 && reads 8192 1 r512"
    check "WRITE SAME $c with UNMAP leaves zeroes" eval "sg_write_same --$c --unmap --lba=8192 --num=128 --in=z512 --xferlen=512 $SG && reads 8192 128 z64k"
done
check "WRITE SAME 16 without data writes zeroes" eval 'dd if=r1m of=$DISK bs=64k seek=64 count=1 oflag=direct status=none && sg_write_same --16 --ndob --lba=8192 --num=128 $SG && reads 8192 128 z64k'
check "WRITE SAME 16 of 32 MiB writes all of them" eval 'sg_write_same --16 --lba=131072 --num=65536 --in=s512 --timeout=120 $SG && reads 131072 1 s512 && reads 196607 1 s512'
check "UNMAP leaves zeroes" eval 'dd if=r1m of=$DISK bs=64k seek=64 count=1 oflag=direct status=none && sg_unmap --lba=8192 --num=128 --force $SG && reads 8192 128 z64k'
check "GET LBA STATUS answers" sg_get_lba_status --lba=0 $SG
check "GET LBA STATUS tells a written block from an unmapped one" eval '
    sg_unmap --lba=262144 --num=65536 --force $SG &&
    sg_raw -o m.bin -r 24 $SG 9e 12 00 00 00 00 00 00 00 00 00 00 00 18 00 00 &&
    sg_raw -o u.bin -r 24 $SG 9e 12 00 00 00 00 00 04 00 00 00 00 00 18 00 00 &&
    [ $(($(num m.bin 20 1) & 15)) = 0 ] && [ $(($(num u.bin 20 1) & 15)) != 0 ]'
cat r512 s512 >caw
check "COMPARE AND WRITE writes where it compares equal" eval 'sg_compare_and_write --lba=0 --in=caw --num=1 --xferlen=1024 $SG && reads 0 1 s512'
check "COMPARE AND WRITE is a MISCOMPARE elsewhere" eval 'sg_compare_and_write --lba=0 --in=caw --num=1 --xferlen=1024 $SG; [ $? = 14 ]'
check "and writes nothing then" reads 0 1 s512
tail -c +1025 r1m | head -c 131072 >x128k
check "EXTENDED COPY copies inside a LUN, with the list id that sg_xcopy chooses" eval 'sg_xcopy if=$SG of=$SG bs=512 skip=2 seek=65536 count=256 && reads 65536 256 x128k'
check "EXTENDED COPY copies without a list id" eval 'sg_xcopy list_id=0 id_usage=disable if=$SG of=$SG bs=512 skip=2 seek=69632 count=256 && reads 69632 256 x128k'
must "a second device is enabled" mk_dev disk1 $((64 << 20)) $KIND//scratch/y.img
must "it becomes a disk too" lun disk1 1
check "EXTENDED COPY copies from one LUN to another" eval 'sg_xcopy if=$A of=$SG bs=512 skip=2 seek=1024 count=256 && reads 1024 256 x128k'
check "the second LUN is removed" eval 'unlun disk1 1 && rm_dev disk1'
SG=$A DISK=$A_DISK
sg_turs $SG >/dev/null 2>&1 # takes the unit attention that the removal raised

# -- what is wrong is named
check "READ past the end: LBA OUT OF RANGE" sense "Illegal Request" "Logical block address out of range" -r 512 $SG 28 00 7f ff ff ff 00 00 01 00
check "READ across the end: LBA OUT OF RANGE" sense "Illegal Request" "Logical block address out of range" -r 1024 $SG 28 00 00 07 ff ff 00 00 02 00
check "WRITE 16 past any end: LBA OUT OF RANGE" sense "Illegal Request" "Logical block address out of range" -s 512 -i r512 $SG 8a 00 ff ff ff ff ff ff ff ff 00 00 00 01 00 00
check "WRITE SAME past the end: LBA OUT OF RANGE" sense "Illegal Request" "Logical block address out of range" -s 512 -i r512 $SG 93 00 00 00 00 00 00 08 00 00 00 00 00 08 00 00
check "SYNCHRONIZE CACHE past the end: LBA OUT OF RANGE" sense "Illegal Request" "Logical block address out of range" $SG 35 00 7f ff ff ff 00 00 01 00
check "READ with RDPROTECT: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -r 512 $SG 28 20 00 00 00 00 00 00 01 00
check "WRITE with WRPROTECT: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -s 512 -i r512 $SG 2a 20 00 00 00 00 00 00 01 00
check "an opcode that does not exist: INVALID COMMAND OPERATION CODE" sense "Illegal Request" "Invalid command operation code" $SG ff 00 00 00 00 00
check "a service action that does not exist: a sense of its own" sense "Illegal Request" "Invalid" $SG 9e 1f 00 00 00 00 00 00 00 00 00 00 00 00 00 00
check "INQUIRY of a page without EVPD: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -r 96 $SG 12 00 83 00 60 00
check "INQUIRY of a page that is not there: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -r 96 $SG 12 01 7f 00 60 00
check "MODE SENSE of a page that is not there: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -r 96 $SG 5a 00 3e 00 00 00 00 00 60 00
check "UNMAP with a short list: PARAMETER LIST LENGTH ERROR" sense "Illegal Request" "Parameter list length error" -s 7 -i r512 $SG 42 00 00 00 00 00 00 00 07 00
printf '\0\026\0\020\0\0\0\0\177\377\377\377\377\377\377\377\0\0\0\001\0\0\0\0' >unmap.bin
check "UNMAP past the end: LBA OUT OF RANGE" sense "Illegal Request" "Logical block address out of range" -s 24 -i unmap.bin $SG 42 00 00 00 00 00 00 00 18 00
check "EXTENDED COPY with a list of nonsense is refused" eval 'sense "" "Check Condition" -s 512 -i r512 $SG 83 00 00 00 00 00 00 00 00 00 00 00 02 00 00 00'
check "COMPARE AND WRITE of too many blocks is refused" sense "Illegal Request" "" -s 65536 -i r1m $SG 89 00 00 00 00 00 00 00 00 00 00 00 00 ff 00 00
check "COMPARE AND WRITE of less data than it names: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -s 512 -i r512 $SG 89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00
check "COMPARE AND WRITE of more data than it names: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -s 2048 -i r1m $SG 89 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00
check "WRITE SAME of two blocks of data: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -s 1024 -i r1m $SG 93 00 00 00 00 00 00 00 00 01 00 00 00 08 00 00
check "WRITE SAME without its data: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" $SG 93 00 00 00 00 00 00 00 00 01 00 00 00 08 00 00
check "VPD page B0h offers no UNMAP of more than 1 Mi blocks" [ $(num b0.bin 20 4) -le 1048576 ]
check "the status of an EXTENDED COPY that nobody sent: INVALID FIELD IN CDB" sense "Illegal Request" "Invalid field in cdb" -r 12 $SG 84 00 99 00 00 00 00 00 00 00 00 00 00 0c 00 00
# A list with identifier 9 and one target descriptor, that of the LUN itself; then one segment more.
{ printf '\11\0\0\40\0\0\0\0\0\0\0\0\0\0\0\0\344\0\0\0\1\3\0\20'; sg_vpd -p 0x83 -r $SG | tail -c +9 | head -c 16; printf '\0\0\0\0\0\0\2\0'; } >copy0
{ head -c 11 copy0; printf '\34'; tail -c +13 copy0; printf '\2\0\0\30\0\0\0\1\0\0\0\10\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\10'; } >copy1
check "EXTENDED COPY with a target and no segment is GOOD" eval '[ $(stat -c %s copy0) = 48 ] && sg_raw -s 48 -i copy0 $SG 83 00 00 00 00 00 00 00 00 00 00 00 00 30 00 00'
check "and its status is told" eval 'sg_raw -o st -r 12 $SG 84 00 09 00 00 00 00 00 00 00 00 00 00 0c 00 00 && [ $(num st 4 1) = 1 ]'
check "but once" sense "Illegal Request" "Invalid field in cdb" -r 12 $SG 84 00 09 00 00 00 00 00 00 00 00 00 00 0c 00 00
check "EXTENDED COPY to a target that is not in the list: COPY ABORTED" sense "Copy Aborted" "Unreachable copy target" -s 76 -i copy1 $SG 83 00 00 00 00 00 00 00 00 00 00 00 00 4c 00 00
check "nothing of this was written" reads 1 127 <(tail -c +513 r1m | head -c 65024)

# -- reservations, ports, task management
check "PERSISTENT RESERVE: a key is registered" sg_persist -n --out --register --param-sark=0xabc $SG
check "PERSISTENT RESERVE: reserved" sg_persist -n --out --reserve --param-rk=0xabc --prout-type=5 $SG
check "PERSISTENT RESERVE: the key is read" eval 'sg_persist -n -k $SG | grep 0xabc'
check "PERSISTENT RESERVE: the reservation is read" eval 'sg_persist -n -r $SG | grep -i "registrants only"'
check "PERSISTENT RESERVE: released" sg_persist -n --out --release --param-rk=0xabc --prout-type=5 $SG
check "PERSISTENT RESERVE: unregistered" sg_persist -n --out --register --param-rk=0xabc $SG
rtpg_agrees() { # RTPG works where INQUIRY announces it, and is said not to be supported elsewhere
    sg_raw -o inq.bin -r 96 $SG 12 00 00 00 60 00 || return 1
    local tpgs=$(($(num inq.bin 5 1) >> 4 & 3)); echo "TPGS=$tpgs"
    if [ $tpgs = 0 ]; then sense "Illegal Request" "Invalid" -r 256 $SG a3 0a 00 00 00 00 00 00 01 00 00 00
    else sg_rtpg -d $SG; fi
}
check "REPORT TARGET PORT GROUPS and INQUIRY agree without a group of ours" rtpg_agrees
group=$(dev disk0)/alua/ao
check "an ALUA group of ours is made, with the LUN in it" eval \
    'mkdir $group && echo 1 >$group/tg_pt_gp_id && echo 1 >$group/alua_access_type && echo ao >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; sg_turs $SG; grep . $group/members'
check "REPORT TARGET PORT GROUPS tells it over tcm_loop" eval 'sg_rtpg -d $SG | grep -i "target port group id"'
check "INQUIRY announces it" eval 'sg_inq $SG | grep -E "TPGS=[123]"'
check "the group is removed" eval \
    'echo default_tg_pt_gp >$LOOP/tpgt_1/lun/lun_0/alua_tg_pt_gp; rmdir $group; sg_turs $SG; true'
check "LUN RESET succeeds" sg_reset --device $SG
check "the LUN reads afterwards" reads 4096 1 r512

# -- the write cache, as an initiator sets it
CACHE=$(echo /sys/block/${DISK#/dev/}/device/scsi_disk/*/cache_type)
attribute_is() { [ "$(<$(dev disk0)/attrib/emulate_write_cache)" = $1 ]; }
wce_is() { sg_raw -o mode.bin -r 24 $SG 1a 08 08 00 18 00 >/dev/null 2>&1; [ $(($(num mode.bin 6 1) >> 2 & 1)) = $1 ]; }
check "a new LUN is a disk with a write cache" eval 'attribute_is 1 && wce_is 1 && grep "write back" $CACHE'
check "an initiator makes it write through" eval 'echo "write through" >$CACHE && grep "write through" $CACHE && wce_is 0'
check "emulate_write_cache says the same" within 10 attribute_is 0
check "a write is done when it is on stable storage" dd if=r1m of=$DISK bs=64k seek=64 count=1 oflag=direct status=none
must "the daemon is started again" eval 'stop 10 && start "$DAEMON"'
check "the LUN is write through still" eval 'within 20 wce_is 0 && attribute_is 0'
check "the administrator turns the write cache on" timeout 20 bash -c "echo 1 >$(dev disk0)/attrib/emulate_write_cache"
sg_turs $SG >/dev/null 2>&1 # takes the unit attention
check "then it is" wce_is 1

# -- the end
unlun disk0 0
check "the device is removed" rm_dev disk0
[ $KIND != qcow ] || check "qemu-img check finds a clean image" clean_image $IMG
check "SIGTERM ends the daemon in 5 s" stop 5
check "no task is stuck in the kernel" no_stuck
check "no ring was broken" ring_is_whole
finish
