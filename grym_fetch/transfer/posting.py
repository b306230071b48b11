"""A POST, which not every transport can send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from grym_fetch.core.errors import PolicyRefused
from grym_fetch.core.world import Connection, Response

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Response]]
NO_POST = (
    "this takes a POST, which the transport given to AssetManager cannot send: its connections have no method `post` "
    "(grym_fetch.transport.PostConnection)"
)


def post_method(connection: Connection, address: str) -> Post:
    """Return the method of ``connection`` that sends a POST. Raises `PolicyRefused` if it has none."""
    post: Post | None = getattr(connection, "post", None)
    if post is None:
        raise PolicyRefused(address, NO_POST)
    return post
