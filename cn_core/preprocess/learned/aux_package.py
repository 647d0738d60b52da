"""Networks of the package controlnet_aux (Apache-2.0), module by module.

Its own __init__ imports every detector, takes ten seconds, registers networks over timm's and fails where a MediaPipe
without `solutions` is installed. Its modules import each other relatively, so they work under another package's name.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from ...errors import ControlNetKitError

PACKAGES = ("controlnet-aux",)
TESTED = "controlnet-aux==0.0.10"
ALIAS = "controlnet_kit_aux"
"""A package of no code, whose modules are those of controlnet_aux."""


def aux_module(name: str) -> ModuleType:
    """The module controlnet_aux.NAME, such as "teed.ted". Raises ControlNetKitError where there is none that works."""
    if ALIAS not in sys.modules:
        spec = find_spec("controlnet_aux")  # looks, and imports nothing
        package = ModuleType(ALIAS)
        package.__path__ = list(spec.submodule_search_locations or ()) if spec else []
        sys.modules[ALIAS] = package
    try:
        return import_module(f"{ALIAS}.{name}")
    except ImportError as error:
        raise ControlNetKitError(
            f"The package controlnet_aux has no module {name} that can be imported ({error}). "
            f"Run: python -m pip install {TESTED}"
        ) from error
