"""Who gave what is wrong: which origin is to blame for a piece, and which is trusted when the whole is wrong.

Rules: an origin is blamed only for what it alone gave in this run. Nothing here asks for anything: `transfer` does what
is decided.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from grym_fetch.core.digest import Checksum
from grym_fetch.core.errors import DigestMismatch, IntegrityError
from grym_fetch.core.journal import NOBODY
from grym_fetch.core.manifest import Asset
from grym_fetch.core.origins import Origin, Origins
from grym_fetch.core.text import safe_text
from grym_fetch.transfer.outcome import CompareMore, CompareWith, DoubtOrigin, DropOrigin, Restart, TrustOrigin
from grym_fetch.transfer.state import DownloadState


class Blame:
    """What is known of an asset's origins from bytes that turned out to be wrong."""

    def __init__(self, asset: Asset, state: DownloadState, origins: Origins) -> None:
        self._asset = asset
        self._state = state
        self._origins = origins
        self._trials: Counter[Origin] = Counter()
        self._strikes: Counter[tuple[int, int]] = Counter()
        """How often which piece came wrong from which origin alone."""
        self._mixed: Counter[int] = Counter()
        """How often which piece came wrong from several together."""
        self._blamed: set[int] = set()
        self.mismatch: DigestMismatch | None = None
        """The error to raise if the doubted origin sends the same again."""

    # -- a piece ----------------------------------------------------------------------------------------------------

    def giver(self, givers: set[int]) -> Origin | None:
        """The origin to blame for wrong bytes; None if several gave them, or an earlier run left some of them."""
        return self._origins.all[min(givers)] if len(givers) == 1 and NOBODY not in givers else None

    def names(self, givers: set[int]) -> str:
        """Who gave a piece, in words; empty if that is not known of all of it."""
        return "" if NOBODY in givers else " and ".join(self._origins.all[number].shown for number in sorted(givers))

    def was_mixed(self, index: int) -> bool:
        """Several gave a wrong piece. Return whether it may still come right."""
        self._origins.separate()
        self._mixed[index] += 1
        return self._mixed[index] <= len(self._origins.all) + 1

    def strike(self, origin: Origin, index: int, reason: str) -> bool:
        """An origin gave a wrong piece. Return whether it is out by that: the only one left is asked once more."""
        self._strikes[index, origin.number] += 1
        if origin.is_out:
            return False
        is_last = self._origins.usable == [origin]
        self._blamed.add(origin.number)
        error = IntegrityError(f"what it sent is wrong: {reason}")
        origin.lied(error, is_out=not is_last or self._strikes[index, origin.number] > 1)
        return origin.is_out

    def wrong_for_good(self, reason: str) -> DigestMismatch:
        """The error if nobody has the piece that the manifest wants."""
        advice = "Another mirror may have it."
        indices = Counter(index for index, _ in self._strikes)
        if (most := indices.most_common(1)) and most[0][1] > 1:
            advice = (
                f"{most[0][1]} addresses have other content than the pieces in the manifest. If the source has changed "
                "for good, update the entry; if only its pieces are wrong, remove them and run: grym-fetch pin --pieces"
            )
        return DigestMismatch(self._asset.id, str(self._asset.checksum), reason, self._origins.reasons(), advice)

    def others_sent(self, wrong: Iterable[Origin]) -> None:
        """These sent a piece that is not what was verified."""
        self._blamed.update(origin.number for origin in wrong)

    def wrong_origins(self) -> tuple[Origin, ...]:
        """Who sent other bytes than those verified now: pieces, or the whole, or what others were asked for instead."""
        return tuple(
            origin
            for origin in self._origins.all
            if origin.number in self._blamed or origin in self._state.differing or origin.has_mismatched
        )

    # -- the whole --------------------------------------------------------------------------------------------------

    def find_the_liar(self, digest: Checksum) -> Restart:
        """Every byte is there and the digest is wrong: decide which origin to ask for all, or raise `DigestMismatch`.

        Some origin must be able to give the whole right content by itself. One after the other is trusted with that:
        it is asked for what it has not given in this run; where its bytes differ from what is on hand, they replace
        it. One that has given everything and is still wrong is not asked again, since that would not mend it; except
        once, if its redirects led to several servers, for what one of them has. As long as it may stop early, it is
        asked for a part at a time.
        """
        if (comparison := self._state.comparison) is not None:
            comparison.still_wrong()
            if (more := self.compare_more()) is not None:
                return replace(
                    more, reason=f"the checksum does not match yet; asking {self._origins.current.shown} for more"
                )
        givers = {NOBODY if self._state.is_inherited(p) else p.origin for p in self._state.pieces}
        if (origin := self.giver(givers)) is not None:
            if origin.is_mixed and not self._trials[origin]:
                self._trials[origin] += 1
                origin.restarted()
                return DropOrigin("the checksum does not match; asking one server for what several gave", origin)
            assert self._asset.checksum is not None
            origin.mismatched(digest, self._asset.checksum)
        candidates = self._origins.usable
        if not candidates or self._trials.total() >= 2 * len(self._origins.all):
            mismatch = self._mismatch(digest)
            doubted = self._origin_to_doubt()
            if doubted is None:
                raise self.mismatch or mismatch
            self.mismatch = mismatch
            return DoubtOrigin("the checksum does not match; asking for the whole, past all caches", doubted)
        # First an origin that was not asked yet: others may break off again. Then the one that has least left to send.
        given = self._state.bytes_given
        trusted = min(candidates, key=lambda origin: (self._trials[origin], -given(origin), origin.number))
        reason = f"the checksum does not match; asking {trusted.shown} for what others gave"
        self._trials[trusted] += 1
        return CompareWith(reason, trusted) if self._may_compare(trusted) else TrustOrigin(reason, trusted)

    # -- comparing --------------------------------------------------------------------------------------------------

    def compare(self) -> Restart | None:
        """What is on hand is known to be wrong somewhere: decide whom to compare it with; None if there is nobody."""
        trusted = self._origins.current
        if not self._may_compare(trusted):
            return None
        self._trials[trusted] += 1
        return CompareWith("", trusted)

    def compare_more(self) -> CompareMore | None:
        """Every byte is there. Return what to ask for next; None if the whole is to be looked at."""
        comparison = self._state.comparison
        if comparison is None:
            return None
        comparison.settle()
        if comparison.is_over or comparison.is_news or self._origins.current.is_out:
            return None
        return CompareMore()

    def _may_compare(self, trusted: Origin) -> bool:
        """Whether parts of what this origin has may be enough: it has ranges, and the length is not another's word."""
        state = self._state
        is_sized = self._asset.size is not None or state.size_origin is trusted
        return is_sized and trusted.ranges is not False and self._trials[trusted] <= 1

    def _origin_to_doubt(self) -> Origin | None:
        """The origin that sent everything and may still have the right content: ranges lie, and caches are old."""
        if self.mismatch is not None or self._state.size == 0:
            return None
        whole = [origin for origin in self._origins.all if origin.digest is not None and not origin.has_sent_page]
        return min(whole, key=lambda origin: (origin.ranges is not True, origin.number), default=None)

    def _mismatch(self, digest: Checksum) -> DigestMismatch:
        advice = "If the source has changed for good, update the checksum in the manifest; else use another mirror."
        if self._state.size == 0:
            advice = "The servers sent 0 bytes."
        elif any(origin.has_sent_page for origin in self._origins.all):
            advice = "A web page came instead of the file: a login, an error page or a captive portal?"
        elif agreement := self._origins.agreement():
            advice = agreement
        elif encodings := sorted({origin.encoding for origin in self._origins.all if origin.encoding}):
            advice = f"The server sent it {safe_text(encodings[0])}-encoded although identity was asked for. {advice}"
        return DigestMismatch(self._asset.id, str(self._asset.checksum), str(digest), self._origins.reasons(), advice)
