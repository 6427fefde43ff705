"""Write every option of `vllm serve` of one vLLM release to a JSON file, as its own parser knows them.

    python tools/dump_vllm_options.py FOLDER VERSION OUT.json [MODULE...]

Run it with the Python of an environment in which some release of vLLM works on the CPU. FOLDER holds the unpacked
package `vllm` of the wanted release (its compiled parts are not needed). MODULE names packages that the release
imports and that are not installed: they are replaced by empty ones, since no parser needs them.
"""

import argparse
import importlib
import importlib.abc
import importlib.machinery
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

COMPILED = ("vllm._C", "vllm._moe_C", "vllm._rocm_C", "vllm.vllm_flash_attn")
PARSERS = ("openai", "serve", "launchers", "common")  # where cli_args.py was, from 0.8 to 0.33


class Stand(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives an empty module for the names that are not there."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:  # noqa: ARG002
        if any(name == own or name.startswith(f"{own}.") for own in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Any:
        return MagicMock(__spec__=spec, __path__=[], __name__=spec.name, __file__="none", __version__="9.9.9")

    def exec_module(self, module: Any) -> None:
        """Nothing to run."""


def main(folder: str, version: str, target: str, *missing: str) -> None:
    sys.path.insert(0, folder)
    sys.argv = ["vllm", "serve", "--help=all"]  # without it the help texts are left out, deprecations with them
    sys.meta_path.insert(0, Stand((*COMPILED, *missing)))
    real = importlib.metadata.version
    importlib.metadata.version = lambda name: f"{version}+cpu" if name.startswith("vllm") else real(name)
    import transformers

    transformers.AutoConfig.register = staticmethod(lambda *_, **__: None)  # older releases register names known by now
    parser = _module("cli_args").make_arg_parser(_flexible_parser())
    actions = parser._actions  # noqa: SLF001 - argparse has no other way to list them
    options = {a.option_strings[0]: _describe(a) for a in actions if a.option_strings}
    Path(target).write_text(json.dumps(options, indent=1, default=str))
    print(version, len(options))


def _module(name: str) -> Any:
    for place in PARSERS:
        path = f"vllm.entrypoints.{place}.{name}"
        try:
            return importlib.import_module(path)
        except ModuleNotFoundError as error:
            if error.name is None or not path.startswith(error.name):
                raise
    raise SystemExit(f"no {name} in any of {PARSERS}")


def _flexible_parser() -> Any:
    try:
        from vllm.utils.argparse_utils import FlexibleArgumentParser
    except ImportError:
        from vllm.utils import FlexibleArgumentParser
    return FlexibleArgumentParser()


def _describe(action: argparse.Action) -> dict[str, Any]:
    return {
        "names": list(action.option_strings),
        "nargs": action.nargs,
        "takes_value": action.nargs != 0 and not isinstance(action, argparse.BooleanOptionalAction),
        "choices": [str(choice) for choice in action.choices] if action.choices else None,
        "default": action.default if isinstance(action.default, int | float | str | None) else str(action.default),
        "deprecated": bool(getattr(action, "deprecated", False)),
        "help": action.help or "",
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
