import threading
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest

from retrieval.errors import ConfigurationError, ServiceUnavailableError
from retrieval.resilience import Limits, PassingError, Resilience, retry_after_s


class Time:
    """A clock that only sleeping and attempts move."""

    def __init__(self) -> None:
        self.now = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


@pytest.fixture
def time() -> Time:
    return Time()


def resilience(time: Time, draw=lambda low, high: high, **limits) -> Resilience:
    return Resilience(
        "Index 'main.docs.pages'",
        Limits(**limits),
        settings="retrieval.vector_search.resilience",
        clock=time,
        sleep=time.sleep,
        draw=draw,
    )


def failing(*failures: BaseException | None, takes_s: float = 0.0, time: Time | None = None):
    """An attempt that fails with these in turn; None, and what comes after the last, succeeds."""
    left = list(failures)
    offered: list[float] = []

    def attempt(timeout_s: float) -> str:
        offered.append(timeout_s)
        if time is not None:
            time.now += min(takes_s, timeout_s)
        if left and (failure := left.pop(0)) is not None:
            raise failure
        return "found"

    attempt.offered = offered  # type: ignore[attr-defined]
    return attempt


def always(failure: Exception):
    def attempt(timeout_s: float) -> str:
        raise failure

    return attempt


def test_a_call_that_succeeds_is_made_once_and_knows_its_time(time: Time) -> None:
    attempt = failing()
    assert resilience(time).call(attempt) == "found"
    assert attempt.offered == [5.0]
    assert time.waits == []


def test_a_passing_failure_is_tried_again_after_ever_longer_waits(time: Time) -> None:
    attempt = failing(*[PassingError("HTTP 503")] * 3)
    assert resilience(time).call(attempt) == "found"
    assert time.waits == [0.2, 0.4, 0.8]


def test_waits_are_drawn_from_nothing_to_the_longest_so_that_callers_come_apart(time: Time) -> None:
    drawn: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        drawn.append((low, high))
        return high / 2

    resilience(time, draw).call(failing(*[PassingError("HTTP 503")] * 2))
    assert drawn == [(0.0, 0.2), (0.0, 0.4)]
    assert time.waits == [0.1, 0.2]


def test_what_the_service_asks_to_wait_is_waited_and_a_little_more(time: Time) -> None:
    resilience(time).call(failing(PassingError("HTTP 429", retry_after_s=2.0, busy=True)))
    assert time.waits == [2.2]


def test_a_wait_that_would_outlast_the_deadline_is_not_begun(time: Time) -> None:
    failure = PassingError("HTTP 429", retry_after_s=60.0, busy=True)
    with pytest.raises(ServiceUnavailableError) as caught:
        resilience(time).call(always(failure))
    assert time.waits == []
    assert str(caught.value) == (
        "Index 'main.docs.pages' is busy: HTTP 429, and asks to wait 60 s (one attempt in 0.0 s). Ask again later; "
        "timeout_s and num_retries of retrieval.vector_search.resilience say how long to try."
    )


def test_the_last_attempt_has_no_more_time_than_the_deadline_leaves(time: Time) -> None:
    attempt = failing(*[PassingError("no answer in time")] * 9, takes_s=99, time=time)
    with pytest.raises(
        ServiceUnavailableError, match=r"cannot be used now: no answer in time \(2 attempts in"
    ):
        resilience(time, timeout_s=8, attempt_timeout_s=5).call(attempt)
    assert attempt.offered == [5.0, pytest.approx(2.8)]
    assert time.now == pytest.approx(108.0)


def test_retries_end_after_their_number(time: Time) -> None:
    attempt = failing(*[PassingError("HTTP 500")] * 9)
    with pytest.raises(ServiceUnavailableError, match="3 attempts"):
        resilience(time, num_retries=2).call(attempt)
    assert len(attempt.offered) == 3


def test_another_error_is_raised_at_once_as_it_is(time: Time) -> None:
    attempt = failing(ConfigurationError("no such column"))
    with pytest.raises(ConfigurationError, match="no such column"):
        resilience(time).call(attempt)
    assert len(attempt.offered) == 1


def test_a_service_that_keeps_failing_is_left_alone_and_then_tried_by_one(time: Time) -> None:
    service = resilience(time, num_retries=0, open_after=3, open_s=10)
    for _ in range(3):
        with pytest.raises(ServiceUnavailableError, match="HTTP 500"):
            service.call(always(PassingError("HTTP 500")))
    untouched = failing()
    with pytest.raises(ServiceUnavailableError, match=r"failed 3 times in a row .* another 10\.0 s"):
        service.call(untouched)
    assert untouched.offered == []

    time.now += 10
    with pytest.raises(ServiceUnavailableError, match="HTTP 502"):
        service.call(always(PassingError("HTTP 502")))
    with pytest.raises(ServiceUnavailableError, match="left alone"):  # the one that tried failed: once more
        service.call(untouched)

    time.now += 10
    assert service.call(failing()) == "found"
    assert service.call(failing()) == "found"


def test_while_one_tries_an_open_circuit_no_other_does(time: Time) -> None:
    service = resilience(time, num_retries=0, open_after=1, open_s=1)
    with pytest.raises(ServiceUnavailableError):
        service.call(always(PassingError("HTTP 500")))
    time.now += 1
    begun, end = threading.Event(), threading.Event()

    def slow(timeout_s: float) -> str:
        begun.set()
        assert end.wait(5)
        return "found"

    tries = threading.Thread(target=service.call, args=(slow,))
    tries.start()
    assert begun.wait(5)
    with pytest.raises(ServiceUnavailableError, match="left alone"):
        service.call(failing())
    end.set()
    tries.join()
    assert service.call(failing()) == "found"


def test_a_service_that_is_busy_or_refuses_is_not_left_alone(time: Time) -> None:
    service = resilience(time, num_retries=0, open_after=1)
    for failure in (PassingError("HTTP 429", busy=True), ConfigurationError("forbidden")):
        for _ in range(3):
            with pytest.raises((ServiceUnavailableError, ConfigurationError), match=r"429|forbidden"):
                service.call(always(failure))
    assert service.call(failing()) == "found"


def test_a_call_that_is_broken_off_says_nothing_of_the_service(time: Time) -> None:
    service = resilience(time, num_retries=0, open_after=1, open_s=1)
    with pytest.raises(ServiceUnavailableError):
        service.call(always(PassingError("HTTP 500")))
    time.now += 1
    with pytest.raises(KeyboardInterrupt):
        service.call(failing(KeyboardInterrupt()))
    assert service.call(failing()) == "found"  # another may try in its place


def test_a_reason_shows_no_secret_and_stays_a_line(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-canary-000111")
    with pytest.raises(ServiceUnavailableError) as caught:
        resilience(time, num_retries=0).call(
            always(PassingError("bad\nBearer dapi-canary-000111 " + "x" * 999))
        )
    assert "canary" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("3", 3.0), ("0.25", 0.25), ("-1", 0.0), ("nan", None), ("soon", None), ("", None), (None, None)],
)
def test_retry_after_holds_seconds(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_retry_after_may_hold_a_date() -> None:
    in_a_minute = datetime.now(timezone.utc) + timedelta(seconds=60)
    assert retry_after_s(format_datetime(in_a_minute, usegmt=True)) == pytest.approx(60, abs=2)
    assert retry_after_s("Sun, 06 Nov 1994 08:49:37 GMT") == 0.0
