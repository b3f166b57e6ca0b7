# SPDX-License-Identifier: Apache-2.0
"""listener.py SUBTYPE [STATUS]: another program that listens to the kernel's target over netlink, as
every program that is built on libtcmu does. It prints "listening", and a line for each device of
SUBTYPE that is enabled, removed or changed. It answers the kernel with STATUS, or, without one, never.
"""
import socket
import struct
import sys

CTRL, GETFAMILY, ADDED, CHANGED = 0x10, 3, 1, 3
COMMANDS = {1: "added", 2: "removed", 3: "changed"}


def attribute(kind, value):
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data):
    while len(data) >= 4:
        size, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:size]
        data = data[(size + 3) & ~3:]


def message(family, command, version, body):
    return struct.pack("=IHHIIBBH", 20 + len(body), family, 1, 1, 0, command, version, 0) + body


def parse(datagram):
    kind = struct.unpack_from("=H", datagram, 4)[0]
    return kind, datagram[16], dict(attributes(datagram[20:]))


sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 16)
sock.bind((0, 0))
sock.send(message(CTRL, GETFAMILY, 1, attribute(2, b"TCM-USER\0")))
_, _, found = parse(sock.recv(65536))
family = struct.unpack("=H", found[1])[0]
group = dict(attributes(dict(attributes(found[7]))[1]))
sock.setsockopt(270, 1, struct.unpack("=I", group[2])[0])  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
print("listening", flush=True)
while True:
    kind, command, said = parse(sock.recv(65536))
    if kind != family or command not in COMMANDS:
        continue
    name = said[1].rstrip(b"\0").decode()
    if name.split("/", 3)[3].split("/")[0] != sys.argv[1]:
        continue
    print(COMMANDS[command], name, flush=True)
    if len(sys.argv) > 2:
        answer = attribute(7, struct.pack("=i", int(sys.argv[2]))) + attribute(8, said[8])
        sock.send(message(family, command + 3, 2, answer))
