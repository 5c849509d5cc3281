"""How long a request's stages took: for the metrics, and for its own answer where it asked."""

from service.metrics import Metrics, Stage


class Stages:
    """The times of one request; of its inputs, which are worked on side by side, the longest in each stage."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._seconds: dict[Stage, float] = {}

    def record(self, stage: Stage, seconds: float) -> None:
        """Counts one input's time."""
        self._metrics.stage(stage, seconds)
        self._seconds[stage] = max(seconds, self._seconds.get(stage, 0.0))

    def ms(self) -> dict[Stage, float]:
        """Milliseconds by stage, of those that took part."""
        return {stage: round(1e3 * seconds, 3) for stage, seconds in self._seconds.items()}
