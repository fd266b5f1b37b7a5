"""Plug-ins that break, clash or are left out: the rest works, and the error says whose fault it is."""

import os
import subprocess
import sys
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
MISNAMED_VERSION = "HOOK_VERSION = 99\n" + GOOD.format(name="rainy")
REGISTER = """
import pxframe
class S(pxframe.Scorer):
    name, needs = "rainy", "nothing"
    def score(self, net, batches): return {{}}
class Duck:
    name = "rainy"
    def score(self, net, batches): return {{}}
class Idle(pxframe.Scorer):
    name = "rainy"
class Needy(S):
    needs = "a GPU"
def named(value):
    S.name = value
    return S
@pxframe.hookimpl
def pxframe_register(register):
    register.{call}
"""
WORDLESS = """
class Wordless(Exception):
    def __str__(self): raise RuntimeError
raise Wordless
"""
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


BAD_NAMES = (
    "../rainy",
    "/rainy",
    "a/b",
    "a b",
    "",
    ".",
    "..",
    "-x",
    "x\0",
    "x\n",
    "x\x1b[2J",
    "x:y",
    "n" * 81,
    3,
    None,
)


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
        ("raise GeneratorExit('odd')", "odd"),
        ("raise BaseException('\\x1b[2Jbase')", "BaseException: ?[2Jbase"),
        (WORDLESS, "Wordless"),
        (MISNAMED_VERSION, "HOOK_VERSION = 99; name the version of its hooks PXFRAME_HOOKS"),
        (REGISTER.format(call="scorer(S())"), "register.scorer takes a class, got <"),
        (REGISTER.format(call="scorer('S')"), "register.scorer takes a class, got 'S'"),
        (REGISTER.format(call="scorer(Duck)"), "Duck is not a subclass of pxframe.Scorer"),
        (REGISTER.format(call="backbone(S)"), "S is not a subclass of pxframe.Backbone"),
        (REGISTER.format(call="task(S)"), "S is not a subclass of pxframe.Task"),
        (REGISTER.format(call="scorer(Idle)"), "Idle has no method 'score' of its own"),
        (REGISTER.format(call="scorer(Needy)"), "'needs' must be one of"),
        (REGISTER.format(call="scorer(S, default=1)"), "'default' must be True or False, got 1"),
        (REGISTER.format(call="scorer(S, control='yes')"), "'control' must be True or False, got 'yes'"),
        *((REGISTER.format(call=f"scorer(named({name!r}))"), "the 'name' of S") for name in BAD_NAMES),
    ],
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
    assert loaded.owners["scorer", "sunny"] == "'sunny' of first-dist 0.7"
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


@pytest.mark.parametrize("error", ["SystemExit", "GeneratorExit", "BaseException"])
def test_an_observer_that_exits_stops_neither_the_work_nor_other_observers(install, load, error):
    install("nosy", f"import pxframe\n@pxframe.hookimpl\ndef pxframe_ticket_made(ticket): raise {error}('nosy')\n")
    polite = "import pxframe\n@pxframe.hookimpl\ndef pxframe_ticket_made(ticket): ticket.append(1)\n"
    install("attentive", polite)
    install("watchful", polite)
    loaded, seen = load(), []
    with pytest.warns(PluginWarning, match=f"{error}: nosy, in nosy = .*'nosy' of dist-nosy 0.7"):
        loaded.notify("pxframe_ticket_made", ticket=seen)
    assert seen == [1, 1]  # those before and behind it in the order of calls


def test_ctrl_c_in_an_observer_stops(install, load):
    install("nosy", "import pxframe\n@pxframe.hookimpl\ndef pxframe_ticket_made(ticket): raise KeyboardInterrupt\n")
    loaded = load()
    with pytest.raises(KeyboardInterrupt):
        loaded.notify("pxframe_ticket_made", ticket=None)


