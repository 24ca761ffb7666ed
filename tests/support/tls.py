"""For tests of connections: a server that decrypts and passes on, and certificates for both sides."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trustme


@contextmanager
def forwarder(port: int, tls: ssl.SSLContext | None, seen: list[bytes]) -> Iterator[int]:
    """A server that passes all to the local `port`, decrypted; `seen` gets the first bytes of each connection."""
    loop = asyncio.new_event_loop()

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65_536):
                seen.append(data[:1_000])
                writer.write(data)
        writer.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
        await asyncio.gather(pipe(reader, onward_writer), pipe(onward_reader, writer))

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(
        asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls), loop).result(60)
    yield server.sockets[0].getsockname()[1]
    loop.call_soon_threadsafe(server.close)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


class Authority:
    """A certificate authority, a server's certificate and a client's."""

    def __init__(self, folder: Path, *names: str) -> None:
        """`names` are those of the server's certificate, 127.0.0.1 and localhost by default."""
        self.ca = trustme.CA()
        self.server = self.ca.issue_cert(*names or ("127.0.0.1", "localhost"))
        self.ca_file = str(folder / "ca.pem")
        self.ca.cert_pem.write_to_path(self.ca_file)
        client = self.ca.issue_cert("client@example.org")
        self.client_cert_file, self.client_key_file = str(folder / "client.pem"), str(folder / "client.key")
        client.cert_chain_pems[0].write_to_path(self.client_cert_file)
        client.private_key_pem.write_to_path(self.client_key_file)
        Path(self.client_key_file).chmod(0o600)

    def context(self, mutual: bool) -> ssl.SSLContext:
        """The server's side; `mutual`: clients have to have a certificate, too."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.server.configure_cert(context)
        if mutual:
            self.ca.configure_trust(context)
            context.verify_mode = ssl.CERT_REQUIRED
        return context
