"""Rounds take turns."""

from pipeline.benchmark.config import interleaved, seconds_of


def test_contenders_take_turns_and_every_value_is_told() -> None:
    order: list[str] = []
    told: list[str] = []

    def contender(name: str, value: float) -> float:
        order.append(name)
        return value + len(order)

    contenders = {"a": lambda: contender("a", 0), "b": lambda: contender("b", 100)}
    found = interleaved(contenders, rounds=3, tell=told.append)
    assert order == ["a", "b"] * 3
    assert found == {"a": [1, 3, 5], "b": [102, 104, 106]}
    assert len(told) == 6
    assert "round 3 of 3: b" in told[-1]


def test_seconds_of_calls_once() -> None:
    calls: list[int] = []
    assert seconds_of(lambda: calls.append(1)) >= 0
    assert calls == [1]
