"""Plug-ins that break, clash or are left out: the rest works, and the error says whose fault it is."""

from inspect import signature
from itertools import count

import pytest
from mmengine.registry import Registry

from pxframe.base.errors import PxframeError
from pxframe.plugin import host as host_module
from pxframe.plugin import registry
from pxframe.plugin.host import Host, PluginWarning

_serial = count()

GOOD = """
import pxframe
class S(pxframe.Scorer):
    name = {name!r}
    def score(self, net, batches): return {{}}
@pxframe.hookimpl
def pxframe_register(register):
    register.scorer(S)
"""
HALF = GOOD + "    raise RuntimeError('half-way')\n"
OTHER_VERSION = "PXFRAME_HOOKS = 99\n" + GOOD
OTHER_ARGUMENTS = """
import pxframe
@pxframe.hookimpl
def pxframe_register(register, colour): pass
"""
UNKNOWN_HOOK = """
import pxframe
@pxframe.hookimpl
def pxframe_from_the_future(): pass
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Puts a distribution with one plug-in module on the path."""

    def write(name, source, distribution=None, version="0.7"):
        distribution = distribution or f"dist-{name}"
        site = tmp_path / distribution
        info = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True)
        module = f"plugin_{next(_serial)}"  # modules stay imported from test to test
        (site / f"{module}.py").write_text(source)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(f"[pxframe]\n{name} = {module}\n")
        monkeypatch.syspath_prepend(str(site))

    return write


@pytest.fixture
def load(monkeypatch):
    """Loads all plug-ins into registries of the test's own, and makes the public look-ups use them."""

    def run(**kwargs):
        kinds = {kind: Registry(kind, scope="pxframe") for kind in ("scorer", "backbone", "task")}
        fresh = Host(**kwargs)
        monkeypatch.setattr(host_module, "_hosts", lambda: [fresh])
        monkeypatch.setattr(registry, "_KINDS", kinds)
        fresh.load(kinds)
        return fresh

    return run


def test_a_plugin_is_found(install, load):
    install("sunny", GOOD.format(name="sunny"))
    load()
    assert {"sunny", "px", "magnitude"} <= set(registry.scorers())


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_at_all", "No module named 'no_such_module_at_all'"),
        (HALF.format(name="rainy"), "half-way"),
        (OTHER_VERSION.format(name="rainy"), "built for hook version 99, this is version 1"),
        (OTHER_ARGUMENTS, "colour"),
        (UNKNOWN_HOOK, "pxframe_from_the_future"),
        ("raise SystemExit('rude')", "rude"),
    ],
    ids=["import", "half-way", "version", "arguments", "unknown hook", "exits"],
)
def test_a_broken_plugin_is_reported_and_the_rest_works(install, load, source, cause):
    install("rainy", source)
    install("sunny", GOOD.format(name="sunny"))
    with pytest.warns(PluginWarning, match=r"'rainy' of dist-rainy 0.7 did not load"):
        loaded = load()
    assert cause in str(loaded.failures[0])
    assert {"sunny", "px"} <= set(registry.scorers())
    assert "rainy" not in registry.scorers()
    with pytest.raises(PxframeError, match="there is no scorer 'rainy'") as caught:
        registry.build("scorer", "rainy")
    assert "dist-rainy 0.7" in str(caught.value)
    assert cause in str(caught.value)


def test_two_plugins_claiming_one_name(install, load):
    install("sunny", GOOD.format(name="sunny"), "first-dist")
    install("sunny", GOOD.format(name="sunny"), "second-dist", "0.8")
    with pytest.warns(PluginWarning, match="claimed by two plug-ins"):
        load()
    with pytest.raises(PxframeError) as caught:
        registry.build("scorer", "sunny")
    assert "first-dist 0.7" in str(caught.value)
    assert "second-dist 0.8" in str(caught.value)
    assert "px" in registry.scorers()


def test_blocking_one_of_two_settles_the_claim(install, load):
    install("sunny", GOOD.format(name="sunny"), "first-dist")
    install("cloudy", GOOD.format(name="sunny"), "second-dist")
    loaded = load(blocked=["cloudy"])
    assert loaded._owners["scorer", "sunny"] == "'sunny' of first-dist 0.7"
    assert registry.build("scorer", "sunny").name == "sunny"


def test_variable_restricts_and_blocking_removes(install, load, monkeypatch):
    monkeypatch.setenv("PXFRAME_PLUGINS", "magnitude, snip")
    load(blocked=["snip"])
    assert registry.scorers() == ["magnitude"]
    assert registry.backbones() == []


@pytest.mark.parametrize("how", ["variable", "blocked"])
def test_unknown_plugin_names_are_refused(load, monkeypatch, how):
    if how == "variable":
        monkeypatch.setenv("PXFRAME_PLUGINS", "magnitud")
    with pytest.raises(PxframeError, match="did you mean 'magnitude'"):
        load(blocked=["magnitud"] if how == "blocked" else [])
    if how == "variable":
        with pytest.raises(PxframeError, match="did you mean 'magnitude'"):  # and again when asked again
            registry.scorers()


def test_a_failing_observer_does_not_stop_the_work(install, load):
    install("nosy", "import pxframe\n@pxframe.hookimpl\ndef pxframe_ticket_made(ticket): raise ValueError('nosy')\n")
    loaded = load()
    with pytest.warns(PluginWarning, match="an observer of pxframe_ticket_made failed: ValueError: nosy"):
        loaded.notify("pxframe_ticket_made", ticket=None)


def test_unknown_names_and_options_name_near_matches():
    with pytest.raises(PxframeError, match="did you mean 'magnitude'"):
        registry.build("scorer", "magnitud")
    with pytest.raises(PxframeError, match=r"scorer 'px' takes no option 'varient'; did you mean 'variant'"):
        registry.build("scorer", {"type": "px", "varient": "paper"})
    with pytest.raises(PxframeError, match="'type' must name a scorer"):
        registry.build("scorer", {"variant": "paper"})


def _parameters(hook):
    return [name for name in signature(hook).parameters if name != "register"]


def test_every_hook_is_documented():
    from pxframe.plugin import hookspecs

    hooks = [f for n, f in vars(hookspecs).items() if n.startswith("pxframe_")]
    assert len(hooks) == 4
    for hook in hooks:
        assert all(f"``{name}``" in hook.__doc__ or f"``{name}." in hook.__doc__ for name in _parameters(hook)), hook
