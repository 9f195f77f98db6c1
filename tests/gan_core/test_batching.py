import asyncio
import threading

import pytest

from gan_core.batching import Batcher, BusyError
from tests.waiting import LONGEST, reached


class Doubler:
    """Doubles numbers and remembers its batches. It works only while the gate is open."""

    def __init__(self):
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, numbers):
        self.batches.append(list(numbers))
        assert self.gate.wait(LONGEST)
        if any(number < 0 for number in numbers):
            raise ValueError(f"negative: {numbers}")
        return [2 * number for number in numbers]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


async def started(batcher: Batcher, items) -> list[asyncio.Task]:
    """Tasks that have all asked already, in this order."""
    tasks = [asyncio.create_task(batcher(item)) for item in items]
    await asyncio.sleep(0)
    return tasks


def test_everyone_gets_the_answer_to_what_they_asked(doubler):
    async def scenario():
        batcher = Batcher(doubler, largest=8)
        return await asyncio.gather(*(batcher(number) for number in range(50)))

    assert asyncio.run(scenario()) == [2 * number for number in range(50)]
    assert max(map(len, doubler.batches)) <= 8
    assert len(doubler.batches) < 50, "what is asked at the same time must share passes"


def test_the_oldest_requests_are_answered_first_and_as_many_as_fit(doubler):
    async def scenario():
        batcher = Batcher(doubler, largest=4)
        doubler.gate.clear()
        first = await started(batcher, [0])
        await reached(lambda: doubler.batches)
        rest = await started(batcher, range(1, 11))
        doubler.gate.set()
        await asyncio.gather(*first, *rest)

    asyncio.run(scenario())
    assert doubler.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


def test_one_after_the_other_works_too(doubler):
    async def scenario():
        batcher = Batcher(doubler)
        return [await batcher(number) for number in range(3)]

    assert asyncio.run(scenario()) == [0, 2, 4]
    assert doubler.batches == [[0], [1], [2]]


def test_one_batcher_serves_one_event_loop_after_another(doubler):
    batcher = Batcher(doubler)
    assert [asyncio.run(batcher(number)) for number in (1, 2)] == [2, 4]


def test_the_event_loop_stays_free_while_the_function_works(doubler):
    async def scenario():
        doubler.gate.clear()
        (task,) = await started(Batcher(doubler), [1])
        await reached(lambda: doubler.batches)
        assert not task.done()
        doubler.gate.set()
        return await task

    assert asyncio.run(scenario()) == 2


def test_an_error_reaches_who_asked_for_it_and_nobody_else(doubler):
    async def scenario():
        batcher = Batcher(doubler, largest=2)
        tasks = await started(batcher, [1, -1, 5, 6])
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        return [*answers, await batcher(7)]

    first, second, *others = asyncio.run(scenario())
    assert first == 2
    assert isinstance(second, ValueError)
    assert "negative" in str(second)
    assert others == [10, 12, 14]


def test_more_than_can_wait_are_turned_away_and_the_others_served(doubler):
    async def scenario():
        batcher = Batcher(doubler, largest=2, waiting=3)
        doubler.gate.clear()
        working = await started(batcher, [0])
        await reached(lambda: doubler.batches)
        waiting = await started(batcher, [1, 2, 3])
        with pytest.raises(BusyError, match="Try again"):
            await batcher(4)
        doubler.gate.set()
        answers = await asyncio.gather(*working, *waiting)
        return answers, await batcher(5)

    assert asyncio.run(scenario()) == ([0, 2, 4, 6], 10)


def test_whoever_has_gone_leaves_the_place_to_others(doubler):
    async def scenario():
        batcher = Batcher(doubler, waiting=2)
        doubler.gate.clear()
        working = await started(batcher, [0])
        await reached(lambda: doubler.batches)
        for gone in await started(batcher, [1, 2]):
            gone.cancel()
        await asyncio.sleep(0)
        waiting = await started(batcher, [3, 4])
        doubler.gate.set()
        return await asyncio.gather(*working, *waiting)

    assert asyncio.run(scenario()) == [0, 6, 8]


def test_whoever_has_gone_is_left_out(doubler):
    async def scenario():
        batcher = Batcher(doubler)
        doubler.gate.clear()
        working = await started(batcher, [0])
        await reached(lambda: doubler.batches)
        waiting = await started(batcher, [1, 2, 3])
        waiting[1].cancel()
        await asyncio.sleep(0)
        doubler.gate.set()
        return await asyncio.gather(*working, *waiting, return_exceptions=True)

    answers = asyncio.run(scenario())
    assert doubler.batches == [[0], [1, 3]]
    assert answers[:2] + answers[3:] == [0, 2, 6]
    assert isinstance(answers[2], asyncio.CancelledError)


def test_whoever_goes_while_the_function_works_does_not_hurt_the_others(doubler):
    async def scenario():
        batcher = Batcher(doubler)
        doubler.gate.clear()
        tasks = await started(batcher, [1, 2])
        await reached(lambda: doubler.batches)
        tasks[0].cancel()
        await asyncio.sleep(0)
        doubler.gate.set()
        return await tasks[1], await batcher(3)

    assert asyncio.run(scenario()) == (4, 6)
    assert doubler.batches[0] == [1, 2]


def test_too_few_answers_reach_everyone_as_an_error():
    async def scenario():
        batcher = Batcher(lambda items: [])
        return await asyncio.gather(*(batcher(i) for i in range(3)), return_exceptions=True)

    answers = asyncio.run(asyncio.wait_for(scenario(), LONGEST))
    assert all(isinstance(answer, RuntimeError) and "answers came for" in str(answer) for answer in answers)
