"""What the tests of this room share: the command, called in this process."""

from __future__ import annotations

import sys

import pytest

from editloop.cli import main


@pytest.fixture
def editloop(monkeypatch, capsys, tmp_path):
    """Return a function that calls the command in an empty folder and returns status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["editloop", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            status: object = 0
        except SystemExit as end:
            status = end.code or 0
        out, err = capsys.readouterr()
        return int(status), out, err  # type: ignore[call-overload]

    return call
