#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# media.sh DAEMON PACKAGE: zoned disks and optical discs of Debian's handlers, from its package
# tcmu-runner, which is unpacked in PACKAGE, in the hands of the programs that people use for them.
. "$(dirname "$(realpath "$0")")/lib.sh"
PLUGINS=/scratch/plugins
DAEMON="$1 --handler-path $PLUGINS"
mkdir -p $PLUGINS /scratch/mnt
must "Debian's package has its plugins" cp $2/usr/lib/*/tcmu-runner/handler_{file_zbc,file_optical}.so $PLUGINS/
modprobe -a sr_mod isofs cdrom udf mq-deadline 2>/dev/null
must "the daemon starts with plugins" start "$DAEMON"
head -c 1048576 /dev/urandom >r1m

# -- a host-managed disk of 64 zones
MB=256 Z=$((4 << 11))          # a zone of 4 MiB, in sectors
HM=zbc/model-HM/zsize-4/conv-4/open-8@/scratch/hm.raw
queue() { cat $SDEV/block/*/queue/$1; }
# zone N TEXT: the report of zone N has this
zone() { blkzone report -o $((Z * $1)) -c 1 $DISK >zone.out; cat zone.out; grep -q "$2" zone.out; }
at() { dd if=r1m of=$DISK bs=64k seek=$(($1 / 128)) count=${2:-1} oflag=direct status=none; }
must "host-managed: a disk is enabled" mk_dev z $((MB << 20)) $HM
must "host-managed: it becomes a disk" lun z 0
check "host-managed: the kernel counts 64 zones of 4 MiB" eval '[ $(queue zoned) = host-managed ] && [ $(queue nr_zones) = 64 ] && [ $(queue chunk_sectors) = $Z ]'
check "host-managed: the peripheral device type is 14h" eval 'sg_inq $SG | grep -i "PDT=20\|host managed"'
check "host-managed: lsblk -z" eval 'lsblk -z $DISK | tee /dev/stderr | grep host-managed'
check "host-managed: VPD page B6h tells how many zones may be open" eval 'sg_vpd -p zbdch $SG | tee /dev/stderr | grep -i "maximum number of open.*: 8"'
check "host-managed: the zones that random writes may go to are conventional" eval 'zone 3 CONVENTIONAL && zone 4 SEQ_WRITE_REQUIRED && at $((Z * 2 + 4096))'
check "host-managed: zones that are written are reported as implicitly open" eval 'at $((Z * 4)) 4 && zone 4 "wptr 0x000200.*(oi)"'
check "host-managed: sg_rep_zones tells the same" eval 'sg_rep_zones --start=$((Z * 4)) --num=1 $SG | tee /dev/stderr | grep -i "implicit"'
check "host-managed: what is above the write pointer reads as zeroes" eval 'dd if=$DISK bs=64k skip=$((Z * 4 / 128 + 9)) count=1 iflag=direct status=none | cmp -n 65536 - /dev/zero'
check "host-managed: what is written reads back" eval 'dd if=$DISK bs=64k skip=$((Z * 4 / 128)) count=1 iflag=direct status=none | cmp -n 65536 - r1m'
check "host-managed: a write beside the write pointer is refused" not at $((Z * 4 + 9 * 128))
check "host-managed: blkzone open" eval 'blkzone open -o $((Z * 5)) -c 1 $DISK && zone 5 "(oe)"'
check "host-managed: blkzone close" eval 'at $((Z * 5)) && blkzone close -o $((Z * 5)) -c 1 $DISK && zone 5 cl'
check "host-managed: blkzone finish" eval 'blkzone finish -o $((Z * 5)) -c 1 $DISK && zone 5 fu && not at $((Z * 5 + 128))'
check "host-managed: blkzone reset" eval 'blkzone reset -o $((Z * 4)) -c 2 $DISK && zone 4 em && zone 5 em'
check "host-managed: eight zones may be open, and not a ninth" eval '(for i in 4 5 6 7 8 9 10 11; do blkzone open -o $((Z * i)) -c 1 $DISK || exit 1; done) && not blkzone open -o $((Z * 12)) -c 1 $DISK'
check "host-managed: blkzone reset of all" eval 'blkzone reset $DISK && zone 4 em && zone 11 em'
zoned_fio() { fio --name=z --filename=$DISK --zonemode=zbd --direct=1 --ioengine=libaio --offset=$((Z * 512 * 4)) --max_open_zones=4 --verify=crc32c --output=fio.out "$@" || { cat fio.out; false; }; }
check "host-managed: fio writes zones in order, and verifies" zoned_fio --rw=write --bs=64k --iodepth=1 --size=24M
check "host-managed: fio writes several zones side by side, and verifies" eval 'blkzone reset $DISK && zoned_fio --rw=randwrite --bs=16k --iodepth=8 --size=32M'
# The handler keeps no zones: they are empty when it opens the file again, under the C daemon, too.
check "host-managed: it is removed" eval 'unlun z 0 && rm_dev z'

