"""What counts as a metric in a program's output."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlhpo.worker.command import Records, number, step_of


def read(*pieces: bytes) -> list[dict[str, Any]]:
    records = Records()
    return [record for piece in pieces for record in records.feed(piece)] + list(records.end())


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'{"loss": 0.5}\n', [{"loss": 0.5}]),
        (b'{"loss": 0.5}', [{"loss": 0.5}]),
        (b'  {"loss": 0.5} \r\n', [{"loss": 0.5}]),
        (b'{"a": 1}\n{"a": 2}\n', [{"a": 1}, {"a": 2}]),
        (b'50%|####|\r100%|####|\r{"a": 1}\n', [{"a": 1}]),
        (b'unfinished line\x1e{"a": 1}\n', [{"a": 1}]),
        (b'{"loss": NaN}\n', [{"loss": pytest.approx(float("nan"), nan_ok=True)}]),
        (b'loss: {"a": 1}\n', []),
        (b"{'a': 1}\n", []),
        (b'{"a": 1\n}\n', []),
        (b"[1, 2]\n", []),
        (b"\xff\xfe{}\n", []),
        (b"{" * 100_000 + b"}\n", []),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000 + b"\n", []),
    ],
)
def test_lines(data: bytes, expected: list[dict[str, Any]]) -> None:
    assert read(data) == expected


@given(st.lists(st.integers(1, 40), max_size=8))
def test_pieces_do_not_matter(sizes: list[int]) -> None:
    data, pieces = b'{"step": 1, "loss": 0.5}\nhello\n{"step": 2, "loss": 0.25}\n', []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    assert read(*pieces, data) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.25}]


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    records = Records()
    for _ in range(50):
        assert list(records.feed(b"x" * 100_000)) == []
    assert len(records._rest) <= 1_000_000
    assert list(records.feed(b'\n{"a": 1}\n')) == [{"a": 1}]


@pytest.mark.parametrize(
    ("record", "step"),
    [
        ({"step": 3}, 3), ({"epoch": 3}, 3), ({"iteration": 3}, 3), ({"epoch": 3.0}, 3), ({"epoch": 1, "step": 70}, 70),
        ({}, None), ({"epoch": -1}, None), ({"epoch": 1.5}, None), ({"epoch": "1"}, None), ({"epoch": True}, None),
        ({"epoch": 10**20}, None), ({"epoch": float("nan")}, None), ({"epoch": float("inf")}, None),
    ],
)  # fmt: skip
def test_steps(record: dict[str, Any], step: int | None) -> None:
    assert step_of(record) == step


@pytest.mark.parametrize(
    ("value", "expected"), [(1, 1.0), (0.5, 0.5), (True, None), ("1", None), (None, None), (10**400, None)]
)
def test_numbers(value: Any, expected: float | None) -> None:
    assert number(value) == expected
