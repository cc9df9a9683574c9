"""Strategies from OptunaHub, by package name: `optunahub/samplers/auto_sampler`.

OptunaHub keeps what it has downloaded (~/.cache/optunahub, or OPTUNAHUB_CACHE_HOME): a check on a login node loads
the package once, and agents on nodes without a network find it there.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from types import ModuleType

from aimlhpo.strategies.errors import UnknownClassError, in_one_line
from aimlhpo.strategies.imported import attribute, is_own
from aimlhpo.suggestions import listing, show

PREFIX = "optunahub/"
FORM = "optunahub/PACKAGE, as in optunahub/samplers/auto_sampler; with @TAG or :CLASS behind it where needed"
_NAME = re.compile(
    r"optunahub/(?P<package>[\w-]+(/[\w-]+)*)(@(?P<ref>[\w-][\w.-]*))?(:(?P<name>[^\W\d]\w*))?", re.ASCII
)


def load(text: str, base: type) -> object:
    """What `optunahub/PACKAGE[@TAG][:CLASS]` names. Raises UnknownClassError."""
    match = _NAME.fullmatch(text)
    if match is None:
        raise UnknownClassError(f"{show(text)} is not a package of OptunaHub", FORM)
    module = _module(match["package"], match["ref"] or "main")
    return attribute(module, match["name"], base) if match["name"] else _only_class(text, module, base)


@cache
def _module(package: str, ref: str) -> ModuleType:
    """The package, downloaded where it is not there yet."""
    if find_spec("optunahub") is None:
        raise UnknownClassError("the package optunahub is not installed", "pip install 'aimlhpo[optunahub]'")
    try:
        import optunahub

        module: ModuleType = optunahub.load_module(package, ref=ref)
    except ModuleNotFoundError as error:
        legal = f"pip install {error.name}, or what the package's page on hub.optuna.org asks for"
        raise UnknownClassError(f"{package} needs the package {error.name}", legal) from error
    except FileNotFoundError as error:
        raise UnknownClassError(f"OptunaHub has no package {package}", FORM) from error
    except Exception as error:  # of git, of GitHub, of the package: nothing that is our own
        legal = (
            "a machine that reaches github.com, for the first time: then the package lies in "
            "~/.cache/optunahub (or OPTUNAHUB_CACHE_HOME) for the nodes, too"
        )
        raise UnknownClassError(f"{package} cannot be loaded from OptunaHub: {in_one_line(error)}", legal) from error
    return module


def _only_class(text: str, module: ModuleType, base: type) -> object:
    """The one strategy that the package offers."""
    offered = getattr(module, "__all__", None) or list(vars(module))
    held = [name for name in offered if is_own(getattr(module, name, None), base, module)]
    if len(held) == 1:
        return getattr(module, held[0])
    if held:
        raise UnknownClassError(f"{show(text)} holds {listing(held)}", "one of them", f"{text}:{held[0]}")
    raise UnknownClassError(f"{show(text)} holds no {base.__name__.removeprefix('Base').lower()}", FORM)
