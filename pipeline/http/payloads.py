"""The payloads of the last dead letters, read again from Iggy when somebody who may see them asks."""

import asyncio
import base64

from msgspec import Struct
from msgspec.structs import replace

from pipeline.config.schema import Config
from pipeline.errors import PipelineError
from pipeline.iggy.connection import IggyConnection
from pipeline.wire.sink import RejectStatus

#: Longest part of a payload that is shown, bytes.
SHOWN_BYTES = 65_536
#: Longest wait for Iggy, seconds.
SECONDS = 10.0


class Payload(Struct, frozen=True, omit_defaults=True):
    """One payload."""

    #: Bytes of the whole payload.
    size: int
    #: The payload, or its beginning, if it is UTF-8 text; and otherwise in Base64.
    text: str = ""
    base64: str = ""


class Payloads:
    """A connection to Iggy, made when it is needed."""

    def __init__(self, config: Config) -> None:
        sinks = [sink.name for sink in config.all_sinks()]
        #: Some subscription of each sink: the topic may be one that matches a pattern.
        self._subscriptions = {sinks[one.sink]: one for one in config.subscriptions()}
        self._iggy = IggyConnection(config.iggy)
        self._lock = asyncio.Lock()

    async def read(self, letter: RejectStatus) -> Payload | None:
        """The payload of a message; None if Iggy does not have it any more. Raises PipelineError."""
        subscription = replace(self._subscriptions[letter.sink], stream=letter.stream, topic=letter.topic)
        async with self._lock:
            try:
                async with asyncio.timeout(SECONDS):
                    await self._iggy.ensure_connected()
                    polled = await self._iggy.poll(subscription, letter.partition, letter.offset, 1)
            except TimeoutError:
                raise PipelineError(f"Iggy did not answer within {SECONDS:g} s") from None
        return payload_of(polled[0].payload()) if polled and polled[0].offset() == letter.offset else None


def payload_of(content: bytes) -> Payload:
    """A payload as it is shown."""
    shown = content[:SHOWN_BYTES]
    try:
        content.decode("utf-8")
        # The cut may be inside of a character.
        return Payload(len(content), text=shown.decode("utf-8", "ignore"))
    except UnicodeDecodeError:
        return Payload(len(content), base64=base64.b64encode(shown).decode())
