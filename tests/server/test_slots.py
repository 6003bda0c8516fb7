"""Slots: never more than there are, fair between keys, and Retry-After as fast as slots come back."""

import asyncio
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.refusal import Overloaded, Unavailable
from server.slots import FIRST_GUESS_S, REMEMBERED, Place, Slots
from tests.server.test_keys import Clock


def has_turn(place: Place) -> bool:
    return place.granted_at is not None


def test_as_many_as_there_are_run_and_wait_and_no_more() -> None:
    async def scenario() -> None:
        slots = Slots(2, 3)
        places = [slots.ask("", 1) for _ in range(5)]
        assert [has_turn(place) for place in places] == [True, True, False, False, False]
        with pytest.raises(Overloaded, match=r"2 of 2 sequences run, 3 of 3 wait"):
            slots.ask("", 1)
        slots.give_back(places[0])
        assert has_turn(places[2])
        assert places[2].turn is not None
        assert places[2].turn.done()
        slots.ask("", 1)
        assert (slots.num_running, slots.num_waiting) == (2, 3)

    asyncio.run(scenario())


def test_free_slot_goes_to_the_key_that_has_fewest() -> None:
    async def scenario() -> None:
        slots = Slots(4, 10)
        greedy = [slots.ask("greedy", 1) for _ in range(8)]
        modest = [slots.ask("modest", 1) for _ in range(3)]
        for place in greedy[:2]:
            slots.give_back(place)
        assert [has_turn(place) for place in modest] == [True, True, False]
        assert not any(has_turn(place) for place in greedy[4:])
        slots.give_back(greedy[2])
        assert has_turn(greedy[4]) != has_turn(modest[2])
        assert sum(map(has_turn, [*greedy[4:], modest[2]])) == 1

    asyncio.run(scenario())


def test_full_room_turns_away_the_latest_of_the_key_that_fills_it() -> None:
    async def scenario() -> None:
        slots = Slots(1, 4)
        slots.ask("greedy", 1)
        waiting = [slots.ask("greedy", 1) for _ in range(4)]
        newcomer = slots.ask("modest", 1)
        assert newcomer.turn is not None
        assert not newcomer.turn.done()
        assert isinstance(waiting[-1].turn and waiting[-1].turn.exception(), Overloaded)
        assert slots.num_waiting == 4
        slots.ask("modest", 1)
        with pytest.raises(Overloaded):
            slots.ask("modest", 1)  # two and two: nobody fills more than a third would

    asyncio.run(scenario())


def test_nobody_is_turned_away_for_one_who_does_not_fit_even_so() -> None:
    async def scenario() -> None:
        slots = Slots(1, 4)
        slots.ask("a", 1)
        waiting = [slots.ask(owner, 1) for owner in "aabb"]
        with pytest.raises(Overloaded):
            slots.ask("c", 3)
        assert [place.turn is not None and place.turn.done() for place in waiting] == [False] * 4

    asyncio.run(scenario())


def test_large_request_is_not_overtaken_for_ever() -> None:
    async def scenario() -> None:
        slots = Slots(4, 10)
        small = [slots.ask("many", 1) for _ in range(4)]
        large = slots.ask("large", 4)
        later = slots.ask("many", 1)
        for place in small[:3]:
            slots.give_back(place)
            assert not has_turn(large)
            assert not has_turn(later)
        slots.give_back(small[3])
        assert has_turn(large)

    asyncio.run(scenario())


def test_retry_after_is_what_those_who_wait_will_take() -> None:
    async def scenario() -> None:
        clock = Clock()
        slots = Slots(2, 8, clock)
        assert slots.retry_after_s() == FIRST_GUESS_S / 2
        running = [slots.ask("", 1) for _ in range(2)]
        for _ in range(20):  # each holds a slot for 3 seconds: two slots serve 2 requests in 3 seconds
            clock.now += 3
            for place in running:
                slots.give_back(place)
            running = [slots.ask("", 1) for _ in range(2)]
        waiting = [slots.ask("", 1) for _ in range(7)]
        assert slots.retry_after_s() == pytest.approx((7 + 1) * 3 / 2)
        for place in waiting:
            slots.give_back(place)
        assert slots.retry_after_s() == pytest.approx(3 / 2)

    asyncio.run(scenario())


def test_what_was_refused_at_once_does_not_shorten_retry_after() -> None:
    """And an answer counts by its sequences."""

    async def scenario() -> None:
        clock = Clock()
        slots = Slots(4, 4, clock)
        large, small = slots.ask("", 3), slots.ask("", 1)
        clock.now += 8
        slots.give_back(large)
        clock.now += 8
        slots.give_back(small)
        for _ in range(REMEMBERED):
            clock.now += 0.001
            slots.give_back(slots.ask("", 1), has_worked=False)
        assert slots.retry_after_s() == pytest.approx((3 * 8 + 16) / 4 / 4)

    asyncio.run(scenario())


def test_closed_slots_refuse_those_who_wait_and_keep_those_who_need_not() -> None:
    async def scenario() -> None:
        slots = Slots(1, 4)
        running, waiting = slots.ask("", 1), slots.ask("", 1)
        slots.close(lambda: Unavailable("closing"))
        assert isinstance(waiting.turn and waiting.turn.exception(), Unavailable)
        with pytest.raises(Unavailable):
            slots.ask("", 1)
        slots.give_back(waiting)
        slots.give_back(running)
        late = slots.ask("", 1)
        assert late.turn is None
        slots.give_back(late)
        assert (slots.num_running, slots.num_waiting) == (0, 0)

    asyncio.run(scenario())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.sampled_from("abc"), st.integers(1, 3)),
        st.tuples(st.just("back"), st.integers(0, 30), st.just(0)),
    ),
    max_size=60,
)


@given(STEPS)
def test_whatever_happens_the_counts_are_those_of_the_places(steps: list[tuple[str, object, int]]) -> None:
    async def scenario() -> None:
        slots = Slots(3, 5)
        places: list[Place] = []
        for step, what, size in steps:
            if step == "ask":
                with suppress(Overloaded):
                    places.append(slots.ask(str(what), size))
            elif places:
                assert isinstance(what, int)
                slots.give_back(places.pop(what % len(places)))
            running = [place for place in places if has_turn(place)]
            refused = [place for place in places if place.turn and place.turn.done() and not has_turn(place)]
            waiting = [place for place in places if place not in running and place not in refused]
            assert slots.num_running == sum(place.size for place in running) <= 3
            assert slots.num_waiting == sum(place.size for place in waiting) <= 5
            fewest = Counter({place.owner: 0 for place in waiting})
            for place in running:
                fewest[place.owner] += place.size
            if waiting:  # a slot is free only while the fairest of them does not fit into it
                fairest = min(waiting, key=lambda place: (fewest[place.owner], place.asked_at))
                assert slots.num_running + fairest.size > 3
            for place in refused:
                assert isinstance(place.turn and place.turn.exception(), Overloaded)

    asyncio.run(scenario())
