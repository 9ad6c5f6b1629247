"""Parts are found by name: built in, registered, or brought by an installed package."""

from __future__ import annotations

import sys
from functools import partial

import pytest

from editloop.errors import ConfigError, CostError, MissingExtraError
from editloop.progress import EditLoopWarning
from editloop.registry import Registry
from plug_in import install_plug_in


@pytest.fixture
def registry():
    return Registry("decoder", "editloop.decoders", {"json": "json:JSONDecoder", "csv": "csv:reader"})


@pytest.fixture
def install(tmp_path, monkeypatch):
    return partial(install_plug_in, tmp_path, monkeypatch, "editloop.decoders")


def test_a_built_in_part_is_imported_when_it_is_asked_for(monkeypatch):
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    registry = Registry("colour", "editloop.colours", {"hls": "colorsys:rgb_to_hls"})
    assert list(registry) == ["hls"]
    assert "colorsys" not in sys.modules
    assert registry.get("hls").__name__ == "rgb_to_hls"
    assert "colorsys" in sys.modules


def test_an_unknown_name_is_told_with_those_that_there_are(registry):
    registry.register("mine", object())
    with pytest.raises(ConfigError) as failure:
        registry.get("xml")
    assert str(failure.value) == "unknown decoder: 'xml' (use one of json, csv, mine)"


def test_a_registry_has_its_own_error_and_hint():
    registry = Registry("price", "editloop.prices", {}, error=CostError, hint="FAMILY:UNIT")
    with pytest.raises(CostError, match=r"unknown price: 'x' \(use FAMILY:UNIT\)"):
        registry.get("x")
    registry.register("own", len)
    with pytest.raises(CostError, match=r"use FAMILY:UNIT, or one of own"):
        registry.get("x")


def test_a_registered_part_is_found_and_its_name_is_taken(registry):
    part = object()
    assert registry.register("mine", part) is part
    assert registry.register("mine", part) is part
    assert registry.get("mine") is part
    assert "mine" in registry
    assert list(registry) == ["json", "csv", "mine"]
    for taken in ("mine", "json", ""):
        with pytest.raises(ConfigError, match="the decoder's name is empty or taken"):
            registry.register(taken, object())


def test_an_installed_part_is_found_by_its_entry_point(registry, install):
    install("def decode(text):\n    return text[::-1]\n", backwards="decode")
    assert list(registry) == ["json", "csv", "backwards"]
    assert "backwards" in registry
    assert registry.get("backwards")("ab") == "ba"
    assert [getattr(each, "__name__", "") for each in registry.parts()] == ["JSONDecoder", "reader", "decode"]


def test_an_installed_part_replaces_no_built_in_one(registry, install):
    import json

    install("def decode(text):\n    return text\n", json="decode")
    assert registry.get("json") is json.JSONDecoder
    assert list(registry) == ["json", "csv"]


def test_an_installed_part_that_cannot_be_loaded_is_told_in_one_line(registry, install):
    install("raise RuntimeError('no licence')\n", broken="decode")
    with pytest.raises(
        ConfigError, match="the decoder broken of outside_package:decode cannot be loaded"
    ) as failure:
        registry.get("broken")
    assert "no licence" in str(failure.value)
    assert registry.get("json")  # one broken package does not break the others' parts
    with pytest.warns(EditLoopWarning, match="no licence"):
        assert len(list(registry.parts())) == 2


def test_a_built_in_part_whose_extra_is_missing_is_not_left_out_silently(registry, monkeypatch):
    def missing(name: str) -> None:
        raise MissingExtraError(f"{name} needs torch")

    monkeypatch.setattr("editloop.registry.load_module", missing)
    with pytest.raises(MissingExtraError, match="json needs torch"):
        list(registry.parts())


def test_a_part_from_outside_must_have_what_its_protocol_asks_for(install):
    registry = Registry("decoder", "editloop.decoders", {}, attributes=("decode", "name"))
    install("class Poor:\n    decode = None\n", poor="Poor")
    with pytest.raises(ConfigError, match="the decoder poor lacks name"):
        registry.get("poor")
    with pytest.raises(ConfigError, match="the decoder mine lacks decode, name"):
        registry.register("mine", object())
