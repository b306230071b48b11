"""Whose folder it is, on Windows: nothing that somebody else can have written is believed."""

from __future__ import annotations

import ctypes
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grym_fetch.runtime import system

# Whatever looks through the tests imports this on other systems, too.
windows_access: Any = importlib.import_module("grym_fetch.runtime.windows_access") if sys.platform == "win32" else None
_ADVAPI: Any = windows_access and windows_access._ADVAPI
_DACL = 0x4


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[int]:
    """An open folder."""
    descriptor = system.open_descriptor(tmp_path, os.O_RDONLY | system.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def described(text: str) -> ctypes.c_void_p:
    """A security descriptor in its binary form; never freed."""
    made = ctypes.c_void_p()
    make = _ADVAPI.ConvertStringSecurityDescriptorToSecurityDescriptorW
    assert make(ctypes.c_wchar_p(text), 1, ctypes.byref(made), None)
    return made


def writers(text: str) -> set[str]:
    """Whom an access list lets write."""
    there, acl, is_default = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_int()
    called = (ctypes.byref(there), ctypes.byref(acl), ctypes.byref(is_default))
    assert _ADVAPI.GetSecurityDescriptorDacl(described(text), *called)
    assert acl.value is not None
    return {windows_access._text(sid) for sid in windows_access._writers(acl.value)}


@pytest.mark.parametrize(
    ("others", "is_private"),
    [("", True), ("(A;;FA;;;SY)(A;;FA;;;BA)", True), ("(A;OICI;FR;;;WD)", True), ("(A;OICI;FA;;;WD)", False)],
)
def test_who_else_may_write(folder: int, tmp_path: Path, others: str, is_private: bool) -> None:
    """Administrators, who may do so anyway, and readers do not matter."""
    access = described(f"D:P(A;OICI;FA;;;{windows_access._this_user()}){others}")
    assert _ADVAPI.SetFileSecurityW(ctypes.c_wchar_p(str(tmp_path)), _DACL, access)
    assert system.is_private(folder) is is_private


@pytest.mark.parametrize(
    ("access", "expected"),
    [
        ("D:(A;;FR;;;WD)(A;;FX;;;AU)", set()),
        ("D:(A;;FW;;;WD)", {"S-1-1-0"}),
        ("D:(A;;0x2;;;AU)(A;;0x4;;;BU)", {"S-1-5-11", "S-1-5-32-545"}),
        ("D:(A;;SD;;;AU)", {"S-1-5-11"}),
        ("D:(A;;WD;;;AU)(A;;WO;;;BU)", {"S-1-5-11", "S-1-5-32-545"}),
        ("D:(A;;GW;;;AU)(A;;GA;;;BU)", {"S-1-5-11", "S-1-5-32-545"}),
        ("D:(A;OICIIO;FA;;;AU)(A;OICIIO;FA;;;CO)", {"S-1-5-11", "S-1-3-0"}),
        ("D:(D;;FA;;;AU)", set()),
        ("D:", set()),
    ],
)
def test_whom_a_list_lets_write(access: str, expected: set[str]) -> None:
    """Whatever changes what is there or will be counts, also what only new files inherit; what is denied does not."""
    assert writers(access) == expected


def test_what_cannot_be_known_is_not_private(tmp_path: Path) -> None:
    """Such as what a file is that was opened instead of a folder."""
    (tmp_path / "file").write_bytes(b"")
    with (tmp_path / "file").open("rb") as file:
        assert not system.is_private(file.fileno())
