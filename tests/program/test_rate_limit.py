"""Many calls go as fast as a provider bears: none fails, few are refused, and the pace is found again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import dspy
import pytest
from dspy.lm15 import (
    Message,
    RateLimitError,
    Request,
    Response,
    ResponseStream,
    ServerError,
    TextPart,
    Usage,
    response_to_events,
)

from program import rate_limit
from program.agent import CiteqaAgent
from program.assembly import build_program
from program.call_notes import noting_calls
from program.language_models import build_lm
from program.rate_limit import LimitedEngine, RateLimiter, StillBusyError, limiter_for
from program.settings import LanguageModelSettings, Settings
from program.streaming import TeeEngine, listening
from program.types import Turn
from retrieval.errors import LanguageModelError
from retrieval.local_index import LocalIndex

REQUEST = Request(model="openai/test", messages=(Message.user("Hi"),))
RESPONSE = Response(
    id="r",
    model="test",
    message=Message.assistant([TextPart("Hello.")]),
    finish_reason="stop",
    usage=Usage(1, 1),
)


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def limiter(self, requests_per_minute: float | None = None) -> RateLimiter:
        return RateLimiter(requests_per_minute, clock=self, sleep=self.sleep)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def refused(retry_after: float | None = None) -> RateLimitError:
    return RateLimitError("slow down", status=429, retry_after=retry_after)


def saying(*said: Any) -> Callable[[], str]:
    """What each attempt returns or raises, in order; the last one stays."""
    script = list(said)

    def attempt() -> str:
        next_said = script.pop(0) if len(script) > 1 else script[0]
        if isinstance(next_said, Exception):
            raise next_said
        return str(next_said)

    return attempt


class Provider:
    """Bears so many calls in any time of `every_s`, by the clock, and says when there is room again."""

    def __init__(self, clock: Clock, calls: int, every_s: float, *, tells: bool = True) -> None:
        self._clock, self._calls, self._every_s, self._tells = clock, calls, every_s, tells
        self._accepted: deque[float] = deque()
        self.accepted = self.refused = 0

    def __call__(self) -> None:
        now = self._clock()
        while self._accepted and self._accepted[0] <= now - self._every_s:
            self._accepted.popleft()
        if len(self._accepted) >= self._calls:
            self.refused += 1
            raise refused(self._accepted[0] + self._every_s - now if self._tells else None)
        self._accepted.append(now)
        self.accepted += 1


def test_nothing_waits_where_nothing_is_refused(clock: Clock) -> None:
    limiter = clock.limiter()
    assert [limiter.call(saying("a"), patience_s=9) for _ in range(50)] == ["a"] * 50
    assert (clock.slept, limiter.rate) == ([], None)


@pytest.mark.parametrize("per_minute", [30, 90, 600])
def test_a_ceiling_is_never_exceeded_in_any_minute(clock: Clock, per_minute: int) -> None:
    limiter, begun = clock.limiter(per_minute), []
    for _ in range(3 * per_minute):
        limiter.call(lambda: begun.append(clock.now), patience_s=9)
    assert begun[-1] - begun[0] == pytest.approx(60 * (3 * per_minute - 1) / per_minute)
    busiest = max(sum(t <= other < t + 60 - 1e-6 for other in begun) for t in begun)
    assert busiest <= per_minute


def test_the_time_that_the_provider_asks_for_is_waited(clock: Clock) -> None:
    assert clock.limiter().call(saying(refused(7.5), "done"), patience_s=60) == "done"
    assert clock.slept == [7.5]


def test_where_the_provider_names_no_time_pauses_double_up_to_a_minute(clock: Clock) -> None:
    script = [*(refused() for _ in range(8)), "done"]
    assert clock.limiter().call(saying(*script), patience_s=1000) == "done"
    assert clock.slept == [1, 2, 4, 8, 16, 32, 60, 60]


def test_an_answer_makes_the_next_pause_short_again(clock: Clock) -> None:
    limiter = clock.limiter()
    limiter.call(saying(refused(), refused(), "done"), patience_s=60)
    clock.now += 100
    clock.slept.clear()
    limiter.call(saying(refused(), "done"), patience_s=60)
    assert clock.slept[0] == 1


@pytest.mark.parametrize("status", [503, 529])
def test_an_overloaded_provider_that_says_when_to_come_again_is_heeded(clock: Clock, status: int) -> None:
    overloaded = ServerError("overloaded", status=status, retry_after=3)
    assert clock.limiter().call(saying(overloaded, "done"), patience_s=60) == "done"
    assert clock.slept == [3]


@pytest.mark.parametrize(
    "error",
    [ServerError("down", status=503), ServerError("broken", status=500, retry_after=3), ValueError("no")],
    ids=["503 without a time", "500", "other"],
)
def test_what_is_no_matter_of_pace_is_raised_at_once(clock: Clock, error: Exception) -> None:
    with pytest.raises(type(error)):
        clock.limiter().call(saying(error, "done"), patience_s=60)
    assert clock.slept == []


def test_a_refusal_halves_the_pace_at_which_answers_came(clock: Clock) -> None:
    limiter = clock.limiter()
    for _ in range(40):
        limiter.call(saying("a"), patience_s=60)
        clock.now += 0.1
    limiter.call(saying(refused(0), "done"), patience_s=60)
    assert limiter.rate == pytest.approx(10 / 2, rel=0.05)


def test_refusals_of_calls_that_were_under_way_halve_the_pace_once(clock: Clock) -> None:
    limiter = clock.limiter()
    for _ in range(40):
        limiter.call(saying("a"), patience_s=60)
        clock.now += 0.1
    began = clock.now
    for _ in range(8):
        limiter._pause(began, refused(2))
    assert limiter.rate == pytest.approx(10 / 2, rel=0.05)


def test_the_pace_rises_steadily_with_answers_and_is_back_in_half_a_minute(clock: Clock) -> None:
    limiter = clock.limiter()
    for _ in range(40):
        limiter.call(saying("a"), patience_s=60)
        clock.now += 0.1
    limiter.call(saying(refused(0), "done"), patience_s=60)
    began, rates = clock.now, [limiter.rate or 0]
    while clock.now < began + 30:
        limiter.call(saying("a"), patience_s=60)
        rates.append(limiter.rate or 0)
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(2 * rates[0], rel=0.05)


def test_the_pace_never_rises_above_the_ceiling(clock: Clock) -> None:
    limiter = clock.limiter(60)
    limiter.call(saying("a"), patience_s=60)
    limiter.call(saying(refused(1), "done"), patience_s=60)
    assert limiter.rate == pytest.approx(0.5, abs=0.1)
    for _ in range(500):
        limiter.call(saying("a"), patience_s=60)
    assert limiter.rate == 1


@pytest.mark.parametrize(("calls", "every_s"), [(5, 1.0), (60, 60.0), (3, 60.0), (500, 60.0)])
@pytest.mark.parametrize("tells", [True, False], ids=["with Retry-After", "without"])
def test_the_pace_settles_near_what_a_provider_bears(
    clock: Clock, calls: int, every_s: float, tells: bool
) -> None:
    limiter, provider = clock.limiter(), Provider(clock, calls, every_s, tells=tells)
    began, minutes = clock.now, 30
    while clock.now < began + 60 * minutes:
        limiter.call(provider, patience_s=1e9)
    assert provider.accepted > 0.6 * calls * 60 * minutes / every_s
    assert provider.refused < 0.05 * provider.accepted + 3 * minutes


def test_a_provider_that_stays_busy_is_given_up_after_the_patience(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(StillBusyError, match="slow down"):
        clock.limiter().call(saying(refused(10)), patience_s=35)
    assert clock.now - began == 30


def test_a_provider_that_asks_for_longer_than_the_patience_is_not_waited_for(clock: Clock) -> None:
    limiter = clock.limiter()
    with pytest.raises(StillBusyError):
        limiter.call(saying(refused(3600)), patience_s=300)
    # Nor by the others, who would learn the same.
    with pytest.raises(StillBusyError):
        limiter.call(saying("never asked"), patience_s=300)
    assert clock.slept == []
    clock.now += 3600
    assert limiter.call(saying("again"), patience_s=300) == "again"


def test_no_patience_is_one_attempt(clock: Clock) -> None:
    with pytest.raises(StillBusyError):
        clock.limiter().call(saying(refused(1), "never asked"), patience_s=0)


def test_patience_is_for_a_busy_provider_and_not_for_a_ceiling(clock: Clock) -> None:
    limiter = clock.limiter(1)
    assert [limiter.call(saying("a"), patience_s=5) for _ in range(3)] == ["a"] * 3
    assert clock.slept == [60, 60]


def test_what_is_waited_is_noted(clock: Clock) -> None:
    with noting_calls() as noted:
        clock.limiter().call(saying(refused(2), "done"), patience_s=60)
    assert noted.waited_ms == pytest.approx(2000)
    assert noted.would_take_ms(2100) == pytest.approx(100)


class Refusing:
    """An engine that refuses so many times first."""

    def __init__(self, times: int) -> None:
        self._left = times

    def complete(self, request: Request) -> Response:
        if self._left:
            self._left -= 1
            raise refused(1)
        return RESPONSE

    def stream(self, request: Request) -> Iterator[Any]:
        yield from response_to_events(self.complete(request))


def test_a_stream_is_begun_again_when_it_is_refused(clock: Clock) -> None:
    engine = LimitedEngine(Refusing(2), clock.limiter(), patience_s=60)
    heard: list[str] = []
    with listening(heard.append):
        assert TeeEngine(engine).complete(REQUEST).text == "Hello."
    assert (heard, clock.slept[:2]) == (["Hello."], [1, 1])


def test_a_stream_that_breaks_off_is_not_begun_again(clock: Clock) -> None:
    class Breaking(Refusing):
        def stream(self, request: Request) -> Iterator[Any]:
            yield next(response_to_events(RESPONSE))
            raise refused(1)

    engine = LimitedEngine(Breaking(0), clock.limiter(), patience_s=60)
    with pytest.raises(RateLimitError), ResponseStream(engine.stream(REQUEST), REQUEST) as stream:
        list(stream)
    assert clock.slept == []


def test_a_model_at_an_address_has_one_limiter_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "_limiters", {})
    settings = LanguageModelSettings(model="openai/test")
    assert limiter_for(settings) is limiter_for(settings.model_copy(update={"temperature": 1.0}))
    assert limiter_for(settings) is not limiter_for(settings.model_copy(update={"api_base": "http://a"}))
    assert limiter_for(settings) is not limiter_for(settings.model_copy(update={"model": "openai/other"}))


def limited(server: Any, **settings: Any) -> dspy.LM:
    values = {"model": "openai/test", "api_base": server.url, "num_retries": 0, "cache": False, **settings}
    made = LanguageModelSettings(**values)
    return build_lm(made, limiter=RateLimiter(made.requests_per_minute))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_threads_against_a_server_that_refuses_get_every_answer(language_model: Any, streamed: bool) -> None:
    language_model.computes(lambda body: f"You said {body['messages'][-1]['content']}.")
    language_model.bears(20, every_s=1)
    lm = limited(language_model)

    def ask(number: int) -> str:
        if not streamed:
            return str(lm(str(number))[0])
        heard: list[str] = []
        with listening(heard.append):
            lm(str(number))
        return "".join(heard)

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(ask, range(40)))
    took_s = time.monotonic() - began
    assert said == [f"You said {number}." for number in range(40)]
    assert len(language_model.requests) == 40
    # Each thread may be refused when the first window is full, and once more if it was the rest of one.
    assert 1 <= language_model.refused <= 16
    assert took_s > 0.5


def test_a_refusal_counts_against_no_retry(language_model: Any) -> None:
    for _ in range(3):
        language_model.says("slow down", status=429, headers={"Retry-After": "0"})
    language_model.says("Hello.")
    assert limited(language_model, num_retries=0)("Hi") == ["Hello."]


def test_a_provider_that_stays_busy_is_an_error_of_its_kind_and_not_tried_again(
    language_model: Any, make_settings: Callable[..., Settings], index: LocalIndex
) -> None:
    language_model.says("You have no quota.", status=429, headers={"Retry-After": "3600"})
    section = {**make_settings(language_model).language_model.model_dump(), "num_retries": 3}
    program = build_program(make_settings(language_model=section), index, limit_rate=True)
    with pytest.raises(LanguageModelError) as caught:
        program.respond(Turn("When does water boil?"))
    assert caught.value.kind == "rate_limit"
    assert "asks to wait 3600 s; language_model.rate_limit_wait_s is 300" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(language_model.requests) == 1


def test_who_waits_for_one_answer_is_told_of_a_refusal_at_once(
    language_model: Any, make_settings: Callable[..., Settings]
) -> None:
    language_model.says("slow down", status=429, headers={"Retry-After": "0"})
    agent = CiteqaAgent(make_settings(language_model))
    with pytest.raises(LanguageModelError):
        agent._answerers["default"](Turn("When does water boil?"))
    assert len(language_model.requests) == 2
