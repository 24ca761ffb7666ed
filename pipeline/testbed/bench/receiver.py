"""A receiver that takes every write and notes how late its points are: `python -m pipeline.testbed.bench.receiver`.

`GET /bench/result` returns what it has counted since it started, or since the last `GET /bench/reset`.

It answers first and looks at the lines then, so that looking delays nothing but the next answer.
"""

import asyncio
import json
import os
import time
from asyncio import StreamReader, StreamWriter
from pathlib import Path
from urllib.parse import urlsplit

import click

from pipeline.compression import decompress
from pipeline.interrupts import end_on_interrupt
from pipeline.testbed.bench.latency import Latencies

#: Bytes of a stream that are held, at most.
LIMIT = 1 << 20
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


class Receiver:
    """Answers every write by itself, or as the database answers that it is passed on to."""

    def __init__(self, forward: str) -> None:
        """`forward`: the database's http://host:port, or ""."""
        self._tally = Tally()
        self._forward = urlsplit(forward) if forward else None

    async def serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """One client's connection, to its end. Bodies have a `Content-Length`."""
        database = await self._database()
        try:
            while True:
                head, body = await _message(reader)
                if head.startswith(b"GET /bench/reset"):
                    self._tally = Tally()
                    writer.write(NO_CONTENT)
                    continue
                if head.startswith(b"GET /bench/result"):
                    answer = self._tally.to_json()
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))
                    continue
                answer = NO_CONTENT
                if database is not None:
                    database[1].write(head + body)
                    answer = b"".join(await _message(database[0]))
                writer.write(answer)
                if head.startswith(b"POST") and answer.startswith(b"HTTP/1.1 204"):
                    self._tally.take(body, time.time())
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # one of the two has gone
        finally:
            for stream in (writer, database[1] if database else None):
                if stream is not None:
                    stream.close()

    async def _database(self) -> tuple[StreamReader, StreamWriter] | None:
        if self._forward is None:
            return None
        return await asyncio.open_connection(self._forward.hostname, self._forward.port, limit=LIMIT)


async def _message(reader: StreamReader) -> tuple[bytes, bytes]:
    """Head and body of a request or an answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
    return head, await reader.readexactly(int(length or 0))


async def serve(address_file: Path, forward: str) -> None:
    """Listens on a free port of loopback, and writes its URL as the sandbox does. Runs until cancelled."""
    receiver = Receiver(forward)
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0, limit=LIMIT)
    port = server.sockets[0].getsockname()[1]
    unfinished = address_file.with_name(address_file.name + ".new")
    unfinished.write_text(json.dumps({"influxdb": f"http://127.0.0.1:{port}", "pid": os.getpid()}))
    unfinished.replace(address_file)
    await server.serve_forever()


@click.command()
@click.option("--address-file", required=True, type=click.Path(path_type=Path), help="Accepted when it listens.")
@click.option("--forward", default="", metavar="URL", help="A database that every request is passed on to.")
def main(address_file: Path, forward: str) -> None:
    """Runs the receiver until it is killed."""
    end_on_interrupt("")
    asyncio.run(serve(address_file, forward))


if __name__ == "__main__":
    main(prog_name="python -m pipeline.testbed.bench.receiver")