# -- a host-aware disk with blocks of 4 KiB; Linux 6.12 knows no host-aware disks, only ordinary ones
must "host-aware: a disk is enabled" mk_dev z $((MB << 20)) zbc/model-HA/lba-4096/zsize-4@/scratch/ha.raw
must "host-aware: it becomes a disk" lun z 0
check "host-aware: so the kernel sees it, with its blocks" eval 'queue zoned | grep -x "host-aware\|none" && [ $(queue logical_block_size) = 4096 ]'
check "host-aware: sg_rep_zones" eval 'sg_rep_zones --num=4 $SG | tee /dev/stderr | grep -i "preferred"'
check "host-aware: writes in any order" eval 'at $((Z * 20 + 640)) && at $((Z * 20)) && dd if=$DISK bs=64k skip=$(((Z * 20 + 640) / 128)) count=1 iflag=direct status=none | cmp -n 65536 - r1m'
check "host-aware: it is removed" eval 'unlun z 0 && rm_dev z'
for wrong in model-XX zsize-0 zsize-3 lba-1024 conv-9999 open-0 foo-1; do
    check "zbc: refused: $wrong" eval 'not mk_dev bad $((MB << 20)) zbc/$wrong@/scratch/bad.raw; rmdir $(dev bad)'
done

# -- a disc that is read
mkdir -p tree && cp -r /usr/share/perl5/Debconf tree/ && genisoimage -quiet -r -J -V TESTDISC -o /scratch/cd.iso tree
must "disc: it is enabled" mk_dev cd $(stat -c %s /scratch/cd.iso) fbo/ro//scratch/cd.iso
must "disc: it becomes a drive" lun cd 0
check "disc: the kernel calls it sr" eval '[[ $DISK == /dev/sr* ]]'
check "disc: READ TOC" sg_raw -r 64 $SG 43 00 00 00 00 00 00 00 40 00
check "disc: GET CONFIGURATION names a DVD-ROM" eval 'sg_get_config $SG | grep -i "dvd-rom"'
check "disc: all of it is what it is" eval 'dd if=$DISK bs=64k iflag=direct status=none | cmp -n $(stat -c %s /scratch/cd.iso) - /scratch/cd.iso'
check "disc: it is mounted, and its files are right" eval 'mount -o ro -t iso9660 $DISK /scratch/mnt && diff -r tree /scratch/mnt && umount /scratch/mnt'
check "disc: a command that it does not know is refused" sense "illegal request" "invalid command operation code" $SG ac 00 00 00 00 00 00 00 00 04 03 00
check "disc: blkid finds its label" eval 'blkid -p $DISK | tee /dev/stderr | grep "LABEL=\"TESTDISC\""'
check "disc: isosize" eval '[ $(isosize $DISK) -le $(stat -c %s /scratch/cd.iso) ] && [ $(isosize $DISK) -gt 100000 ]'
check "disc: isoinfo lists its files" eval 'isoinfo -J -l -i $DISK | tee /dev/stderr | grep -i "debconf"'
check "disc: READ DISC INFORMATION says that it is finished" eval 'sg_raw -o info -r 34 $SG 51 00 00 00 00 00 00 00 22 00 && [ $(($(num info 2 1) & 3)) = 2 ]'
check "disc: READ DVD STRUCTURE" sg_raw -r 20 $SG ad 00 00 00 00 00 00 00 00 14 00 00
check "disc: GET EVENT STATUS NOTIFICATION" sg_raw -r 8 $SG 4a 01 00 00 10 00 00 00 08 00
check "disc: MECHANISM STATUS" sg_raw -r 8 $SG bd 00 00 00 00 00 00 00 00 08 00 00
check "disc: PREVENT ALLOW MEDIUM REMOVAL" sg_prevent $SG
check "disc: START STOP UNIT loads" sg_start --load $SG
check "disc: xorriso reads it" eval 'xorriso -indev stdio:$DISK -find / -type f -exec report_lba -- 2>&1 | tee /dev/stderr | grep -i debconf'
check "disc: it is not written" not dd if=/dev/zero of=$DISK bs=2k count=1 oflag=direct status=none
check "disc: wodim finds no recorder in it" eval 'wodim --checkdrive dev=$DISK 2>&1 | tee /dev/stderr | grep -i "no CD/DVD-Recorder"'
check "disc: it is removed" eval 'unlun cd 0 && rm_dev cd'

