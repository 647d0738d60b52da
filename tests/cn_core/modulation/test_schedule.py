"""Schedules: what a text says, where in a run it comes to, and which strength a sigma gets."""

from __future__ import annotations

from itertools import pairwise
from math import cos, exp, pi

import pytest
from controlnet_kit.cn_core.errors import ControlNetKitError
from controlnet_kit.cn_core.modulation.run import Run, percent_of, step_of
from controlnet_kit.cn_core.modulation.schedule import Interpolation, Keyframe, Schedule, parse, resolve, strength_at
from controlnet_kit.cn_core.modulation.text import ScheduleError
from hypothesis import given
from hypothesis import strategies as st


def percent_to_sigma(percent: float) -> float:
    """From 20 down to 0.02, linear in log sigma; at the ends as in the host."""
    if percent <= 0:
        return 999999999.9
    return 0.0 if percent >= 1 else 0.02 * exp(6.907755278982137 * (1 - percent))


def run_between(first: float, last: float, steps: int = 10) -> Run:
    """A run over a part of the noise schedule, evenly spaced in percent."""
    percents = [first + (last - first) * step / steps for step in range(steps + 1)]
    sigmas = (0.0 if p == 1 else 0.02 * exp(6.907755278982137 * (1 - p)) for p in percents)
    return Run(sigmas=tuple(sigmas), percent_to_sigma=percent_to_sigma)


FULL, IMG2IMG = run_between(0, 1), run_between(0.6, 1)


def strengths(text: str, run: Run, interpolation: Interpolation = "linear") -> list[float]:
    """The strength at each sigma of the run."""
    knots = resolve(parse(text, interpolation), run)
    return [strength_at(knots, step_of(sigma, run.sigmas), interpolation) for sigma in run.sigmas]


def test_the_three_units():
    keyframes = parse("1.0@0, 0.5@30%, 0@step 12").keyframes
    assert [(k.strength, k.at, k.unit) for k in keyframes] == [(1, 0, "schedule"), (0.5, 0.3, "run"), (0, 12, "step")]
    assert [str(k) for k in keyframes] == ["1@0", "0.5@30%", "0@step 12"]


@pytest.mark.parametrize("text", ["-.5@.25,2@STEP 3", " -0.5 @ 0.25 ,\n2.0@ step3 ", "-5e-1@+2.5E-1,2@step  3"])
def test_white_space_and_ways_of_writing_numbers_make_no_difference(text):
    assert parse(text) == parse("-0.5@0.25, 2@step 3")


def test_a_single_number_is_constant():
    assert strengths(" 0.8 ", FULL) == strengths("0.8@0", IMG2IMG) == [0.8] * 11


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("", 1, "found nothing"),
        ("  ", 3, "found nothing"),
        ("strong", 1, 'a strength, a number from -10 to 10, but found "strong"'),
        ("nan", 1, 'found "nan"'),
        ("1@0, inf@1", 6, 'found "inf"'),
        ("1e999", 1, "a strength goes from -10 to 10"),
        ("1@0, 11@0.5", 6, "a strength goes from -10 to 10"),
        ("1@0, 0.5", 6, 'expected STRENGTH@PLACE, with an "@", but found "0.5"'),
        ("1@0,, 0@1", 5, "found nothing"),
        ("1@0, ", 5, "found nothing"),
        ("1@0, @0.5", 6, "expected a strength"),
        ("1@0, 0.5@", 10, "expected a fraction of the noise schedule"),
        ("1@30", 3, 'a fraction of the noise schedule (of this run: "30%") goes from 0 to 1, but found "30"'),
        ("1@-0.1", 3, "from 0 to 1"),
        ("1@0,  0@130 %", 9, 'a percentage of this run goes from 0 to 100, but found "130"'),
        ("1@x%", 3, 'found "x"'),
        ("1@ step 10001", 9, "a step of this run goes from 0 to 10000"),
        ("1@step", 7, "found nothing"),
        ("1@0@1", 3, 'found "0@1"'),
        ("1@0; 0@1", 3, 'found "0; 0@1"'),
        ("1@0, 0@step ½", 13, 'found "½"'),
        ("1@" + "9" * 5000, 3, "9999..."),
    ],
)
def test_what_cannot_be_read_is_named_with_its_column(text, column, message):
    with pytest.raises(ScheduleError) as caught:
        parse(text)
    assert caught.value.column == column
    assert str(caught.value).startswith(f"Column {column}: ")
    assert message in str(caught.value)
    assert str(caught.value).endswith('Write for example "1.0@0, 0.5@30%, 0@step 12".')
    assert len(str(caught.value)) < 300


