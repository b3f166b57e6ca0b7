#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""writer.py DISK STOP: writes blocks of a disk, one after the other, until the file STOP is there. Then it
reads all of them, and prints the longest time that a write took, in hundredths of a second, and how many
were read. An error, or a block that is not as it was written, is the end, with status 1."""
import mmap
import os
import random
import struct
import sys
import time

BLOCK = 4096
BLOCKS = 8192
PAUSE = 0.005

disk, stop = sys.argv[1:]
fd = os.open(disk, os.O_RDWR | os.O_DIRECT)
# O_DIRECT wants memory that begins at a page.
page = mmap.mmap(-1, BLOCK)


def pattern(block, number):
    return struct.pack("<QQ", block, number) * (BLOCK // 16)


written = {}
longest = 0.0
number = 0
while not os.path.exists(stop):
    number += 1
    block = random.randrange(BLOCKS)
    page[:] = pattern(block, number)
    start = time.monotonic()
    if os.pwritev(fd, [page], block * BLOCK) != BLOCK:
        sys.exit(f"a write of block {block} was short")
    longest = max(longest, time.monotonic() - start)
    written[block] = number
    time.sleep(PAUSE)
for block, number in written.items():
    os.preadv(fd, [page], block * BLOCK)
    if page[:] != pattern(block, number):
        found = struct.unpack("<QQ", page[:16])
        sys.exit(f"block {block} is not what write {number} left there, but {found}")
print(round(longest * 100), len(written))
