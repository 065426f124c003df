"""The terms of the reward, one module each; a new term is a new module here, or any class of yours.

| term | weight | scores |
|---|---|---|
| `em` | `eta` | the answer match, of both roles together |
| `fm` | `lambda` | the format match, of each role's own turns |
| `lm` | `mu` | the length match, of both roles together, within the group |
| `rethink` | `rethink` | the short role's credit for asking again |

Every further term has its weight under `terms` of the reward's configuration, by its name (`terms: {brevity: 0.1}`)
or, for a class outside this package, by its dotted path (`terms: {"my_project.rewards.Brevity": 0.1}`).
"""

import importlib
import inspect
import pkgutil
from functools import cache

from longshort_reward.errors import UserError
from longshort_reward.terms.term import Term


@cache
def all_terms() -> dict[str, Term]:
    """The terms of this package by name, in the order in which they are added up."""
    modules = [importlib.import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    kinds = {
        kind
        for module in modules
        for kind in vars(module).values()
        if inspect.isclass(kind) and issubclass(kind, Term) and not inspect.isabstract(kind)
    }
    terms = sorted((kind() for kind in kinds), key=lambda term: (term.order, term.name))
    return {term.name: term for term in terms}


def find_term(name: str, key: str) -> Term:
    """The term called `name`, or the class at a dotted path. Raises UserError for `key` when there is none."""
    if name in all_terms():
        return all_terms()[name]
    module, _, attribute = name.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError) as error:
        raise UserError(key, name, f"cannot be imported ({error}); give the dotted path of a Term") from error
    if not (inspect.isclass(kind) and issubclass(kind, Term)):
        known = ", ".join(all_terms())
        raise UserError(key, name, f"is no term; known: {known}; or give the dotted path of a Term of yours")
    return kind()
