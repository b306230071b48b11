"""Any events at all, also in orders and with numbers that no engine should publish."""

from __future__ import annotations

from hypothesis import strategies as st

from grym_fetch.core import events
from grym_fetch.core.events import Event

NAMES = {
    "plain": "model.safetensors",
    "wide": "日本語のとても長い名前のチェックポイント.ckpt",
    "markup": "[red]evil[/red] [link=https://x]y[/link]",
    "escapes": "\x1b[2J\x1b]8;;https://evil\x07name\r\n\u202egpj.exe\u200d",
    "long": "x" * 500,
    "emoji": "👩\u200d🚀☁️☁️🏳️‍🌈é\u0301\u0301",
    "empty": "",
}

_assets = st.sampled_from([*NAMES, "unnamed"])
_counts = st.integers(0, 2**50)
_totals = st.none() | _counts
_numbers = st.floats(0, 1e12) | st.sampled_from([float("nan"), float("inf"), -1.0])
_texts = st.sampled_from(["", "the server answered 503", "line one\nline two", "\x1b[31m[bold]", "長い" * 100])

any_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(events.RunStarted, assets=st.integers(0, 20_000), bytes=_counts),
    st.builds(events.AssetPlanned, asset=_assets, size=_totals, resumed_bytes=_counts),
    st.builds(events.AssetReused, asset=_assets, path=_texts, unverified=st.sampled_from([None, True])),
    st.builds(events.ProgressMade, asset=_assets, bytes=_counts, total=_totals, rate=_numbers, eta=_numbers),
    st.builds(
        events.RetryScheduled,
        asset=_assets,
        url=_texts,
        attempt=st.integers(1, 99),
        delay=_numbers,
        reason=_texts,
    ),
    st.builds(
        events.MirrorSwitched,
        asset=_assets,
        from_=_texts,
        to=_texts,
        reason=_texts,
        number=st.integers(1, 200),
        count=st.integers(1, 200),
    ),
    st.builds(
        events.AssetDamaged,
        asset=_assets,
        path=_texts,
        pieces=_counts,
        bad=_counts,
        bytes=_counts,
        guess=st.sampled_from([None, True]),
    ),
    st.builds(events.AssetRepaired, asset=_assets, pieces=_counts, bad=_counts, fetched=_counts, saved_bytes=_counts),
    st.builds(events.AssetRestarted, asset=_assets, discarded=_counts, reason=_texts),
    st.builds(events.AssetVerifying, asset=_assets, bytes=_counts, total=_counts),
    st.builds(
        events.AssetVerified,
        asset=_assets,
        path=_texts,
        checksum=_texts,
        size=_counts,
        seconds=st.floats(0, 1e7),
        downloaded_bytes=_counts,
        unverified=st.sampled_from([None, True]),
        wrong_origins=st.sampled_from([None, ("https://m.example/a",)]),
    ),
    st.builds(events.AssetFailed, asset=_assets, error=_texts, message=_texts),
    st.builds(events.AssetWaiting, asset=_assets, holder=_texts),
    st.builds(
        events.RunFinished,
        verified=st.integers(0, 20_000),
        unverified=st.integers(0, 20_000),
        reused=st.integers(0, 20_000),
        failed=st.integers(0, 20_000),
        downloaded_bytes=_counts,
        seconds=st.floats(0, 1e7),
    ),
)