@given(
    st.text() | st.text("0123456789.,@%step +-e\t") | st.from_regex(r"(-?\d{1,2}(\.\d)?@(\d\.\d|\d\d%|step \d),? ?)+")
)
def test_any_text_is_read_or_refused_with_a_column(text):
    try:
        schedule = parse(text)
    except ScheduleError as error:
        assert 1 <= error.column <= len(text) + 1
    else:
        assert len(schedule.keyframes) == text.count(",") + 1


@given(
    st.lists(
        st.tuples(
            st.integers(-1000, 1000).map(lambda n: n / 100),
            st.one_of(
                st.tuples(st.integers(0, 1000).map(lambda n: n / 1000), st.just("schedule")),
                st.tuples(st.integers(0, 1000).map(lambda n: n / 10 / 100), st.just("run")),
                st.tuples(st.integers(0, 10000).map(float), st.just("step")),
            ),
        ),
        min_size=1,
    )
)
def test_what_a_schedule_writes_it_reads(entries):
    keyframes = tuple(Keyframe(at=at, unit=unit, strength=strength) for strength, (at, unit) in entries)
    assert parse(", ".join(map(str, keyframes))).keyframes == keyframes


@pytest.mark.parametrize(
    ("at", "unit", "strength"),
    [(1.1, "run", 1), (-1, "step", 1), (float("nan"), "schedule", 1), (0, "run", float("nan")), (0, "run", 11)],
)
def test_keyframes_check_themselves(at, unit, strength):
    with pytest.raises(ControlNetKitError, match="A keyframe"):
        Keyframe(at=at, unit=unit, strength=strength)


def test_schedules_check_themselves():
    with pytest.raises(ControlNetKitError, match="without keyframes"):
        Schedule(keyframes=())
    with pytest.raises(ControlNetKitError, match="hold, linear or cosine"):
        parse("1", "cubic")  # pyright: ignore[reportArgumentType]


def test_a_sigma_has_a_place_in_the_run():
    sigmas = (16.0, 4.0, 1.0, 0.0)
    assert [step_of(sigma, sigmas) for sigma in sigmas] == [0, 1, 2, 3]
    assert step_of(8.0, sigmas) == pytest.approx(0.5)  # linear in log sigma
    assert step_of(0.25, sigmas) == pytest.approx(2.75)  # linear down to 0
    assert step_of(99.0, sigmas) == 0 and step_of(0.5, sigmas[:3]) == 2
    assert step_of(4.0 * (1 + 3e-7), sigmas) == step_of(4.0 * (1 - 3e-7), sigmas) == 1
    assert step_of(8.0, sigmas[::-1]) == pytest.approx(2.5)


def test_a_run_has_a_step():
    with pytest.raises(ControlNetKitError, match="1 sigmas"):
        Run(sigmas=(1.0,), percent_to_sigma=percent_to_sigma)


@pytest.mark.parametrize("percent", [0.0, 0.1, 0.5, 0.999, 1.0])
def test_percent_of_inverts_the_noise_schedule(percent):
    sigma = 20.0 if percent == 0 else percent_to_sigma(percent)
    assert percent_of(sigma, FULL) == pytest.approx(percent, abs=1e-9)


