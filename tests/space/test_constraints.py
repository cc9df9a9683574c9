"""Constraints over metrics: what they mean, and that they are never run as code."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aimlhpo.objective.base import BadValue, MissingMetric
from aimlhpo.space.constraints import Constraint, ConstraintError, constraint_values, holds, parse_constraint

METRICS = {"millions": 12.5, "latency": 40, "batch": 8, "val/acc": 0.9, "ok": True, "word": "text", "zero": 0}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("millions <= 20", -7.5),
        ("20 >= millions", -7.5),
        ("millions >= 20", 7.5),
        ("latency < 5 * batch", pytest.approx(2.2e-16, abs=1e-15)),
        ("latency <= 5 * batch", 0.0),
        ("latency > 39", -1.0),
        ("-latency + 2 ** 3 <= (batch - 1) / 2", -35.5),
        ("2 ** 3 ** 2 <= batch", 504.0),
        ("'val/acc' >= 0.8", pytest.approx(-0.1)),
        ("ok >= 1", 0.0),
        ("  millions   <=\n 20 ", -7.5),
    ],
)
def test_the_value_is_0_or_less_where_it_holds(text: str, value: float) -> None:
    assert parse_constraint(text).value(METRICS) == value


def test_equal_is_not_less() -> None:
    assert not holds({"c": parse_constraint("latency < 40").value(METRICS)})
    assert holds({"c": parse_constraint("latency <= 40").value(METRICS)})


def test_the_names_and_the_text() -> None:
    constraint = parse_constraint("latency  <  5*batch + 'val/acc' + batch")
    assert constraint.names == ("latency", "batch", "val/acc")
    assert constraint.text == "latency < 5*batch + 'val/acc' + batch"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "cannot be read"),
        ("millions", "no comparison"),
        ("millions <=", "cannot be read"),
        ("val/acc:best <= 1", "cannot be read"),
        ("millions == 20", "equality"),
        ("millions != 20", "equality"),
        ("1 < millions < 20", "more than one comparison"),
        ("millions < 20 and latency < 3", "`and` or `or`"),
        ("millions in (1, 2)", "`in`"),
        ("abs(millions) <= 20", "a call"),
        ("__import__('os').system('true') <= 1", "a call"),
        ("millions.real <= 20", "a dot"),
        ("millions[0] <= 20", "square brackets"),
        ("[millions] <= 20", "a list"),
        ("(lambda: 1) <= millions", "a function"),
        ("(millions if batch else 1) <= 3", "a condition"),
        ("(x := 3) <= millions", "an assignment"),
        ("millions % 2 <= 1", "%"),
        ("millions // 2 <= 1", "//"),
        ("not millions <= 1", "no comparison"),
        ("-(not millions) <= 1", "`not`"),
        ("millions <= 20j", "20j"),
        ("millions <= None", "None"),
        ("millions <= True", "True"),
        ("millions <= 1e400", "too large"),
        (f"millions <= {'9' * 180}e300", "too large"),
        ("f'{millions}' <= 1", "no number"),
        ("1 <= 2", "names no metric"),
        ("millions <= " + "1 + " * 100 + "1", "characters"),
        ("millions <= 1\0", "cannot be read"),
        ("(" * 99 + "millions" + ")" * 80 + " <= 1", "cannot be read"),
    ],
)
def test_what_is_refused(text: str, found: str) -> None:
    with pytest.raises(ConstraintError) as error:
        parse_constraint(text)
    assert found in error.value.found
    assert error.value.legal


@given(st.text(max_size=60))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    with suppress(ConstraintError):
        assert isinstance(parse_constraint(text), Constraint)


def test_a_metric_that_is_not_there() -> None:
    with pytest.raises(MissingMetric) as error:
        parse_constraint("million <= 20").value(METRICS)
    assert error.value.cause.startswith("missing metric: million;")
    assert "millions" in error.value.cause


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("millions / zero <= 1", "division by zero"),
        ("(-latency) ** 0.5 <= 1", "not a finite real number"),
        ("10 ** latency ** latency <= 1", "too large"),
        ("1e308 * latency <= 1", "not a finite real number"),
        ("word <= 1", "word is 'text'"),
    ],
)
def test_a_value_that_cannot_be_computed(text: str, reason: str) -> None:
    with pytest.raises(BadValue) as error:
        parse_constraint(text).value(METRICS)
    assert reason in error.value.cause
    assert error.value.cause.startswith(f"bad value: constraint {text!r}")


def test_nan_is_no_value() -> None:
    with pytest.raises(BadValue, match="x is nan"):
        parse_constraint("x <= 1").value({"x": float("nan")})


def test_the_order_does_not_depend_on_the_file() -> None:
    one, other = parse_constraint("millions <= 20"), parse_constraint("latency <= 30")
    assert list(constraint_values([one, other], METRICS)) == list(constraint_values([other, one], METRICS))
