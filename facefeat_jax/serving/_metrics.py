"""What `/metrics` gives to Prometheus. Of pictures, counts only."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from facefeat_jax import __version__
from facefeat_jax.prediction.answers import Prediction

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_SIZES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one server, in a registry of their own.

    Args:
      model: fingerprint of the model.
      waiting: returns how many pictures are in work.
      limit: how many may be.
    """

    def __init__(self, model: str, waiting: Callable[[], int], limit: int):
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        Info("facefeat", "Version and model", registry=own).info({"version": __version__, "model": model})
        self._requests = Counter("facefeat_requests", "Requests answered", ["route", "status"], registry=own)
        self._seconds = Histogram(
            "facefeat_request_seconds", "Seconds to answer a request", ["route"], buckets=_SECONDS, registry=own
        )
        self._pictures = Counter(
            "facefeat_pictures", "Pictures, by whether they could be used", ["outcome"], registry=own
        )
        self._answers = Counter(
            "facefeat_answers", "Answers of each head: given, unsure, unlike", ["head", "kind"], registry=own
        )
        self._batch = Histogram("facefeat_batch_pictures", "Pictures in a batch", buckets=_SIZES, registry=own)
        self._model = Histogram("facefeat_model_seconds", "Seconds of a batch", buckets=_SECONDS, registry=own)
        Gauge("facefeat_queue_pictures", "Pictures in work or waiting", registry=own).set_function(waiting)
        Gauge("facefeat_queue_limit", "Pictures beyond which requests are refused", registry=own).set(limit)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Counts a request; `route` must be one of few."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, pictures: int, seconds: float) -> None:
        """Counts a batch."""
        self._batch.observe(pictures)
        self._model.observe(seconds)

    def answered(self, predictions: list[Prediction]) -> None:
        """Counts a picture and the answers for it."""
        self._pictures.labels("unreadable" if predictions[0].error else "answered").inc()
        for prediction in predictions:
            for task, head in prediction.heads.items():
                kind = "unlike" if head.unlike else "unsure" if head.unsure else "given"
                self._answers.labels(task, kind).inc()

    def text(self) -> bytes:
        """Returns all figures in Prometheus' text form."""
        return generate_latest(self._registry)
