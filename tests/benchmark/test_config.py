"""Rounds take turns."""

from pipeline.benchmark.config import interleaved, seconds_of


def test_contenders_take_turns() -> None:
    order: list[str] = []

    def contender(name: str, value: float) -> float:
        order.append(name)
        return value + len(order)

    contenders = {"a": lambda: contender("a", 0), "b": lambda: contender("b", 100)}
    found = interleaved(contenders, rounds=3, part="embed")
    assert order == ["a", "b"] * 3
    assert found == {"a": [1, 3, 5], "b": [102, 104, 106]}


def test_seconds_of_calls_once() -> None:
    calls: list[int] = []
    assert seconds_of(lambda: calls.append(1)) >= 0
    assert calls == [1]
