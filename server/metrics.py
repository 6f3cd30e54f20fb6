"""What Prometheus may ask about: counts and latencies in a registry of the app's own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """The counters of one app. Names start with `forcing_`; times are in seconds."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        mine = self.registry
        self.requests = Counter(
            "forcing_http_requests", "Answered requests", ["method", "route", "status"], registry=mine
        )
        self.act_seconds = Histogram(
            "forcing_act_seconds", "From an act's arrival to its reply", buckets=_SECONDS, registry=mine
        )
        self.plan_seconds = Histogram(
            "forcing_plan_seconds", "Time a worker spent on a plan", ["policy"], buckets=_SECONDS, registry=mine
        )
        self.queue_seconds = Histogram(
            "forcing_queue_seconds", "Time a plan waited for a worker", buckets=_SECONDS, registry=mine
        )
        self.batch = Histogram(
            "forcing_plan_batch", "Plans that were made together with each", buckets=(1, 2, 4, 8, 16, 32), registry=mine
        )
        self.passes = Histogram(
            "forcing_plan_passes", "Network passes of a plan", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=mine
        )
        self.not_kept = Counter(
            "forcing_episodes_not_kept", "Episodes that could no longer be written to the state dir", registry=mine
        )
        self.swaps = Counter(
            "forcing_policy_swaps", "Policies that took the place of one of their name", ["policy"], registry=mine
        )
        self.sessions = Gauge("forcing_sessions_active", "Open sessions", registry=mine)
        self.sources = Counter("forcing_decisions", "Decisions by where they came from", ["source"], registry=mine)
        self.clipped = Counter("forcing_actions_clipped", "Actions cut to their limits", registry=mine)
        sensor = ["policy", "stream"]
        self.rejected = Counter("forcing_readings_rejected", "Readings that were left aside", sensor, registry=mine)
        self.stuck = Counter("forcing_readings_stuck", "Readings of sensors that seem stuck", sensor, registry=mine)
        self.unheard = Counter("forcing_readings_missing", "Steps without a reading of a sensor", sensor, registry=mine)
        self.nonfinite = Counter(
            "forcing_nonfinite_plans", "Plans or actions refused for NaN or infinity", registry=mine
        )
        self.deadline_misses = Counter(
            "forcing_deadline_misses", "Acts answered before their plan was ready", registry=mine
        )

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
