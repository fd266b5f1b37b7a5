"""Finds plug-ins by entry point and loads each on its own, so that one broken plug-in breaks nothing else."""

from __future__ import annotations

import os
import re
import reprlib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, get_args

import pluggy
from mmengine.registry import Registry

from pxframe.base import ranks
from pxframe.base.errors import PluginWarning, PxframeError, near, printable
from pxframe.plugin import hookspecs
from pxframe.plugin.backbone import Backbone
from pxframe.plugin.task import Task
from pxframe.scoring.scorer import Needs, Scorer

GROUP = "pxframe"
VARIABLE = "PXFRAME_PLUGINS"

_NAME, _LONGEST = re.compile(r"[^\W_][\w.+-]*"), 80


@dataclass(frozen=True)
class Failure:
    """A plug-in that did not load: entry-point name, the distribution it came in, and the cause."""

    name: str
    owner: str
    cause: str

    def __str__(self) -> str:
        return f"{self.owner} did not load: {self.cause}"


@dataclass(frozen=True)
class Claim:
    """What a plug-in registers: a class of one kind under a name."""

    kind: str
    name: str
    cls: type
    default: bool = False
    control: bool = False


class Registrar:
    """What ``pxframe_register`` is called with; holds a plug-in's claims until all of them are known."""

    def __init__(self) -> None:
        self.claims: list[Claim] = []

    def scorer(self, cls: type, *, default: bool = False, control: bool = False) -> type:
        """Register a :class:`pxframe.Scorer` subclass under its ``name``.

        Args:
            default: it is used where the user names no scorer. One scorer of all plug-ins may be.
            control: every job adds it to its comparison, beside each ticket.
        """
        for option, value in {"default": default, "control": control}.items():
            if not isinstance(value, bool):
                raise TypeError(f"register.scorer: {option!r} must be True or False, got {value!r}")
        self._claim("scorer", cls, Scorer, "score", default=default, control=control)
        needs = getattr(cls, "needs", None)
        if needs not in get_args(Needs):
            raise TypeError(f"register.scorer: 'needs' must be one of {', '.join(get_args(Needs))}; got {needs!r}")
        return cls

    def backbone(self, cls: type) -> type:
        """Register a :class:`pxframe.Backbone` provider under its ``name``."""
        return self._claim("backbone", cls, Backbone, "build")

    def task(self, cls: type) -> type:
        """Register a :class:`pxframe.Task` adapter under its ``name``."""
        return self._claim("task", cls, Task, "runner")

    def _claim(self, kind: str, cls: Any, base: Any, method: str, **marks: bool) -> type:
        if not isinstance(cls, type):
            raise TypeError(f"register.{kind} takes a class, got {reprlib.repr(cls)}")
        if not issubclass(cls, base):
            raise TypeError(f"register.{kind}: {cls.__name__} is not a subclass of pxframe.{base.__name__}")
        name = getattr(cls, "name", None)
        if not (isinstance(name, str) and len(name) <= _LONGEST and _NAME.fullmatch(name)):
            raise TypeError(
                f"register.{kind}: the 'name' of {cls.__name__} is part of file names: it must be 1 to {_LONGEST} "
                f"letters, digits, '_', '-', '.' or '+', a letter or digit first; got {reprlib.repr(name)}"
            )
        if getattr(cls, method) is getattr(base, method):
            raise TypeError(f"register.{kind}: {cls.__name__} has no method {method!r} of its own")
        self.claims.append(Claim(kind, name, cls, **marks))
        return cls


