"""What plug-ins registered, by name: three mmengine registries of scope ``pxframe``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.registry import Registry
from torch import nn

from pxframe.base.errors import PxframeError, near
from pxframe.base.options import check_options
from pxframe.plugin.host import host

SCORERS = Registry("scorer", scope="pxframe")
BACKBONES = Registry("backbone", scope="pxframe")
TASKS = Registry("task", scope="pxframe")

_KINDS = {"scorer": SCORERS, "backbone": BACKBONES, "task": TASKS}


def names(kind: str) -> list[str]:
    """Sorted names of one kind (``"scorer"``, ``"backbone"``, ``"task"``) in this process."""
    _load()
    return sorted(_KINDS[kind].module_dict)


def scorers() -> list[str]:
    """Names of the registered scorers."""
    return names("scorer")


def backbones() -> list[str]:
    """Names of the registered backbone providers."""
    return names("backbone")


def tasks() -> list[str]:
    """Names of the registered task adapters."""
    return names("task")


def default_scorer() -> str:
    """Name of the scorer to use where the user names none: the one that a plug-in registered as default.

    Raises:
        PxframeError: no plug-in registered one, or several did.
    """
    _load()
    marked = [name for name in host().defaults if ("scorer", name) not in host().conflicts]
    if len(marked) > 1:
        claims = " and ".join(f"{name!r} by {host().owners['scorer', name]}" for name in marked)
        raise PxframeError(
            f"several scorers are registered as default: {claims}; name a scorer, or block one with --no-plugin"
        )
    if not marked:
        causes = "".join(f"; plug-in {failure}" for failure in host().failures)
        raise PxframeError(f"no plug-in registers a default scorer; name one{near('', names('scorer'))}{causes}")
    return marked[0]


def controls() -> list[str]:
    """Names of the scorers that every job adds to its comparison, in the order in which plug-ins registered them."""
    _load()
    return [name for name in host().controls if ("scorer", name) not in host().conflicts]


def build(kind: str, config: Mapping[str, Any] | str, where: str = "", beside: Iterable[str] = ()) -> Any:
    """Build what ``config`` describes: ``dict(type=NAME, **options)``, or a bare name.

    Args:
        where: the beginning of messages.
        beside: further keys that users may write into ``config``, and that have been taken out of it.

    Raises:
        PxframeError: unknown name (with near matches, and the plug-ins that failed to load), or an
            option its constructor does not take.
    """
    where = where or kind
    if not isinstance(config, (str, Mapping)):
        raise PxframeError(f"{where}: must be a dict(type=NAME, ...), got {config!r}")
    options: dict[str, Any] = {"type": config} if isinstance(config, str) else dict(config)
    name = options.pop("type", None)
    if not isinstance(name, str):
        raise PxframeError(f"{where}: 'type' must name a {kind}, got {name!r}{near('', names(kind))}")
    cls = find(kind, name)
    check_options(cls, options, f"{where} {name!r}", beside)
    return cls(**options)


def find(kind: str, name: str) -> type:
    """The class registered as ``name``, or an error that says why there is none."""
    _load()
    registry = _KINDS[kind]
    claims = host().conflicts.get((kind, name))
    if claims:
        raise PxframeError(
            f"{kind} {name!r} is claimed by two plug-ins: {' and '.join(claims)}; "
            f"block one with --no-plugin or PXFRAME_PLUGINS"
        )
    if name not in registry.module_dict:
        causes = "".join(f"; plug-in {failure}" for failure in host().failures_for(name))
        raise PxframeError(f"there is no {kind} {name!r}{near(name, registry.module_dict)}{causes}")
    return registry.module_dict[name]


def packages_of(kind: str, name: str) -> tuple[str, ...]:
    """Distributions that a plug-in's results depend on: its own, and those in its attribute ``packages``."""
    own = host().distribution(kind, name)
    return (*((own,) if own else ()), *getattr(find(kind, name), "packages", ()))


def build_backbone(config: Mapping[str, Any]) -> nn.Module:
    """Build a backbone from ``dict(type=PROVIDER, **options)``, e.g. ``dict(type="timm", model="resnet50")``."""
    options = dict(config)
    provider = build("backbone", {"type": options.pop("type", None)})
    check_options(provider.build, options, f"backbone {provider.name!r}")
    return provider.build(**options)


def _load() -> None:
    host().load(_KINDS)
