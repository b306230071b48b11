"""Reads where a Git LFS server says an object is.

Rule: the answer is bounded, and used only for the object that was asked for.
"""

from __future__ import annotations

from grym_fetch.core.errors import BadResponse, BadStatus, Throttled
from grym_fetch.core.http import Broken, ErrorStatus, Verdict, Whole
from grym_fetch.core.lfs import MAX_BATCH_ANSWER_BYTES, Lead, read_batch_answer
from grym_fetch.core.lfs_addresses import LfsAddress
from grym_fetch.core.refusals import Refusal
from grym_fetch.core.world import Response
from grym_fetch.transfer.answers import read_answer


async def read_lead(
    response: Response, verdict: Verdict, refusal: Refusal | None, address: LfsAddress, url: str
) -> Lead:
    """Return where the object is now; ``url`` is where that was asked.

    Raises `BadStatus` or `Throttled` if the server refuses, `BadResponse` if its answer makes no sense, `Stalled` if it
    takes too long.
    """
    match verdict:
        case Whole():
            return read_batch_answer(
                await read_answer(response, url, whose="the Git LFS server", most=MAX_BATCH_ANSWER_BYTES), address, url
            )
        case ErrorStatus(status=status, reason=reason, retry_after=retry_after):
            if verdict.is_throttling:
                raise Throttled(url, status, reason, retry_after)
            raise BadStatus(url, status, str(refusal or reason))
        case Broken(reason=reason):
            raise BadResponse(url, reason)
        case _:
            raise BadResponse(url, "an answer that was not asked for")
