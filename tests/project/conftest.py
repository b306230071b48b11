"""A project with one asset ``a``, which a server has."""

from __future__ import annotations

from pathlib import Path

import pytest

from grym_fetch.testing import AssetServer
from tests.project.editing import CONTENT
from tests.support.project import Project


@pytest.fixture
def project(tmp_path: Path, server: AssetServer) -> Project:
    """A project with one asset ``a``, which a server has."""
    return Project.with_one_asset(tmp_path / "project", server, CONTENT)