class Host:
    """The loaded plug-ins. ``blocked`` are entry-point names left out."""

    def __init__(self, blocked: Iterable[str] = ()) -> None:
        self.manager = _manager()
        self.blocked = frozenset(blocked)
        self.failures: list[Failure] = []
        self.conflicts: dict[tuple[str, str], list[str]] = {}
        self.owners: dict[tuple[str, str], str] = {}
        #: Names of the scorers marked as default and as control, in the order of the entry points' names.
        self.defaults: list[str] = []
        self.controls: list[str] = []
        self._distributions: dict[tuple[str, str], str] = {}
        self._loaded = False

    def load(self, registries: Mapping[str, Registry]) -> None:
        """Load every entry point once and fill ``registries`` (by kind)."""
        if self._loaded:
            return
        wanted = self._wanted()  # an unknown name is refused every time, not only the first
        loaded = []
        for point in wanted:
            owner = _owner(point)
            try:
                loaded.append((point, owner, *_plug(point)))
            except KeyboardInterrupt:  # the user's Ctrl-C; nothing has been filled yet, so loading may begin anew
                self.failures.clear()
                raise
            except BaseException as error:  # a plug-in may fail in any way, SystemExit included; the others go on
                self.failures.append(Failure(point.name, owner, _cause(error)))
        self._loaded = True
        for point, owner, plugin, claims in loaded:
            self.manager.register(plugin, name=f"{point.name} = {point.value} ({owner})")
            for claim in claims:
                self._settle(registries[claim.kind], claim, owner)
                if point.dist is not None:
                    self._distributions[claim.kind, claim.name] = point.dist.name
        for failure in self.failures:
            warnings.warn(f"plug-in {failure}", PluginWarning, stacklevel=2)
        for (kind, name), owners in self.conflicts.items():
            text = f"{kind} {name!r} is claimed by two plug-ins: {' and '.join(owners)}"
            warnings.warn(text, PluginWarning, stacklevel=2)

    def distribution(self, kind: str, name: str) -> str | None:
        """Name of the installed distribution that registered a plug-in; None where that is not known."""
        return self._distributions.get((kind, name))

    def failures_for(self, name: str) -> list[Failure]:
        """The failed plug-ins that ``name`` may have come from: those named like it, else all."""
        return [f for f in self.failures if f.name == name] or self.failures

    def notify(self, hook: str, **arguments: Any) -> None:
        """Tell observers, on rank 0 alone where there are several.

        An observer that fails is reported; the other observers and the work they watch go on.
        """
        if not ranks.is_main():
            return
        observers = {id(impl.plugin): impl.plugin for impl in getattr(self.manager.hook, hook).get_hookimpls()}
        for observer in observers.values():
            others = [other for other in observers.values() if other is not observer]
            try:
                self.manager.subset_hook_caller(hook, others)(**arguments)
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # SystemExit included: an observer does not end the job it watches
                text = f"an observer of {hook} failed: {_cause(error)}, in {self.manager.get_name(observer)}"
                warnings.warn(text, PluginWarning, stacklevel=2)

    def _wanted(self) -> list[EntryPoint]:
        points = sorted(entry_points(group=GROUP), key=lambda p: (p.name, p.value))
        points = list({(p.name, p.value, _owner(p)): p for p in points}.values())  # one path twice on sys.path
        known = {p.name for p in points}
        for name in self.blocked - known:
            raise PxframeError(f"--no-plugin {name}: there is no such plug-in{near(name, known)}")
        chosen = known
        if VARIABLE in os.environ:
            chosen = {name.strip() for name in os.environ[VARIABLE].split(",") if name.strip()}
            for name in sorted(chosen - known):
                raise PxframeError(
                    f"{VARIABLE} lists {name!r}, which no installed plug-in is called{near(name, known)}"
                )
        return [p for p in points if p.name in chosen and p.name not in self.blocked]

    def _settle(self, registry: Registry, claim: Claim, owner: str) -> None:
        key = (claim.kind, claim.name)
        if key in self.owners:
            self.conflicts.setdefault(key, [self.owners[key]]).append(owner)
            registry.module_dict.pop(claim.name, None)
            return
        self.owners[key] = owner
        registry.register_module(name=claim.name, module=claim.cls, force=True)
        self.defaults += [claim.name] if claim.default else []
        self.controls += [claim.name] if claim.control else []


@cache
def _hosts() -> list[Host]:
    return [Host()]


def host() -> Host:
    """The process's plug-in host."""
    return _hosts()[0]


def block(names: Iterable[str]) -> None:
    """Leave plug-ins out by entry-point name; call it before anything is loaded (``--no-plugin``)."""
    if host()._loaded:
        raise RuntimeError("plug-ins are already loaded")
    _hosts()[0] = Host(names)


def _plug(point: EntryPoint) -> tuple[Any, list[Claim]]:
    """Import a plug-in and run its registration, which nothing else has seen by then."""
    plugin = point.load()
    version = getattr(plugin, "PXFRAME_HOOKS", None)
    if version is None:
        version = hookspecs.HOOK_VERSION
        if getattr(plugin, "HOOK_VERSION", version) != version:
            raise TypeError(
                f"it states HOOK_VERSION = {plugin.HOOK_VERSION!r}; name the version of its hooks PXFRAME_HOOKS"
            )
    if version != hookspecs.HOOK_VERSION:
        raise TypeError(f"built for hook version {version}, this is version {hookspecs.HOOK_VERSION}")
    # A registration that fails half-way would stay in the manager, so it is tried on a scratch one.
    trial = _manager()
    trial.register(plugin)
    trial.check_pending()
    if not trial.get_hookcallers(plugin):
        raise TypeError(f"has none of pxframe's hooks; {plugin!r} was imported")
    registrar = Registrar()
    trial.hook.pxframe_register(register=registrar)
    return plugin, registrar.claims


def _cause(error: BaseException) -> str:
    """One line of printable text, also where the error's own words fail."""
    try:
        text = f"{type(error).__name__}: {error}"
    except Exception:
        text = type(error).__name__
    return printable(text)[:300]


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("pxframe")
    manager.add_hookspecs(hookspecs)
    return manager


def _owner(point: EntryPoint) -> str:
    dist = point.dist
    return f"{point.name!r} of {dist.name} {dist.version}" if dist else repr(point.name)
