"""Tools for testing projects that use grym-fetch: a server that is correct until told to lie, and a mock.

Start with ``AssetServer`` (or ``serve_in_thread``) in ``server``; the faults to order are in ``faults`` and
``resource_faults``. For unit tests, use ``create_mock_asset_manager`` in ``mock``.

Rule: a name is imported on first use, because pytest imports this package, for `plugin`, also where no test uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grym_fetch.core.world import Clock
    from grym_fetch.testing.answers import Answer, Cut, Ending, Framing, Gate, Grant, RecordedRequest, Resource, Span
    from grym_fetch.testing.content import BytesContent, Content, SeededContent, seeded_bytes
    from grym_fetch.testing.faults import (
        AnswerFault,
        BigHeaders,
        BodyFault,
        Chunked,
        ChunkedCut,
        CloseDelimited,
        ContentLength,
        Delay,
        Drip,
        Endless,
        ExpiringRedirect,
        Fault,
        FramingFault,
        HangBeforeBody,
        HangBeforeHeaders,
        Hold,
        HtmlPage,
        PartFault,
        RawAnswer,
        Redirect,
        RedirectLoop,
        RefuseHead,
        Reset,
        ResourceFault,
        RetryAfter,
        ServerGone,
        Stall,
        Status,
        Throttle,
        Truncate,
    )
    from grym_fetch.testing.mock import Call, MockAssetManager, create_mock_asset_manager
    from grym_fetch.testing.resource_faults import (
        ChangeContent,
        ContentRange,
        ETag,
        FlipByte,
        FlippingETag,
        Gzip,
        IgnoreIfRange,
        LastModified,
        LongPartial,
        LyingTotal,
        MultipartRanges,
        NoRanges,
        NoValidator,
        RangeNotSatisfiable,
        RefuseRanges,
        ShiftRange,
        ShortPartial,
        SliceAs200,
        WeakETag,
        WrongFile,
    )
    from grym_fetch.testing.server import AssetServer, ServedFile, serve_in_thread
    from grym_fetch.testing.stats import RequestStats, ServerStats

__all__ = [
    "Answer",
    "AnswerFault",
    "AssetServer",
    "BigHeaders",
    "BodyFault",
    "BytesContent",
    "Call",
    "ChangeContent",
    "Chunked",
    "ChunkedCut",
    "Clock",
    "CloseDelimited",
    "Content",
    "ContentLength",
    "ContentRange",
    "Cut",
    "Delay",
    "Drip",
    "ETag",
    "Ending",
    "Endless",
    "ExpiringRedirect",
    "Fault",
    "FlipByte",
    "FlippingETag",
    "Framing",
    "FramingFault",
    "Gate",
    "Grant",
    "Gzip",
    "HangBeforeBody",
    "HangBeforeHeaders",
    "Hold",
    "HtmlPage",
    "IgnoreIfRange",
    "LastModified",
    "LongPartial",
    "LyingTotal",
    "MockAssetManager",
    "MultipartRanges",
    "NoRanges",
    "NoValidator",
    "PartFault",
    "RangeNotSatisfiable",
    "RawAnswer",
    "RecordedRequest",
    "Redirect",
    "RedirectLoop",
    "RefuseHead",
    "RefuseRanges",
    "RequestStats",
    "Reset",
    "Resource",
    "ResourceFault",
    "RetryAfter",
    "SeededContent",
    "ServedFile",
    "ServerGone",
    "ServerStats",
    "ShiftRange",
    "ShortPartial",
    "SliceAs200",
    "Span",
    "Stall",
    "Status",
    "Throttle",
    "Truncate",
    "WeakETag",
    "WrongFile",
    "create_mock_asset_manager",
    "seeded_bytes",
    "serve_in_thread",
]


# The modules with the names above, in the order in which they need each other.
_MODULES = (
    ".content",
    ".answers",
    ".faults",
    ".resource_faults",
    ".stats",
    ".server",
    ".mock",
    "grym_fetch.core.world",
)


def __getattr__(name: str) -> object:
    import importlib

    if name in __all__:
        for module in _MODULES:
            found = vars(importlib.import_module(module, __name__))
            if name in found:
                globals()[name] = found[name]
                return globals()[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
