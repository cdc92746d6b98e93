"""What the service tells Prometheus."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, ProcessCollector, disable_created_metrics, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dc_rt.serve.jobs import ServedJob
from dc_rt.serve.store import Store

_OUTCOMES = ("finished", "failed", "cancelled")


class Metrics:
    """Counters since the service began, and gauges of how it is now."""

    def __init__(self, store: Store) -> None:
        disable_created_metrics()  # a second series for each counter, with the time that the service began
        self.registry = CollectorRegistry()
        self.num_streams = 0
        self._jobs = Counter("dc_rt_jobs", "Runs that ended, by how.", ["outcome"], registry=self.registry)
        for outcome in _OUTCOMES:
            self._jobs.labels(outcome)
        self._seconds = Counter("dc_rt_run_seconds", "Seconds that runs took.", registry=self.registry)
        self._frames = Counter("dc_rt_frames", "Frames of jobs that finished.", registry=self.registry)
        self.upload_bytes = Counter("dc_rt_upload_bytes", "Bytes of videos that were sent.", registry=self.registry)
        self._refused = Counter("dc_rt_requests_refused", "Requests by error.", ["status"], registry=self.registry)
        self.registry.register(_Now(store, self))
        ProcessCollector(registry=self.registry)

    def ended(self, job: ServedJob, seconds: float) -> None:
        """A run has ended."""
        if job.state.is_ended:
            self._jobs.labels(job.state.status).inc()
        self._seconds.inc(seconds)
        if job.state.status == "finished":
            self._frames.inc(job.state.num_frames or 0)

    def refused(self, status: int) -> None:
        """A request was answered with an error."""
        self._refused.labels(str(status)).inc()

    def text(self) -> bytes:
        """In the format that Prometheus reads."""
        return generate_latest(self.registry)


class _Now(Collector):
    """Gauges, looked at when they are asked for."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Gauges of how it is now."""
        store = self._store
        for name, help, value in (
            ("dc_rt_jobs_queued", "Jobs that wait.", len(store.queued())),
            ("dc_rt_jobs_running", "Jobs that are run.", store.num_running()),
            ("dc_rt_jobs_kept", "Jobs in the folder.", len(store.all())),
            ("dc_rt_event_streams", "Streams of events that are open.", self._metrics.num_streams),
            ("dc_rt_disk_free_bytes", "Free on the disk of the folder.", shutil.disk_usage(store.folder).free),
        ):
            yield GaugeMetricFamily(name, help, value)
