"""Calls that are repeated while the connection is being made again."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from pipeline.config.schema import IggyConfig, Subscription
from pipeline.iggy.connection import AGAIN_SECONDS, CONNECT_SECONDS, IggyConnection, T
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError, IggyNotFound, IggyUnreachable


async def retry_on_disconnect(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which is begun again when its connection is lost (not when none can be made), for at most
    `CONNECT_SECONDS`.

    Raises IggyError.
    """
    until = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return await work()
        except (IggyNotFound, IggyAuthenticationFailed, IggyUnreachable):
            raise
        except IggyError:
            if time.monotonic() > until:
                raise
            await asyncio.sleep(AGAIN_SECONDS)


async def check_iggy(config: IggyConfig, topics: tuple[Subscription, ...], all_needed: bool) -> None:
    """Raises IggyError when the server can't be reached, or refuses the login; IggyMissing when it has none of the
    topics, or with `all_needed` not all of them. Which are missing, ingest tells: it waits for them.

    A connection that is lost in between is made again, for at most `CONNECT_SECONDS`.
    """
    connection = IggyConnection(config)

    async def look() -> None:
        await connection.ensure_connected()
        missing = []
        for topic in topics:
            try:
                await connection.topic(topic)
            except IggyNotFound as error:
                missing.append((topic, error))
        if len(missing) == 1 and (all_needed or len(topics) == 1):
            raise missing[0][1]
        if missing and (all_needed or len(missing) == len(topics)):
            names = ", ".join(f"{topic.stream}/{topic.topic}" for topic, _ in missing)
            raise IggyNotFound(f"Iggy at {config.address} lacks the topics {names}; create them, or correct [[topics]]")

    await retry_on_disconnect(look)
