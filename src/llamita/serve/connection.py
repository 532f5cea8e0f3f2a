"""The connection of a client: work for it goes on while it is there, and no longer."""

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

from starlette.types import Receive

from llamita.serve.errors import ApiError

T = TypeVar("T")


class ClientGoneError(ApiError):
    """The client has closed its connection; nobody reads this answer."""

    def __init__(self) -> None:
        super().__init__(499, "The client has gone.")  # the status that nginx notes


async def while_connected(work: Coroutine[object, object, T], receive: Receive) -> T:
    """Do the work for a client whose body has been read; cancel it and raise ClientGoneError when the client goes."""
    worker, watcher = asyncio.create_task(work), asyncio.create_task(_until_gone(receive))
    try:
        await asyncio.wait({worker, watcher}, return_when=asyncio.FIRST_COMPLETED)
        if not worker.done():
            raise ClientGoneError
        return worker.result()
    finally:
        worker.cancel()
        watcher.cancel()
        await asyncio.gather(worker, watcher, return_exceptions=True)  # both are over before anybody goes on


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