# -- a DVD-RAM that is burned
truncate -s 16M /scratch/rw.img
must "DVD-RAM: it is enabled" mk_dev rw $((16 << 20)) fbo//scratch/rw.img
must "DVD-RAM: it becomes a drive" lun rw 0
check "DVD-RAM: GET CONFIGURATION names it" eval 'sg_get_config $SG | tee /dev/stderr | grep -i "current profile: DVD-RAM"'
check "DVD-RAM: dd writes it" eval 'dd if=r1m of=$DISK bs=64k oflag=direct conv=notrunc status=none && dd if=$DISK bs=64k count=16 iflag=direct status=none | cmp - r1m'
dd if=/dev/zero of=$DISK bs=64k count=16 oflag=direct status=none
check "DVD-RAM: growisofs burns it" eval 'growisofs -use-the-force-luke=notray -Z $DISK=/scratch/cd.iso </dev/null'
check "DVD-RAM: it is mounted, and its files are right" eval 'mount -o ro -t iso9660 $DISK /scratch/mnt && diff -r tree /scratch/mnt && umount /scratch/mnt'
check "DVD-RAM: it is in the file" cmp -n $(stat -c %s /scratch/cd.iso) /scratch/cd.iso /scratch/rw.img
check "DVD-RAM: it is removed" eval 'unlun rw 0 && rm_dev rw'

# -- handlers that pass commands through, in processes of their own
check "SIGTERM ends the daemon" stop 15
configure 'plugin_isolation = true'
must "the daemon starts with plugins in processes of their own" start "$DAEMON"
process() { pgrep -f "^tcmu-plugin plugin-process $PLUGINS/$1.so"; }
must "isolated: a host-managed disk is enabled" mk_dev z $((MB << 20)) $HM
must "isolated: it becomes a disk" lun z 0
check "isolated: the kernel sees a host-managed disk" eval '[ $(queue zoned) = host-managed ]'
check "isolated: sg_rep_zones" eval 'sg_rep_zones --num=6 $SG | grep -i "zone type"'
check "isolated: a write at the write pointer" at $((Z * 4)) 4
check "isolated: its process is killed" kill -9 $(process handler_file_zbc)
# This handler makes all zones anew whenever it opens a disk, under the C daemon, too.
check "isolated: it answers all the same" zone 4 "wptr 0x000000"
check "isolated: a write at the write pointer of another zone" at $((Z * 5)) 4
check "isolated: the report shows the write pointer" zone 5 "wptr 0x000200"
check "isolated: blkzone reset" eval 'blkzone reset -o $((Z * 5)) -c 1 $DISK && zone 5 "wptr 0x000000"'
check "isolated: it is removed" eval 'unlun z 0 && rm_dev z'

check "SIGTERM ends the daemon" stop 15
check "no ring was broken" ring_is_whole
check "no task is stuck in the kernel" no_stuck
finish
