"""Numbers for operators (Prometheus text format); labels are bounded and never hold a caller's words."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class GatewayMetrics:
    """Count answers and time; read open streams, audit lag and staleness when asked."""

    def __init__(
        self,
        *,
        open_answers: Callable[[], int],
        staleness: Callable[[], float],
        audit_lag: Callable[[], float] = lambda: 0.0,
    ) -> None:
        """Take the live values: a count, then seconds."""
        self._registry = CollectorRegistry()
        # Finding a labelled number costs more than counting.
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._histograms: dict[str, Histogram] = {}
        self._answers = Counter(
            "doorward_requests",
            "Answers by upstream, verdict and HTTP status.",
            ("upstream", "code", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "doorward_request_seconds",
            "Seconds until the head of the answer.",
            ("upstream",),
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self._oddities = Counter(
            "doorward_credential_oddities",
            "Episodes in which a credential was used oddly, by signal.",
            ("signal",),
            registry=self._registry,
        )
        self.gauge("doorward_open_answers", "Answers under way.", open_answers)
        self.gauge("doorward_staleness_seconds", "Seconds since the control plane was heard.", staleness)
        self.gauge("doorward_audit_lag_seconds", "Age of the oldest record not durable yet.", audit_lag)

    def gauge(self, name: str, text: str, read: Callable[[], float]) -> None:
        """Show one more live value."""
        Gauge(name, text, registry=self._registry).set_function(read)

    def found_odd(self, signal: str) -> None:
        """Count one episode."""
        self._oddities.labels(signal).inc()

    def answered(self, *, upstream: str, code: str, status: int, seconds: float) -> None:
        """Count one answer."""
        counter = self._counters.get((upstream, code, status))
        if counter is None:
            counter = self._counters[upstream, code, status] = self._answers.labels(
                upstream, code, str(status)
            )
        counter.inc()
        histogram = self._histograms.get(upstream)
        if histogram is None:
            histogram = self._histograms[upstream] = self._seconds.labels(upstream)
        histogram.observe(seconds)

    def text(self) -> bytes:
        """Return everything in the text format."""
        return generate_latest(self._registry)
