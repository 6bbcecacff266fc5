"""Where fetched weights lie, and what is said where they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from semhitok.storage.cache import cache_directory, require_weights, weights_path


def test_the_environment_names_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SEMHITOK_CACHE", str(tmp_path))
    assert weights_path("net.pth") == tmp_path / "weights" / "net.pth"
    assert weights_path("net.pth", tmp_path / "other") == tmp_path / "other" / "weights" / "net.pth"
    monkeypatch.setenv("SEMHITOK_CACHE", "")
    assert cache_directory() == Path.home() / ".cache" / "semhitok"


def test_missing_weights_are_one_sentence(tmp_path: Path):
    path = tmp_path / "net.pth"
    with pytest.raises(
        ValueError, match=r"^the test needs weights at .*net\.pth: run `semhitok data fetch weights`, or$"
    ):
        require_weights(path, "the test needs weights", ", or")
    path.touch()
    assert require_weights(path, "the test needs weights") == path


def test_a_user_without_a_home_folder_finds_nothing(monkeypatch: pytest.MonkeyPatch):
    """As under ``docker run --user 54321``."""
    monkeypatch.delenv("SEMHITOK_CACHE", raising=False)
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("os.getuid", lambda: 54321)
    assert not weights_path("net.pth").exists()
    with pytest.raises(ValueError, match="semhitok data fetch weights"):
        require_weights(weights_path("net.pth"), "the test needs weights")
