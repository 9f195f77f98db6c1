"""Many visitors, one network: what is asked for at the same time is answered in one pass."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

Item, Answer = TypeVar("Item"), TypeVar("Answer")


class BusyError(RuntimeError):
    """More is being asked for than can wait."""


class Batcher(Generic[Item, Answer]):
    """Awaitable front of a function on batches.

    While the function works in a thread, requests gather; the next call takes up to `largest` of them,
    oldest first, so that nobody starves. At most `waiting` requests may wait; one more raises BusyError.
    A request whose visitor has gone (a cancelled task) leaves the queue.
    """

    def __init__(self, function: Callable[[Sequence[Item]], Sequence[Answer]], largest: int = 8, waiting: int = 64):
        self.function, self.largest, self.waiting = function, largest, waiting
        self._requests: dict[asyncio.Future, Item] = {}  # oldest first
        self._worker: asyncio.Task | None = None

    async def __call__(self, item: Item) -> Answer:
        if len(self._requests) >= self.waiting:
            raise BusyError("Too many people are here at this moment. Try again in a few seconds.")
        future = asyncio.get_running_loop().create_future()
        self._requests[future] = item
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            return await future
        finally:
            self._requests.pop(future, None)  # who has gone leaves the place to others

    async def _work(self) -> None:
        try:
            while self._requests:
                wanted = {future: self._requests.pop(future) for future in list(self._requests)[: self.largest]}
                for future, answer in zip(wanted, await self._answer(list(wanted.values()))):
                    if future.cancelled():
                        continue
                    if isinstance(answer, Exception):
                        future.set_exception(answer)
                    else:
                        future.set_result(answer)
        finally:
            self._worker = None

    async def _answer(self, items: list[Item]) -> list[Answer | Exception]:
        """An answer to each, or what went wrong; who asked for the impossible does not spoil it for the others."""
        try:
            answers = await asyncio.to_thread(self.function, items)
            if len(answers) != len(items):
                raise RuntimeError(f"{len(answers)} answers came for {len(items)} requests")
            return list(answers)
        except Exception as error:
            if len(items) == 1:
                return [error]
            return [answer for item in items for answer in await self._answer([item])]
