"""What an estimate of a partition function says of itself."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class LogPartition:
    """log Z (nats), how it was found and how far to trust it.

    `standard_error` is 0 for an exact value. `effective_sample_size` is that of the importance weights, None where
    there are none. `trusted` is False where the estimate's own diagnosis says that its error may be larger than stated;
    `diagnosis` holds what else it was judged by, as numbers by name.

    >>> print(LogPartition(12.5, 0.01, 800.0, True, "annealed importance sampling"))
    12.500 ± 0.010 nats (annealed importance sampling)
    """

    value: float
    standard_error: float
    effective_sample_size: float | None
    trusted: bool
    method: str
    diagnosis: dict[str, float] = field(default_factory=dict)

    @property
    def interval(self) -> tuple[float, float]:
        """value -+ 2 standard errors."""
        return self.value - 2 * self.standard_error, self.value + 2 * self.standard_error

    def __str__(self) -> str:
        """For people: value, error, method."""
        error = f" ± {self.standard_error:.3f}" if self.standard_error else ""
        return f"{self.value:.3f}{error} nats ({self.method}{'' if self.trusted else '; not to be trusted'})"
