"""The rules, one module a subject. Facts in, findings out; nothing here touches the outside."""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules

from atoll.doctor.rule import Rule


@cache
def all_rules() -> tuple[Rule, ...]:
    """Every rule of the modules of this folder, by number."""
    modules = [import_module(f"{__name__}.{found.name}") for found in iter_modules(__path__)]
    rules = [value for module in modules for value in vars(module).values() if isinstance(value, Rule)]
    return tuple(sorted(rules, key=lambda rule: rule.id))
