"""Work that is repeated when its connection to Iggy is lost, and the check of Iggy at the start."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.schema import Subscription
from pipeline.iggy.connection import CONNECT_SECONDS, RETRY_SECONDS, IggyConnection, T
from pipeline.iggy.errors import IggyAuthenticationFailed, IggyError, IggyNotFound, IggyUnreachable


async def retry_on_disconnect(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which is repeated from the start when its connection is lost, for `CONNECT_SECONDS`.

    Raises IggyError, also immediately when no connection can be made.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return await work()
        except (IggyNotFound, IggyAuthenticationFailed, IggyUnreachable):
            raise
        except IggyError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(RETRY_SECONDS)


async def check_iggy(config: IggyConfig, topics: tuple[Subscription, ...], all_needed: bool) -> None:
    """Raises IggyError when the server cannot be reached or refuses the login, and IggyNotFound when it has none of the
    topics, or with `all_needed` not all of them. Otherwise ingest logs the missing ones and waits for them.

    The check is repeated when the connection is lost.
    """
    connection = IggyConnection(config)

    async def check() -> None:
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
            raise IggyNotFound(f"Iggy at {connection.address} lacks the topics {names}; create them, or correct "
                               "[[topics]]")

    await retry_on_disconnect(check)