def test_ctrl_c_while_loading_stops_and_loading_begins_anew(install, load, monkeypatch):
    install(
        "sunny",
        "import builtins\nif not hasattr(builtins, 'pressed'):\n    raise KeyboardInterrupt\n"
        + GOOD.format(name="sun"),
    )
    install("rainy", "raise RuntimeError")
    kinds = {kind: Registry(kind, scope="pxframe") for kind in ("scorer", "backbone", "task")}
    fresh = Host()
    with pytest.raises(KeyboardInterrupt):
        fresh.load(kinds)
    monkeypatch.setattr("builtins.pressed", True, raising=False)
    with pytest.warns(PluginWarning, match="rainy"):
        fresh.load(kinds)
    assert [f.name for f in fresh.failures] == ["rainy"]
    assert {"px", "magnitude"} <= set(kinds["scorer"].module_dict)


def test_a_plug_in_without_hooks_is_named(install, load):
    """A folder of the same name in the current one is imported as an empty package, and would be missed silently."""
    install("rainy", "x = 1\n")
    with pytest.warns(PluginWarning, match="'rainy' .* has none of pxframe's hooks"):
        load()


@pytest.mark.slow
def test_the_command_lists_what_works(install, tmp_path):
    install("rainy", REGISTER.format(call="scorer(S())"))
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "dist-rainy")}
    code = "import sys; from pxframe_tools.cli import main; sys.exit(main(['list']))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "magnitude" in done.stdout
    assert "Traceback" not in done.stderr
    assert "'rainy' of dist-rainy 0.7 did not load: TypeError: register.scorer takes a class" in done.stderr


def test_what_is_installed_has_one_default_and_two_controls(load):
    load()
    assert registry.default_scorer() == "px"
    assert registry.controls() == ["dense", "random"]


MARKED = GOOD.replace("register.scorer(S)", "register.scorer(S, {mark}=True)")


def test_a_plugin_adds_a_control(install, load):
    install("adverse", MARKED.format(name="adverse", mark="control"))
    load()
    assert registry.controls() == ["adverse", "dense", "random"]


def test_two_defaults_are_one_error_that_names_both(install, load):
    install("sunny", MARKED.format(name="sunny", mark="default"))
    loaded = load()
    with pytest.raises(PxframeError) as caught:
        registry.default_scorer()
    text = str(caught.value)
    assert "\n" not in text
    assert f"'px' by {loaded.owners['scorer', 'px']} and 'sunny' by 'sunny' of dist-sunny 0.7" in text
    assert "--no-plugin" in text
    assert registry.build("scorer", "sunny").name == "sunny"  # by its name it works


def test_blocking_one_of_two_settles_the_default(install, load):
    install("sunny", MARKED.format(name="sunny", mark="default"))
    load(blocked=["px"])
    assert registry.default_scorer() == "sunny"


def test_no_default_says_so(install, load, monkeypatch):
    install("rainy", "raise RuntimeError('broken')")
    monkeypatch.setenv("PXFRAME_PLUGINS", "magnitude, random, rainy")
    with pytest.warns(PluginWarning):
        load()
    with pytest.raises(
        PxframeError,
        match=r"no plug-in registers a default scorer; name one; known: magnitude, random"
        r".*'rainy' of dist-rainy 0.7 did not load",
    ) as caught:
        registry.default_scorer()
    assert "\n" not in str(caught.value)
    assert registry.controls() == ["random"]


def test_a_claimed_name_is_no_control(install, load):
    install("adverse", MARKED.format(name="random", mark="control"))
    with pytest.warns(PluginWarning, match="claimed by two"):
        load()
    assert registry.controls() == ["dense"]


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
    for option in [*signature(host_module.Registrar.scorer).parameters][2:]:
        assert f"``register.scorer(cls, {option}=True)``" in hookspecs.pxframe_register.__doc__
    for hook in hooks:
        assert all(f"``{name}``" in hook.__doc__ or f"``{name}." in hook.__doc__ for name in _parameters(hook)), hook
