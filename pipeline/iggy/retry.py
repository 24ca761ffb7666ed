"""Work that is repeated when its connection to Iggy is lost, and the check of Iggy at the start."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from pipeline.config.iggy_schema import IggyConfig
from pipeline.config.patterns import is_pattern
from pipeline.config.schema import Subscription
from pipeline.iggy.connection import CONNECT_SECONDS, RETRY_SECONDS, IggyConnection, T
from pipeline.iggy.errors import (
    IggyAuthenticationFailed,
    IggyError,
    IggyForbidden,
    IggyNotFound,
    IggyUnreachable,
)

LOGGER = logging.getLogger("iggy")


async def retry_on_disconnect(work: Callable[[], Awaitable[T]]) -> T:
    """The result of `work`, which is repeated from the start when its connection is lost, for `CONNECT_SECONDS`.

    Raises IggyError, also immediately when no connection can be made.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            return await work()
        except (IggyNotFound, IggyForbidden, IggyAuthenticationFailed, IggyUnreachable):
            raise
        except IggyError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(RETRY_SECONDS)


async def check_iggy(config: IggyConfig, topics: tuple[Subscription, ...], all_needed: bool) -> None:
    """Raises IggyError when the server cannot be reached, refuses the login, or the user lacks a right.

    Raises IggyNotFound when the server has none of the topics, or with `all_needed` not all of them. Otherwise ingest
    logs the missing ones and waits for them.

    The check is repeated when the connection is lost.
    """
    connection = IggyConnection(config)

    async def check() -> None:
        await connection.ensure_connected()
        missing, forbidden = [], []
        for topic in topics:
            try:
                await check_rights(connection, topic)
            except IggyNotFound as error:
                if not topic.is_pattern:  # ingest says so where none matches, and waits
                    missing.append((topic, error))
            except IggyForbidden as error:
                forbidden.append(str(error))
        if forbidden:
            raise IggyForbidden("; ".join(dict.fromkeys(forbidden)))
        if len(missing) == 1 and (all_needed or len(topics) == 1):
            raise missing[0][1]
        if missing and (all_needed or len(missing) == len(topics)):
            names = ", ".join(f"{topic.stream}/{topic.topic}" for topic, _ in missing)
            raise IggyNotFound(f"Iggy at {connection.address} lacks the topics {names}; create them, or correct "
                               "[[topics]]")

    await retry_on_disconnect(check)
    for limit in connection.limits():
        LOGGER.warning("%s", limit)


async def check_rights(connection: IggyConnection, topic: Subscription) -> None:
    """Whether the user may poll a topic, store offsets there, and join its group; or list the topics of a pattern.

    Raises IggyNotFound and IggyError.
    """
    if topic.is_pattern:
        await (connection.streams() if is_pattern(topic.stream) else connection.topics_of(topic.stream))
        return
    details = await connection.topic(topic)
    for partition in details.partitions[:1]:
        await connection.poll(topic, partition.id, partition.current_offset, 1)
        await connection.stored_offset(topic, partition.id)
    if topic.group:
        await connection.members(topic)
