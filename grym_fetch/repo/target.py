"""Which folder outside of the repository may take its large files.

Rules: git must not see the moved files, in this repository or in one around it, or the next ``git add -A`` commits the
large files after all. The folder belongs to the user or to root; a folder that the user has named may also be a shared
one, to which its owner lets others write. A folder that was not named is never a symlink: the author of the repository
around a submodule could have put it there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from grym_fetch.core.command_lines import command_line
from grym_fetch.core.errors import RepositoryError
from grym_fetch.core.paths import MOVED_FILES
from grym_fetch.core.text import safe_text
from grym_fetch.disk.repository import repository_roots
from grym_fetch.manifest_files.project import EXTERNAL_NAME, Project
from grym_fetch.repo.git import Git, GitUnusable
from grym_fetch.repo.tree import git_folder_above
from grym_fetch.runtime import system


def usual_folders(root: Path) -> list[Path]:
    """Where moved files of a repository are kept by default, the usual place first.

    That is next to the main work tree, so that all work trees of a repository share them; then next to this one.
    """
    beside = root.parent / EXTERNAL_NAME
    if (root / ".git").is_file():
        with suppress(GitUnusable):
            git = Git(root)
            common = git.ask_path("--git-common-dir").resolve()
            if common != git.ask_path("--git-dir").resolve():  # otherwise it is a submodule, or has a separate store
                main = common.parent if common.name == ".git" else common
                return list(dict.fromkeys([main.parent / EXTERNAL_NAME, beside]))
    return [beside]


def unnamed_folders(root: Path, project: Project | None) -> list[Path]:
    """`usual_folders`, but of the project's folder if the manifest that was named is not this repository's.

    Raises `RepositoryError` if the first one is a symlink or belongs to another user; such others are left out.
    """
    root = root.resolve()
    folders = usual_folders(root)
    if project is not None and project.root.resolve() != root:
        folders.insert(0, project.external_dir)
    first, *others = dict.fromkeys(folders)
    _check_unnamed(first)
    fine = [first]
    for folder in others:
        with suppress(RepositoryError):
            _check_unnamed(folder)
            fine.append(folder)
    return fine


def external_folders(root: Path, project: Project) -> list[Path]:
    """Where moved files of a repository with this project are: in the folder that the user has named, if any.

    Raises like `unnamed_folders`.
    """
    return [project.external_dir] if project.is_external_named else unnamed_folders(root, project)


def recording_folders(base: Path) -> list[Path]:
    """The `usual_folders` that hold a record of moved files and may be used without being named."""
    found = []
    for folder in usual_folders(base):
        with suppress(RepositoryError):
            _check_unnamed(folder)
            if os.path.lexists(folder / MOVED_FILES):
                found.append(folder)
    return found


def _check_unnamed(folder: Path) -> None:
    real = Path(os.path.realpath(folder))
    if folder.is_symlink():
        shown = safe_text(str(folder), limit=4000)
        raise RepositoryError(
            f"{shown} is a symlink, and those count only where you name them; {_naming(real, 'if it is yours')}"
        )
    check_owner(folder, _naming(real, "if you trust whoever that is"))


def _naming(folder: Path, condition: str) -> str:
    """Advise the user to name a folder: another one, if no large file may ever go there."""
    if git_folder_above(folder) is not None or repository_roots(folder):
        return "name a folder of your own, outside of every repository: --external-assets-dir DIR"
    return f"{condition}: {command_line('--external-assets-dir', str(folder))}"


def check_owner(folder: Path, advice: str) -> None:
    """Raise `RepositoryError` if a folder exists and belongs to another user, who could do anything with it."""
    try:
        owner = os.stat(folder).st_uid
    except OSError:
        return  # it does not exist and will be ours, or cannot be used, which is reported later
    if owner not in (0, system.user_id()):
        raise RepositoryError(f"{safe_text(str(folder), limit=4000)} belongs to another user (uid {owner}); {advice}")


def check_named(folder: Path) -> None:
    """`check_owner` for a folder that the user has named: another user's is fine if this user may write there.

    The folder's mode is checked too, since root may write everywhere.
    """
    with suppress(OSError):
        if os.stat(folder).st_mode & 0o022 and os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            return
    check_owner(folder, "name a folder of your own, or a shared one that you may write to")


def check_target(root: Path, source: Path, target: Path) -> None:
    """Raise `RepositoryError` if no large file may go there. All folders are resolved."""
    shown = safe_text(str(target), limit=4000)
    if target.is_relative_to(source) or target.is_relative_to(root):
        raise RepositoryError(
            f"the target {shown} lies inside the repository; name a folder outside of it, such as {_outside(root)}"
        )
    if (store := git_folder_above(target)) is not None:
        raise RepositoryError(
            f"the target {shown} lies in {safe_text(str(store), limit=4000)}, which is git's own; name another folder, "
            f"such as {_outside(root)}"
        )
    if target.exists() and not target.is_dir():
        raise RepositoryError(f"the target {shown} is not a folder; name another one, such as {_outside(root)}")
    check_named(target)


def check_unseen(root: Path, target: Path, paths: Sequence[str]) -> None:
    """Raise `RepositoryError` if git would see files of these paths in the target. All folders are resolved."""
    for tree in repository_roots(target):
        prefix = target.relative_to(tree).as_posix()
        try:
            if not Git(tree).has_work_tree():
                continue  # a bare repository next to its work trees, with a .git that points to it
            git = Git.of(tree)
            seen = set(paths) - git.ignored(f"{prefix}/" if prefix != "." else "", paths) if git is not None else set()
        except GitUnusable as error:
            raise GitUnusable(f"{error}. So it is not known whether git would see the target; name another") from error
        if seen:
            shown, other = safe_text(str(target), limit=4000), safe_text(str(tree), limit=4000)
            raise RepositoryError(
                f"the target {shown} lies in the work tree of {other}, whose next `git add -A` would take the large "
                f"files in; name {_outside(root)}, or have that repository ignore the target"
            )


def _outside(root: Path) -> str:
    """A folder outside every work tree and repository around the root, for a message."""
    outermost = repository_roots(root)[-1:] or [root]
    folder = outermost[0].parent / EXTERNAL_NAME
    while (store := git_folder_above(folder)) is not None:
        folder = store.parent / EXTERNAL_NAME
    return safe_text(str(folder), limit=4000)
