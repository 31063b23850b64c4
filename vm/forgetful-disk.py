#!/usr/bin/env python3
"""forgetful-disk.py FILE SIZE SOCKET

A disk for QEMU, by the NBD protocol, that does what a real one may do and no file of the
host does: what was written and not flushed is gone when the power is. The disk is FILE, of
SIZE bytes. Behind its end are two blocks of 4096 bytes more:

  SIZE         a notebook: what is written here stays at once
  SIZE + 4096  the power switch: a write of "all" forgets all that was not flushed, a write
               of "some" a random half of it, as a disk may that writes in an order of its
               own; from then on nothing is written any more

It keeps or forgets sectors of 4096 bytes, as disks have them today that speak of 512. With
512, ext4's superblock of 1024 bytes could be half of before and half of after, and then its
checksum is wrong and nothing can be mounted: that is between ext4 and such a disk.

https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md
"""
import os
import random
import socket
import struct
import sys

SECTOR = 4096
HAS_FLAGS, SEND_FLUSH = 1, 4
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3

path, size, where = sys.argv[1], int(sys.argv[2]), sys.argv[3]
disk = os.open(path, os.O_RDWR)
pending = {}
cut = False


def receive(connection, count):
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def greet(connection):
    """The fixed newstyle handshake, up to NBD_OPT_EXPORT_NAME or NBD_OPT_GO."""
    flags = HAS_FLAGS | SEND_FLUSH
    connection.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    receive(connection, 4)
    while True:
        _, option, length = struct.unpack(">8sII", receive(connection, 16))
        receive(connection, length)

        def reply(kind, data=b""):
            head = struct.pack(">QIII", 0x3E889045565A9, option, kind, len(data))
            connection.sendall(head + data)

        if option == 1:
            connection.sendall(struct.pack(">QH", size + 8192, flags) + bytes(124))
            return
        if option == 7:
            reply(3, struct.pack(">HQH", 0, size + 8192, flags))
            reply(1)
            return
        reply(0x80000001)


def sectors(offset, length):
    """Each sector that length bytes from offset touch: its place, and the bytes of it."""
    while length:
        place, start = offset - offset % SECTOR, offset % SECTOR
        count = min(length, SECTOR - start)
        yield place, slice(start, start + count)
        offset, length = offset + count, length - count


def sector(place):
    """A sector as it is read now, written down or not."""
    return pending.get(place) or os.pread(disk, SECTOR, place).ljust(SECTOR, b"\0")


def read(offset, length):
    return b"".join(sector(place)[part] for place, part in sectors(offset, length))


def write(offset, data):
    global cut
    if cut:
        return
    if offset == size:
        os.pwrite(disk, data, offset)
    elif offset == size + 4096:
        if data.startswith(b"some"):
            keep(random.sample(sorted(pending), len(pending) // 2))
        print(f"forgetful-disk: {len(pending)} sectors are forgotten", flush=True)
        pending.clear()
        cut = True
    else:
        at = 0
        for place, part in sectors(offset, len(data)):
            changed, end = bytearray(sector(place)), at + part.stop - part.start
            changed[part] = data[at:end]
            pending[place], at = bytes(changed), end


def keep(offsets):
    for offset in offsets:
        os.pwrite(disk, pending.pop(offset), offset)


def serve(connection):
    greet(connection)
    while True:
        request = struct.unpack(">IHHQQI", receive(connection, 28))
        _, _, kind, handle, offset, length = request
        if kind == DISCONNECT:
            return
        answer = b""
        if kind == READ:
            answer = read(offset, length)
        elif kind == WRITE:
            write(offset, receive(connection, length))
        elif kind == FLUSH and not cut:
            keep(list(pending))
        connection.sendall(struct.pack(">IIQ", 0x67446698, 0, handle) + answer)


listener = socket.socket(socket.AF_UNIX)
listener.bind(where)
listener.listen(1)
try:
    serve(listener.accept()[0])
except EOFError:
    pass
