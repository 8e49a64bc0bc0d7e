"""The network between a cluster's processes: lines.py LISTEN:TARGET[,TARGET...] ... forwards each port to another, of several to the next
that takes it in turn, as the name of a service leads to its processes; and does to a line what standard input says: "LISTEN DELAY HELD", seconds by which everything on it is late, and whether it carries nothing for now (0 or 1)."""

import asyncio
import contextlib
import sys

BYTES = 1 << 16
LOOK_S = 0.02  # at a line that carries nothing


class Line:
    def __init__(self, targets):
        self.targets, self.delay, self.held = targets, 0.0, False

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

    async def reach(self):
        """A connection to the first that takes one, which has its next turn after the others; None if nobody does."""
        for target in list(self.targets):
            self.targets.append(self.targets.pop(0))
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", target)
        return None

    async def connect(self, reader, writer):
        there = await self.reach()
        if there is None:
            writer.close()
            return
        await asyncio.gather(self.carry(reader, there[1]), self.carry(there[0], writer))


async def main():
    lines = {}
    for pair in sys.argv[1:]:
        port, targets = pair.split(":")
        line = lines[int(port)] = Line([int(target) for target in targets.split(",")])
        await asyncio.start_server(line.connect, "127.0.0.1", int(port))
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    while order := await orders.readline():
        port, delay, held = order.split()
        lines[int(port)].delay, lines[int(port)].held = float(delay), held == b"1"


asyncio.run(main())
