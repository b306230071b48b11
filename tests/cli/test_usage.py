"""Wrong usage: one prefix for all errors, and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.running import invoke


@pytest.fixture(autouse=True)
def _nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository without a manifest."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("line", "error", "hint"),
    [
        ("snyc", "no such command 'snyc'", "Did you mean sync?"),
        ("help chekc", "no such command 'chekc'", "Did you mean check?"),
        ("SYNC", "no such command 'SYNC'", "Did you mean sync?"),
        ("zzz", "no such command 'zzz'", "`grym-fetch -h` lists the commands."),
        ("help zzz", "no such command 'zzz'", "`grym-fetch -h` lists the commands."),
        ("sync --paralel 3", "no such option '--paralel'", "Did you mean --parallel?"),
        ("sync --PARALLEL 3", "no such option '--PARALLEL'", "Did you mean --parallel?"),
        ("sync --zzz", "no such option '--zzz'", "`grym-fetch sync -h` shows what it takes."),
        ("--verzion", "no such option '--verzion'", "Did you mean --version?"),
        ("sync -j 0", "invalid value for '-j' / '--parallel': must be a whole number of at least 1, not 0", ""),
        ("sync -j", "option '-j' requires an argument", None),
        (
            "sync --on x",
            "invalid value for '--on': must be one of dask, dask://HOST:PORT, ray, ray://HOST:PORT, not x",
            "",
        ),
        (
            "sync --each-node",
            "--each-node needs --on with a cluster: dask, dask://HOST:PORT, ray, ray://HOST:PORT",
            "",
        ),
        ("path", "missing argument 'ID'", "`grym-fetch path -h` shows what it takes."),
        (
            "export",
            "missing option '--format': metalink, aria2, curl, sha256sums, pooch",
            "`grym-fetch export -h` shows what it takes.",
        ),
        ("completion", "missing argument 'SHELL': bash, zsh, fish", "`grym-fetch completion -h` shows what it takes."),
        ("completion csh", "invalid value for 'SHELL': 'csh' is not one of 'bash', 'zsh', 'fish'", ""),
        (
            "import https://h.example/SHA256SUMS?sig=s3cr3t",
            "import takes a file, not an address: https://h.example/SHA256SUMS",
            "Download the list first, for example with `curl -O`, and name the file.",
        ),
        (
            "convert https://h.example/assets.json a.jsonl",
            "convert takes a file, not an address: https://h.example/assets.json",
            "Download the manifest first, for example with `curl -O`, and name the file.",
        ),
        ("convert nothing.json a.jsonl", "there is no file 'nothing.json'", ""),
        ("convert .git.json a.txt", "the name of 'a.txt' must end in .json, .jsonl or .parquet", ""),
        ("sync --header x:y", "--header is not accepted: others can read a command line", ""),
        ("add nothing.bin", "there is no file 'nothing.bin' (an address begins with https://)", ""),
        ("sync", "no manifest: there is no assets.json or config/assets.json in", ""),
    ],
)
def test_wrong_usage_is_told_like_any_error(line: str, error: str, hint: str | None) -> None:
    """`error:` and a sentence, then `hint:`; exit code 2, and nothing on stdout."""
    done = invoke(*line.split())
    assert (done.exit_code, done.stdout) == (2, "")
    first, *others = done.stderr.splitlines()
    assert first.startswith(f"error: {error}")
    assert [each.startswith("hint: ") for each in others] == ([] if hint is None else [True])
    if hint:
        assert others == [f"hint: {hint}"]


def test_a_secret_or_a_control_character_is_not_repeated() -> None:
    """What was typed is shown like any text from outside."""
    said = invoke("sync", "--limit-rate", "https://u:s3cr3t@h.example/?k=s3cr3t").stderr
    assert "s3cr3t" not in said
    assert "\x1b" not in invoke("sync", "--\x1b[31m").stderr


def test_a_mistyped_variable_is_told() -> None:
    """It has no effect, and nothing else would say so; a variable unlike any of ours belongs to somebody else."""
    done = invoke("schema", GRYM_FETCH_PARALEL="3", GRYM_FETCH_TOKEN_X="t0k3n", GRYM_FETCH_XYZZY="1")
    assert done.exit_code == 0
    assert done.stderr == (
        "warning: the environment variable GRYM_FETCH_PARALEL means nothing\nhint: Did you mean GRYM_FETCH_PARALLEL?\n"
    )
    assert invoke("schema", GRYM_FETCH_PARALLEL="3").stderr == ""
    assert "Did you mean GRYM_FETCH_RETRIES?" in invoke("schema", GRYM_FETCH_RETRYS="1").stderr
    assert "Did you mean GRYM_FETCH_INSTANCE_ROLE?" in invoke("schema", GRYM_FETCH_INSTANCE_ROL="1").stderr


def test_a_variable_of_another_command_is_none_of_its_business() -> None:
    """A variable for `clean`, or one that no option has, is not reported by `schema`."""
    assert invoke("schema", GRYM_FETCH_ALLOW_DIRTY="1", GRYM_FETCH_ENV="x", GRYM_FETCH_CLIENT_KEY="x").stderr == ""
    assert invoke("schema", GRYM_FETCH_INSTANCE_ROLE="1").stderr == ""
