"""Assets as a manifest may have them, for tests of other tools' lists."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import strategies as st

from grym_fetch.core.digest import HEX_DIGITS, Algorithm, Checksum
from grym_fetch.core.manifest import Asset
from grym_fetch.core.manifest_values import check_url
from grym_fetch.core.paths import check_local_path

_PATHS = st.lists(st.text("aB1 ._-é#&'\"$%+=()[]", min_size=1, max_size=12), min_size=1, max_size=3).map("/".join)
_URLS = st.text("abc/?&=%._-~'()!$+,;:@#", max_size=20).map("https://h.example/".__add__)


def _is_good(check: object, text: str) -> bool:
    try:
        return bool(check(text) == text)  # type: ignore[operator]  # one of the two below
    except ValueError:
        return False


@st.composite
def assets(draw: st.DrawFn, algorithms: Sequence[Algorithm], *, mirrors: bool = True) -> Asset:
    """An asset with a checksum of one of these kinds."""
    algorithm = draw(st.sampled_from(list(algorithms)))
    digits = draw(st.text("0123456789abcdef", min_size=HEX_DIGITS[algorithm], max_size=HEX_DIGITS[algorithm]))
    urls = _URLS.filter(lambda url: _is_good(check_url, url))
    return Asset(
        id="a",
        url=draw(urls),
        local_path=draw(_PATHS.filter(lambda path: _is_good(check_local_path, path))),
        fallback_urls=tuple(draw(st.lists(urls, max_size=2))) if mirrors else (),
        checksum=Checksum(algorithm, digits),
        size=draw(st.none() | st.integers(1, 2**40)),
    )
