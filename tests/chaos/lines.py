"""The network between a cluster's processes: lines.py LISTEN:TARGET ... forwards each port to another, and does to a line what standard input
says: "LISTEN DELAY HELD", seconds by which everything on it is late, and whether it carries nothing for now (0 or 1)."""

import asyncio
import sys

BYTES = 1 << 16
LOOK_S = 0.02  # at a line that carries nothing


class Line:
    def __init__(self, target):
        self.target, self.delay, self.held = target, 0.0, False

    async def carry(self, reader, writer):
        try:
            while data := await reader.read(BYTES):
                if self.delay:
                    await asyncio.sleep(self.delay)
                while self.held:
                    await asyncio.sleep(LOOK_S)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # an end is gone; the other learns it below
        finally:
            writer.close()

    async def connect(self, reader, writer):
        try:
            there = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.carry(reader, there[1]), self.carry(there[0], writer))


async def main():
    lines = {}
    for pair in sys.argv[1:]:
        port, target = map(int, pair.split(":"))
        lines[port] = Line(target)
        await asyncio.start_server(lines[port].connect, "127.0.0.1", port)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := await orders.readline():
        port, delay, held = order.split()
        lines[int(port)].delay, lines[int(port)].held = float(delay), held == b"1"


asyncio.run(main())
