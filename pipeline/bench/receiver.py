"""A receiver that takes every write and notes how late its points are: `python -m pipeline.bench.receiver`.

It answers first and looks at the lines then, so that looking delays nothing but the next answer.
"""

import asyncio
import json
import os
import time
from pathlib import Path

import click

from pipeline.bench.latency import Latencies
from stages.influxdb.body import decompress

NO_CONTENT = b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: v2.7.12\r\n\r\n"


class Tally:
    """What all connections have brought."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.requests = self.points = self.bytes = 0

    def take(self, body: bytes, acknowledged: float) -> None:
        """Counts a body that was acknowledged at `acknowledged`, seconds since 1970."""
        self.requests += 1
        self.bytes += len(body)
        lines = decompress(body) if body[:2] == b"\x1f\x8b" else body
        self.points += self.latencies.add(lines, round(acknowledged * 1e6))

    def to_json(self) -> bytes:
        """All of it."""
        return json.dumps({"requests": self.requests, "points": self.points, "bytes": self.bytes,
                           "histogram": self.latencies.encoded(), "by_second": self.latencies.by_second()}).encode()


class Connection(asyncio.Protocol):
    """One client's connection. Bodies have a `Content-Length`."""

    transport: asyncio.Transport

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._data = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Takes the connection."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Answers each request that is complete."""
        self._data += data
        while (end := self._data.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._data[:end]).lower()
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
            total = end + 4 + int(length or 0)
            if len(self._data) < total:
                return
            body = bytes(self._data[end + 4:total])
            del self._data[:total]
            if head.startswith(b"get /bench/result"):
                answer = self._tally.to_json()
                self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
            else:
                self.transport.write(NO_CONTENT)
                self._tally.take(body, time.time())


async def serve(address_file: Path) -> None:
    """Listens on a free port of loopback, and writes its URL as the sandbox does. Runs until cancelled."""
    tally = Tally()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(tally), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    unfinished = address_file.with_name(address_file.name + ".new")
    unfinished.write_text(json.dumps({"influxdb": f"http://127.0.0.1:{port}", "pid": os.getpid()}))
    unfinished.replace(address_file)
    await server.serve_forever()


@click.command()
@click.option("--address-file", required=True, type=click.Path(path_type=Path), help="Written when it listens.")
def main(address_file: Path) -> None:
    """Runs the receiver until it is killed."""
    asyncio.run(serve(address_file))


if __name__ == "__main__":
    main(prog_name="python -m pipeline.bench.receiver")