def test_knots_of_the_three_units():
    knots = resolve(parse("1.0@0, 0.8@0.2, 0.5@30%, 0@step 12"), run_between(0, 1, steps=20))
    assert [(pytest.approx(step, abs=1e-4), strength) for step, strength in knots] == [
        (0, 1),
        (4, 0.8),
        (6, 0.5),
        (12, 0),
    ]


@pytest.mark.parametrize(
    ("interpolation", "at_a_quarter"), [("hold", 1.0), ("linear", 0.75), ("cosine", 1 - (1 - cos(pi / 4)) / 2)]
)
def test_interpolation(interpolation, at_a_quarter):
    knots = resolve(parse("1@20%, 0@60%", interpolation), FULL)
    found = [strength_at(knots, step, interpolation) for step in (0, 2, 3, 6, 7)]
    assert found == [1, 1, pytest.approx(at_a_quarter), 0, 0]


def test_percentages_hit_their_step():
    run = run_between(0, 1, steps=100)
    for step in range(1, 100):
        knots = resolve(parse(f"1@0%, 0@{step}%", "hold"), run)
        assert [strength_at(knots, place, "hold") for place in (step - 1, step)] == [1, 0]


def test_the_later_of_two_at_the_same_place_wins():
    assert resolve(parse("1@0%, 0.7@50%, 0.2@step 5"), FULL) == ((0, 1), (5, 0.2))
    assert strengths("1@0, 0.5@0.3, 0@100%", IMG2IMG)[0] == 0.5


def test_falling_order_names_both_keyframes_and_their_steps():
    with pytest.raises(ControlNetKitError, match=r"0\.5@30% comes to step 6 .* 0@step 4 after it to step 4\."):
        resolve(parse("1@0, 0.5@30%, 0@step 4"), run_between(0, 1, steps=20))
    with pytest.raises(ControlNetKitError, match=r"1@0\.5 .* 0@0\.2"):
        resolve(parse("1@0.5, 0@0.2"), IMG2IMG)  # both lie before the run


def test_beside_other_units_places_before_the_run_are_its_beginning():
    assert strengths("1@0, 0@100%", IMG2IMG) == pytest.approx([1 - step / 10 for step in range(11)])


@pytest.mark.parametrize("interpolation", ["hold", "linear", "cosine"])
@pytest.mark.parametrize("text", ["1@0, 0@1", "1@0, 0.5@0.3, 0@0.9", "0@0.2, 1@0.4, 0.3@0.55", "1@0, 0.5@0.6, 0@1"])
def test_split_runs_join_into_the_whole(text, interpolation):
    whole = strengths(text, run_between(0, 1, steps=20), interpolation)
    parts = [strengths(text, run_between(*ends), interpolation) for ends in ((0, 0.5), (0.5, 1))]
    joined = [*parts[0][:-1], *parts[1]]
    assert parts[0][-1] == pytest.approx(parts[1][0], abs=1e-6)
    if interpolation == "hold":
        assert joined == whole
    if interpolation == "linear":
        assert joined == pytest.approx(whole, abs=1e-4)


def test_denoise_below_one_takes_up_the_noise_schedule_where_it_begins():
    found = strengths("1@0, 0@1", IMG2IMG)
    assert found[0] == pytest.approx(0.4, abs=1e-6) and found[-1] == 0
    assert all(early > late for early, late in pairwise(found))


def test_runs_that_add_noise_take_places_of_the_run_only():
    run = Run(sigmas=FULL.sigmas[::-1], percent_to_sigma=percent_to_sigma)
    assert strengths("1@0%, 0@100%", run) == pytest.approx([1 - step / 10 for step in range(11)])
    assert strengths("0.8", run) == [0.8] * 11
    with pytest.raises(ControlNetKitError, match="adds noise"):
        resolve(parse("1@0, 0@1"), run)
