"""Finds plug-ins by entry point and loads each on its own, so that one broken plug-in breaks nothing else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from mmengine.registry import Registry

from pxframe.base.errors import PxframeError, near
from pxframe.plugin import hookspecs

GROUP = "pxframe"
VARIABLE = "PXFRAME_PLUGINS"


@dataclass(frozen=True)
class Failure:
    """A plug-in that did not load: entry-point name, the distribution it came in, and the cause."""

    name: str
    owner: str
    cause: str

    def __str__(self) -> str:
        return f"{self.owner} did not load: {self.cause}"


class Registrar:
    """What ``pxframe_register`` is called with; holds a plug-in's claims until all of them are known."""

    def __init__(self) -> None:
        self.claims: list[tuple[str, str, type]] = []
        self.default: str | None = None

    def scorer(self, cls: type, default: bool = False) -> type:
        """Register a :class:`pxframe.Scorer` subclass under its ``name``; ``default``: used where none is named."""
        self._claim("scorer", cls, "score")
        if default:
            self.default = cls.name  # type: ignore[attr-defined]
        return cls

    def backbone(self, cls: type) -> type:
        """Register a :class:`pxframe.Backbone` provider under its ``name``."""
        return self._claim("backbone", cls, "build")

    def task(self, cls: type) -> type:
        """Register a :class:`pxframe.Task` adapter under its ``name``."""
        return self._claim("task", cls, "runner")

    def _claim(self, kind: str, cls: type, method: str) -> type:
        name = getattr(cls, "name", None)
        if not (isinstance(name, str) and name and callable(getattr(cls, method, None))):
            raise TypeError(f"{kind} {cls!r} needs a string 'name' and a method '{method}'")
        self.claims.append((kind, name, cls))
        return cls


class Host:
    """The loaded plug-ins. ``blocked`` are entry-point names left out."""

    def __init__(self, blocked: Iterable[str] = ()) -> None:
        self.manager = _manager()
        self.blocked = frozenset(blocked)
        self.failures: list[Failure] = []
        self.conflicts: dict[tuple[str, str], list[str]] = {}
        self.default: str | None = None
        self._owners: dict[tuple[str, str], str] = {}
        self._distributions: dict[tuple[str, str], str] = {}
        self._loaded = False

    def load(self, registries: Mapping[str, Registry]) -> None:
        """Load every entry point once and fill ``registries`` (by kind)."""
        if self._loaded:
            return
        wanted = self._wanted()  # an unknown name is refused every time, not only the first
        self._loaded = True
        for point in wanted:
            owner = _owner(point)
            try:
                claims = self._plug(point)
            except (Exception, SystemExit) as error:  # a plug-in may fail in any way; none may take the others down
                cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
                self.failures.append(Failure(point.name, owner, cause))
            else:
                for kind, name, cls in claims:
                    self._settle(registries[kind], kind, name, cls, owner)
                    if point.dist is not None:
                        self._distributions[kind, name] = point.dist.name
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
        """Tell observers. An observer that fails is reported; the work it watched goes on."""
        try:
            getattr(self.manager.hook, hook)(**arguments)
        except Exception as error:
            warnings.warn(f"an observer of {hook} failed: {type(error).__name__}: {error}", PluginWarning, stacklevel=2)

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

    def _plug(self, point: EntryPoint) -> list[tuple[str, str, type]]:
        plugin = point.load()
        version = getattr(plugin, "PXFRAME_HOOKS", hookspecs.HOOK_VERSION)
        if version != hookspecs.HOOK_VERSION:
            raise TypeError(f"built for hook version {version}, this is version {hookspecs.HOOK_VERSION}")
        # A registration that fails half-way would stay in the manager, so it is tried on a scratch one first.
        trial = _manager()
        trial.register(plugin)
        trial.check_pending()
        registrar = Registrar()
        trial.hook.pxframe_register(register=registrar)
        self.manager.register(plugin, name=f"{point.name} = {point.value} ({_owner(point)})")
        self.default = registrar.default or self.default
        return registrar.claims

    def _settle(self, registry: Registry, kind: str, name: str, cls: type, owner: str) -> None:
        key = (kind, name)
        if key in self._owners:
            self.conflicts.setdefault(key, [self._owners[key]]).append(owner)
            registry.module_dict.pop(name, None)
            return
        self._owners[key] = owner
        registry.register_module(name=name, module=cls, force=True)


class PluginWarning(UserWarning):
    """A plug-in was left out, or failed while watching."""


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


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager("pxframe")
    manager.add_hookspecs(hookspecs)
    return manager


def _owner(point: EntryPoint) -> str:
    dist = point.dist
    return f"{point.name!r} of {dist.name} {dist.version}" if dist else repr(point.name)
