"""Counters and gauges in the Prometheus text format."""

from __future__ import annotations

from collections.abc import Mapping


class Metrics:
    """Samples by name and labels; counters only grow, gauges are set when asked for."""

    def __init__(self) -> None:
        self._samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        self._kinds: dict[str, str] = {}

    def count(self, name: str, by: float = 1.0, /, **labels: str) -> None:
        self._kinds.setdefault(name, "counter")
        samples = self._samples.setdefault(name, {})
        key = tuple(sorted(labels.items()))
        samples[key] = samples.get(key, 0.0) + by

    def gauge(self, name: str, value: float, /, **labels: str) -> None:
        self._kinds.setdefault(name, "gauge")
        self._samples.setdefault(name, {})[tuple(sorted(labels.items()))] = value

    def value(self, name: str, /, **labels: str) -> float:
        return self._samples.get(name, {}).get(tuple(sorted(labels.items())), 0.0)

    def text(self) -> str:
        lines = []
        for name, samples in self._samples.items():
            lines.append(f"# TYPE {name} {self._kinds[name]}")
            lines.extend(sample(name, dict(labels), value) for labels, value in samples.items())
        return "\n".join(lines) + "\n"


def sample(name: str, labels: Mapping[str, str], value: float) -> str:
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
