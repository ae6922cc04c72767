"""Loops that close and open by themselves: the decision over histories, and a beam that carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from baldr_tango.beam.automation import CLOSE, OPEN, Memory, Reading, Rules, Smoother, decide
from baldr_tango.configuration.settings import AutomationSettings, LimitSettings
from baldr_tango.errors import RequestError
from baldr_tango.names import LoopState
from tests.beam_bench import BeamBench
from tests.harness import wait_for

RULES = Rules(
    auto_close=True,
    auto_open=True,
    close_on_strehl=0.5,
    open_on_strehl=0.2,
    close_on_snr=5.0,
    open_on_snr=2.0,
    open_on_dm=0.3,
    dwell_close_s=2.0,
    dwell_open_s=0.5,
)
GOOD = Reading(is_closed=False, strehl=0.8, snr=10.0, stroke=0.1)


def play(
    rules: Rules, history: Callable[[float], Reading | None], seconds: float, step: float = 0.1
) -> list[tuple[float, str]]:
    """Follow a history of readings, whose loops do what is decided; return times and actions."""
    memory, closed, actions = Memory(), False, []
    for k in range(round(seconds / step) + 1):
        now = 1000.0 + k * step
        reading = history(k * step)
        decision = decide(rules, memory, None if reading is None else replace(reading, is_closed=closed), now)
        memory = decision.memory
        if decision.action:
            closed = decision.action == CLOSE
            actions.append((pytest.approx(k * step), decision.action))
    return [(float(when.expected), what) for when, what in actions]  # type: ignore[attr-defined]


def test_the_dwell_time_is_exact() -> None:
    assert play(RULES, lambda t: GOOD, 1.9) == []
    assert play(RULES, lambda t: GOOD, 2.0) == [(2.0, CLOSE)]
    bad = replace(GOOD, strehl=0.1)
    # Good until 5 s: closed at 2 s, then bad: opened half a second after the first bad reading.
    assert play(RULES, lambda t: GOOD if t < 4.95 else bad, 8.0) == [(2.0, CLOSE), (pytest.approx(5.5), OPEN)]


def test_one_bad_reading_begins_the_dwell_time_anew() -> None:
    def history(t: float) -> Reading:
        return replace(GOOD, snr=4.0) if abs(t - 1.5) < 0.01 else GOOD

    assert play(RULES, history, 4.0) == [(pytest.approx(3.6), CLOSE)]


def test_readings_that_fail_begin_the_dwell_time_anew() -> None:
    assert play(RULES, lambda t: None if abs(t - 1.5) < 0.01 else GOOD, 4.0) == [(pytest.approx(3.6), CLOSE)]


def test_no_chatter_between_the_thresholds() -> None:
    rng = np.random.default_rng(5)
    for centre in (0.5, 0.35, 0.2):

        def noisy(t: float, centre: float = centre) -> Reading:
            return replace(GOOD, strehl=centre + rng.normal(0.0, 0.03))

        # Around one threshold noise is far from the other one: at the most one action in ten minutes.
        assert len(play(RULES, noisy, 600.0)) <= 1


@pytest.mark.parametrize(
    ("bad", "word"),
    [
        ({"strehl": 0.19}, "Strehl 0.190 below 0.2"),
        ({"snr": 1.9}, "SNR 1.90 below 2"),
        ({"stroke": 0.31}, "DM stroke 0.310 above 0.3"),
    ],
)
def test_each_reason_opens_and_is_told(bad: dict[str, float], word: str) -> None:
    reading = replace(GOOD, is_closed=True, **bad)
    waiting = decide(RULES, Memory(None, True), reading, 0.0)
    assert waiting.action == ""
    acting = decide(RULES, waiting.memory, reading, 0.5)
    assert acting.action == OPEN
    assert acting.reason == f"{word}{' DM units' if 'stroke' in bad else ''} for 0.5 s"
    assert decide(replace(RULES, auto_open=False), waiting.memory, reading, 99.0).action == ""


@pytest.mark.parametrize("bad", [{"strehl": 0.5}, {"snr": 5.0}])
def test_closing_needs_both_strehl_and_snr(bad: dict[str, float]) -> None:
    assert play(RULES, lambda t: replace(GOOD, **bad), 60.0) == []


def test_without_a_stroke_limit_the_stroke_does_not_open() -> None:
    rules = replace(RULES, open_on_dm=0.0)
    assert play(rules, lambda t: replace(GOOD, stroke=0.39), 60.0) == [(2.0, CLOSE)]


def test_smoothing_has_its_time_constant_and_begins_anew_with_the_loops() -> None:
    smoother = Smoother()
    smoother.add(replace(GOOD, strehl=0.0), 0.0, 1.0)
    for k in range(1, 11):
        smoothed = smoother.add(replace(GOOD, strehl=1.0), 0.1 * k, 1.0)
    assert smoothed is not None
    assert smoothed.strehl == pytest.approx(1.0 - np.exp(-1.0))
    closed = smoother.add(Reading(True, 0.3, 1.0, 0.0), 1.1, 1.0)
    assert closed == Reading(True, 0.3, 1.0, 0.0)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[BeamBench]:
    settings = AutomationSettings(dwell_close_s=0.3, dwell_open_s=0.3, smooth_s=0.0)
    with BeamBench(tmp_path, automation=settings, limits=LimitSettings(runaway=0)) as bench:
        yield bench


def feed_until(bench: BeamBench, condition: Callable[[], object]) -> None:
    """Post frames until something comes true."""

    def fed() -> object:
        bench.step()
        return condition()

    wait_for(fed, what="what the automation should do")


def test_off_by_default_with_the_thresholds_of_the_file(bench: BeamBench) -> None:
    status = bench.beam.status()
    keys = ("auto_loop", "close_on_strehl", "open_on_strehl", "close_on_snr", "open_on_snr")
    assert {key: status[key] for key in keys} == {
        "auto_loop": 0,
        "close_on_strehl": 10.0,
        "open_on_strehl": 0.0,
        "close_on_snr": 2.0,
        "open_on_snr": 0.0,
    }
    assert bench.beam.read(["automation", "open_on_dm"]) == {"automation": "off", "open_on_dm": 0.3}


def test_rules_are_set_whole_or_not_at_all(bench: BeamBench) -> None:
    reply = bench.ask("set_automation", {"auto_open": True, "close_on_strehl": 0.4, "open_on_strehl": 0.1})
    assert (reply["auto_open"], reply["close_on_strehl"], reply["state"]) == (True, 0.4, "opens")
    assert bench.beam.status()["close_on_strehl"] == 0.4
    assert bench.ask("get_rtc_field", "limits.close_on_strehl_limit")["value"] == pytest.approx(0.4)
    for wrong, text in (
        ({"open_on_strehl": 0.5}, "chatter"),
        ({"open_on_strehll": 0.5}, "no rule"),
        ({"dwell_open_s": -1}, "dwell_open_s"),
        ({"auto_close": 1}, "true or false"),
        ({"loops": "all"}, "loops"),
        (5, "object"),
    ):
        with pytest.raises(RequestError, match=text):
            bench.ask("set_automation", wrong)
    assert bench.ask("set_automation", "")["open_on_strehl"] == 0.1


def test_a_beam_closes_and_opens_by_itself_and_leaves_an_operator_alone(
    bench: BeamBench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.loop.slots.change(limits={0: 1e6, 1: 1e6, 2: 1e6})  # random frames would trip any limit
    bench.beam.judgement.check_closing = lambda *_: None  # type: ignore[method-assign]
    bench.ask("set_automation", {"auto_close": True, "auto_open": True, "loops": "lo", "open_on_dm": 0.0,
                                 "close_on_strehl": 0.0, "open_on_strehl": 0.0, "close_on_snr": 0.0,
                                 "open_on_snr": 0.0})  # fmt: skip
    caplog.set_level("INFO", "baldr.beam1")
    feed_until(bench, lambda: bench.beam.state().lo == LoopState.CLOSED)
    assert bench.beam.state().ho == LoopState.OPEN
    wait_for(lambda: "closed: Strehl" in bench.beam.automation.last_action)
    bench.ask("set_automation", {"close_on_snr": 1e8, "open_on_snr": 1e8})
    feed_until(bench, lambda: bench.beam.state().lo == LoopState.OPEN)
    wait_for(lambda: "opened: SNR" in bench.beam.automation.last_action)
    assert not bench.beam.automation.is_suspended
    bench.ask("set_automation", {"open_on_snr": 0.0, "close_on_snr": 0.0})
    feed_until(bench, lambda: bench.beam.state().lo == LoopState.CLOSED)
    bench.ask("open_all")
    feed_until(bench, lambda: bench.beam.automation.is_suspended)
    assert "suspended" in bench.beam.read(["automation"])["automation"]

    def told() -> list[str]:
        texts = [record.getMessage() for record in caplog.records]
        return [text.split()[2] for text in texts if "automation: loops" in text]

    wait_for(lambda: len(told()) >= 4, what="the word about the operator")
    assert told() == ["closed", "opened", "closed", "were"]
    bench.ask("set_automation", {"auto_open": True})
    feed_until(bench, lambda: bench.beam.state().lo == LoopState.CLOSED)
