"""What a server counts, for Prometheus."""

from collections.abc import Callable

from longshort_reward.protocol import ROLES
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from verl_longshort.serve.events import Answered

_SECONDS = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500)


class Metrics:
    """The counters of one server, in a registry of their own."""

    def __init__(self, running: Callable[[], float], waiting: Callable[[], float]) -> None:
        self.registry = registry = CollectorRegistry()
        self._requests = Counter("longshort_requests", "Chat requests by status.", ["status"], registry=registry)
        self._answers = Counter("longshort_answers", "Answers by stop reason.", ["stop_reason"], registry=registry)
        self._generated = Counter("longshort_generated_tokens", "Generated tokens.", ["role"], registry=registry)
        self._prompts = Counter("longshort_prompt_tokens", "Tokens of prompts.", ["role"], registry=registry)
        self._turns = Counter("longshort_turns", "Turns.", ["role"], registry=registry)
        self._rethinks = Counter("longshort_rethinks", "Further thoughts asked for.", registry=registry)
        self._seconds = Histogram(
            "longshort_answer_seconds", "Seconds of an answer, waiting included.", buckets=_SECONDS, registry=registry
        )
        Gauge("longshort_running", "Answers under way.", registry=registry).set_function(running)
        Gauge("longshort_waiting", "Answers that wait.", registry=registry).set_function(waiting)

    def answered(self, end: Answered) -> None:
        """Count an answer."""
        self._answers.labels(str(end.stop_reason)).inc()
        for role in ROLES:
            self._generated.labels(str(role)).inc(end.tokens[role])
            self._prompts.labels(str(role)).inc(end.prompt_tokens[role])
            self._turns.labels(str(role)).inc(sum(turn.role is role for turn in end.turns))
        self._rethinks.inc(end.rethinks)
        self._seconds.observe(end.seconds)

    def requested(self, status: int) -> None:
        """Count a request; 499: the client left."""
        self._requests.labels(str(status)).inc()
