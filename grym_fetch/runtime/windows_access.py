"""Who may write to a folder, on Windows: what its owner and its access list say.

Sources: GetSecurityInfo, ACCESS_ALLOWED_ACE and "Well-known SIDs" in Microsoft's documentation.
"""

from __future__ import annotations

import ctypes
import msvcrt
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache

assert sys.platform == "win32", "for type checkers: this is the module of another system"

if sys.platform == "win32":  # for type checkers: on other systems, that module is empty to them
    from grym_fetch.runtime.windows_folders import KERNEL, opened_again

_ADVAPI = ctypes.WinDLL("advapi32", use_last_error=True)
_READ_CONTROL = 0x2_0000
_FILE_OBJECT = 1
_OWNER, _DACL = 0x1, 0x4
_TOKEN_QUERY, _TOKEN_USER = 0x8, 1
_CURRENT_PROCESS = -1
_ALLOWED, _DENIED = 0, 1
_WRITING = 0x2 | 0x4 | 0x10 | 0x40 | 0x100 | 0x1_0000 | 0x4_0000 | 0x8_0000 | 0x1000_0000 | 0x4000_0000
"""To write or append, also attributes; to delete it or what is in it; to change its list or owner; the generic ones."""
_RULERS = frozenset({"S-1-5-18", "S-1-5-32-544"})
"""Local System and Administrators, who may do anything anyway."""
_WHOEVER_MAKES_IT = frozenset({"S-1-3-0", "S-1-3-4"})
"""Creator Owner and Owner Rights: they stand for the owner of each file."""


class _Acl(ctypes.Structure):
    _fields_ = (
        ("revision", ctypes.c_uint8),
        ("padding", ctypes.c_uint8),
        ("size", ctypes.c_uint16),
        ("count", ctypes.c_uint16),
        ("more_padding", ctypes.c_uint16),
    )


class _Ace(ctypes.Structure):
    """ACCESS_ALLOWED_ACE; the SID follows."""

    _fields_ = (
        ("kind", ctypes.c_uint8),
        ("flags", ctypes.c_uint8),
        ("size", ctypes.c_uint16),
        ("mask", ctypes.c_uint32),
    )


def is_private(folder: int) -> bool:
    """Whether only this user and administrators can have written what is in an open folder; False if that is not known.

    Entries that only what is made in it inherits count as well.
    """
    with suppress(OSError):
        trusted = {_this_user(), *_RULERS}
        with _security(folder) as (owner, acl):
            if _text(owner) in trusted and acl is not None:
                return all(_text(sid) in trusted | _WHOEVER_MAKES_IT for sid in _writers(acl))
    return False


@contextmanager
def _security(folder: int) -> Iterator[tuple[int, int | None]]:
    """The addresses of the owner's SID and of the access list, None if anybody may do anything."""
    owner, acl, whole = ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
    descriptor = opened_again(folder, _READ_CONTROL)
    try:
        code = _ADVAPI.GetSecurityInfo(
            ctypes.c_void_p(msvcrt.get_osfhandle(descriptor)),
            _FILE_OBJECT,
            ctypes.c_uint32(_OWNER | _DACL),
            ctypes.byref(owner),
            None,
            ctypes.byref(acl),
            None,
            ctypes.byref(whole),
        )
    finally:
        os.close(descriptor)
    if code:
        raise ctypes.WinError(code)
    try:
        assert owner.value is not None
        yield owner.value, acl.value
    finally:
        KERNEL.LocalFree(whole)


def _writers(acl: int) -> Iterator[int]:
    """The addresses of the SIDs that an access list lets write, and of those in entries of a kind that is not known."""
    for number in range(_Acl.from_address(acl).count):
        place = ctypes.c_void_p()
        if not _ADVAPI.GetAce(ctypes.c_void_p(acl), ctypes.c_uint32(number), ctypes.byref(place)):
            raise ctypes.WinError(ctypes.get_last_error())
        assert place.value is not None
        ace = _Ace.from_address(place.value)
        if ace.kind != _DENIED and (ace.kind != _ALLOWED or ace.mask & _WRITING):
            yield place.value + ctypes.sizeof(_Ace)


def _text(sid: int) -> str:
    """A SID as text; empty if it is none."""
    text = ctypes.c_wchar_p()
    if not _ADVAPI.ConvertSidToStringSidW(ctypes.c_void_p(sid), ctypes.byref(text)):
        return ""
    try:
        return text.value or ""
    finally:
        KERNEL.LocalFree(text)


@cache
def _this_user() -> str:
    token = ctypes.c_void_p()
    if not _ADVAPI.OpenProcessToken(ctypes.c_void_p(_CURRENT_PROCESS), _TOKEN_QUERY, ctypes.byref(token)):
        raise ctypes.WinError(ctypes.get_last_error())
    try:
        length = ctypes.c_uint32()
        _ADVAPI.GetTokenInformation(token, _TOKEN_USER, None, 0, ctypes.byref(length))
        room = ctypes.create_string_buffer(length.value)
        if not _ADVAPI.GetTokenInformation(token, _TOKEN_USER, room, length, ctypes.byref(length)):
            raise ctypes.WinError(ctypes.get_last_error())
        sid = ctypes.c_void_p.from_buffer(room).value
        assert sid is not None
        return _text(sid)
    finally:
        KERNEL.CloseHandle(token)
