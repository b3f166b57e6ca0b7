# SPDX-License-Identifier: Apache-2.0
"""power.py write DISK MAPPER BOOK SEED: concurrent writes, discards and zeroes to DISK, and flushes,
after each of which a mark is set in the log of the dm-log-writes device MAPPER; what was done, and
what had been flushed at each mark, goes to BOOK.

power.py cut LOG SEED POINTS: prints POINTS lines "MARK WRITES": places of the log at which
the power fails, MARK being the last mark before it.

power.py replay LOG BASE OUT SEED MARK WRITES: makes the disk as it may be then: what was written
before the last flush is there, of the rest each sector may be.

power.py judge CONTENT BOOK MARK [BASE]: whether an image's content after a loss of power is what was
flushed at MARK, or what came later; what was never written is as in BASE, or zero.
"""
import fcntl
import json
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
import threading

SECTOR, UNIT, GROUP = 512, 4096, 4
THREADS, FLUSHES, OPS = 6, 14, 24
BLKDISCARD, BLKZEROOUT = 0x1277, 0x127F
# Documentation/admin-guide/device-mapper/log-writes.rst
MAGIC = 0x6A736677736872
FLUSH, FUA, DISCARD, MARK = 1, 2, 4, 8


def pattern(unit, value):
    """What operation `value`, which is not 0, writes to a unit; each sector differs."""
    return b"".join(
        struct.pack("<QQQQ", unit, sector, value, 0x6C756E65747465) * (SECTOR // 32)
        for sector in range(UNIT // SECTOR)
    )


class Thread(threading.Thread):
    """Works on its own groups of units; neighbours are others', so that clusters are shared."""

    def __init__(self, number, disk, units, seed, book):
        super().__init__(daemon=True)
        self.random = random.Random(seed * 100 + number)
        self.number, self.units, self.book = number, units, book
        self.fd = os.open(disk, os.O_RDWR | os.O_DIRECT)
        self.buffer = mmap.mmap(-1, UNIT * GROUP)
        self.go = threading.Semaphore(0)
        self.started = self.done = 0
        self.error = None

    def run(self):
        try:
            while True:
                self.go.acquire()
                self.step()
        except OSError as e:
            self.error = e

    def step(self):
        groups = self.units // GROUP // THREADS
        # Half of the work in an eighth of the disk, so that clusters are freed and used again.
        groups = self.random.choice((groups, groups // 8))
        first = (self.random.randrange(groups) * THREADS + self.number) * GROUP
        first += self.random.randrange(GROUP)
        count = self.random.randint(1, GROUP - first % GROUP)
        kind = self.random.choices(("write", "discard", "zero"), (8, 2, 1))[0]
        value = self.done + 1 if kind == "write" else 0
        self.book.append((first, count, value))
        self.started += 1
        extent = struct.pack("=QQ", first * UNIT, count * UNIT)
        if kind == "write":
            data = b"".join(pattern(unit, value) for unit in range(first, first + count))
            self.buffer[: len(data)] = data
            view = memoryview(self.buffer)[: len(data)]
            assert os.pwritev(self.fd, [view], first * UNIT) == len(data)
        else:
            fcntl.ioctl(self.fd, BLKDISCARD if kind == "discard" else BLKZEROOUT, extent)
        self.done += 1


def write(disk, mapper, book_file, seed):
    fd = os.open(disk, os.O_RDWR)
    units = os.lseek(fd, 0, os.SEEK_END) // UNIT
    books = [[] for _ in range(THREADS)]
    threads = [Thread(n, disk, units, int(seed), books[n]) for n in range(THREADS)]
    for thread in threads:
        thread.start()
    marks = []
    for mark in range(FLUSHES):
        if mark:
            for thread in threads:
                for _ in range(OPS):
                    thread.go.release()
            # The flush comes while about half of it is under way.
            wanted = sum(t.done for t in threads) + OPS * THREADS // 2
            while sum(t.done for t in threads) < wanted:
                for thread in threads:
                    if thread.error:
                        raise thread.error
                    thread.join(0.01)
        flushed = [t.done for t in threads]
        os.fsync(fd)
        # What has begun by now may be in the log before the mark.
        subprocess.run(["dmsetup", "message", mapper, "0", "mark", f"m{mark}"], check=True)
        marks.append((flushed, [t.started for t in threads]))
    with open(book_file, "w") as out:
        json.dump({"books": books, "marks": marks, "units": units}, out)


class Log:
    """The entries of a log: (flags, offset, length, place of the data in the log or mark's name)."""

    def __init__(self, path):
        self.file = open(path, "rb")
        magic, version, entries, size = struct.unpack("<QQQI", self.file.read(28))
        assert (magic, version) == (MAGIC, 1), "no log of dm-log-writes"
        self.entries, at = [], size
        for _ in range(entries):
            self.file.seek(at)
            head = self.file.read(size)
            sector, count, flags, length = struct.unpack_from("<QQQQ", head)
            at += size
            data = at
            if flags & MARK:
                data = head[32 : 32 + length].rstrip(b"\0").decode()
            elif not flags & DISCARD:
                at += count * size
            self.entries.append((flags, sector * size, count * size, data))

    def data(self, entry):
        self.file.seek(entry[3])
        return self.file.read(entry[2])


def sections(log):
    """For each mark the indices of the entries up to the next one."""
    # The target sets one of its own when it is removed.
    ours = [f"m{n}" for n in range(FLUSHES)]
    marks = [i for i, entry in enumerate(log.entries) if entry[0] & MARK and entry[3] in ours]
    assert len(marks) == FLUSHES, f"{len(marks)} marks of {FLUSHES}"
    return [range(a + 1, b) for a, b in zip(marks, marks[1:])]


def cut(log_file, seed, points):
    log, rng = Log(log_file), random.Random(int(seed))
    parts = sections(log)
    for _ in range(int(points)):
        mark = rng.randrange(len(parts))
        print(mark, rng.randrange(len(parts[mark]) + 1))


def replay(log_file, base, out_file, seed, mark, writes):
    log = Log(log_file)
    part = sections(log)[int(mark)]
    end = part.start + int(writes)
    rng = random.Random(f"{seed} {mark} {writes}")
    lost = rng.choice((0.0, 0.2, 0.5, 0.8, 1.0))
    stable = max((i for i in range(end) if log.entries[i][0] & FLUSH), default=0)
    shutil.copyfile(base, out_file)
    subprocess.run(["fallocate", "--dig-holes", out_file], check=False)
    with open(out_file, "r+b") as out:
        for i, entry in enumerate(log.entries[:end]):
            flags, offset, length, _ = entry
            if flags & MARK or not length:
                continue
            sure = i < stable or flags & FUA
            if flags & DISCARD:
                # A disk may keep what was discarded, or not.
                continue
            data = log.data(entry)
            if sure or not lost:
                out.seek(offset)
                out.write(data)
                continue
            for at in range(0, length, SECTOR):
                if rng.random() >= lost:
                    out.seek(offset + at)
                    out.write(data[at : at + SECTOR])


def judge(content_file, book_file, mark, base=None):
    with open(book_file) as file:
        book = json.load(file)
    flushed = book["marks"][int(mark)][0]
    begun = book["marks"][int(mark) + 1][1]
    # unit -> the values that it may have
    allowed = {}
    for number, ops in enumerate(book["books"]):
        for index, (first, count, value) in enumerate(ops[: begun[number]]):
            for unit in range(first, first + count):
                if index < flushed[number]:
                    allowed[unit] = [value]
                else:
                    allowed.setdefault(unit, [None]).append(value)
    wrong = []
    with open(content_file, "rb") as content:
        below = open(base, "rb") if base else None
        for unit in range(book["units"]):
            there = content.read(UNIT).ljust(UNIT, b"\0")
            before = below.read(UNIT).ljust(UNIT, b"\0") if below else bytes(UNIT)
            values = allowed.get(unit, [None])
            may = [
                before if v is None else pattern(unit, v) if v else bytes(UNIT) for v in values
            ]
            for at in range(0, UNIT, SECTOR):
                sector = there[at : at + SECTOR]
                if all(sector != m[at : at + SECTOR] for m in may):
                    wrong.append((unit, at // SECTOR, values, sector[:24].hex()))
    for unit, sector, values, found in wrong[:5]:
        print(f"unit {unit} sector {sector}: one of {values} is wanted, it begins with {found}")
    if wrong:
        sys.exit(f"{len(wrong)} sectors are wrong after mark {mark}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("write", "cut", "replay", "judge"):
        sys.exit(__doc__)
    globals()[sys.argv[1]](*sys.argv[2:])
