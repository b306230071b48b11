"""What a run was like, as metrics in Prometheus' text format: made from a `Report`, and so from events alone.

Rules: names and units as https://prometheus.io/docs/practices/naming advises; no timestamps, which node_exporter's
textfile collector refuses. Servers are told apart by scheme, host and port only; an asset is named only if it failed.
Source: https://prometheus.io/docs/instrumenting/exposition_formats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from grym_fetch.core.text import safe_text
from grym_fetch.display.report import Report

_ENDS = ("verified", "unverified", "reused", "failed", "unfinished")
Sample = tuple[Mapping[str, str], float]
"""Labels and a value."""


def metrics_text(report: Report) -> str:
    """The whole file. While the run goes on, it says how far it is."""
    lives = list(report.lives)
    ends: Counter[str] = Counter(life.end for life in lives)
    ends["unfinished"] += max(0, report.assets - len(lives))
    is_good = report.finished is not None and not ends["failed"]
    families: list[tuple[str, str, str, Iterable[Sample]]] = [
        ("run_start_time_seconds", "gauge", "When the run began, since the epoch.", [({}, report.began)]),
        ("run_last_time_seconds", "gauge", "When the run ended, or was last heard of.", [({}, report.ended)]),
        ("run_finished", "gauge", "1 if the run came to its end, 0 while it goes on or if it was cut off.",
         [({}, float(report.finished is not None))]),
        ("run_success", "gauge", "1 if the run came to its end and no asset failed.", [({}, float(is_good))]),
        ("assets", "gauge", "Assets by what became of them.", [({"state": each}, ends[each]) for each in _ENDS]),
        ("downloaded_bytes_total", "counter", "Bytes received, by server.", _by_server(report, "bytes")),
        ("retries_total", "counter", "Attempts that failed and were followed by another, by server.",
         _by_server(report, "retries")),
        ("switches_total", "counter", "How often a server was left for a mirror.", _by_server(report, "left")),
        ("restarts_total", "counter", "How often bytes on hand were discarded.",
         [({}, sum(life.restarts for life in lives))]),
        ("asset_failed", "gauge", "1 for each asset that failed.",
         [({"asset": life.asset}, 1.0) for life in lives if life.end == "failed"]),
    ]  # fmt: skip
    return "".join(line for family in families for line in _family(*family))


def _by_server(report: Report, what: str) -> list[Sample]:
    return [({"server": server}, getattr(share, what)) for server, share in sorted(report.servers.items())]


def _family(name: str, kind: str, text: str, samples: Iterable[Sample]) -> Iterator[str]:
    full = f"grym_fetch_{name}"
    yield f"# HELP {full} {text}\n# TYPE {full} {kind}\n"
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(label)}"' for key, label in labels.items())
        yield f"{full}{{{inside}}} {value:.15g}\n" if inside else f"{full} {value:.15g}\n"


def _escaped(label: str) -> str:
    return safe_text(label).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
