"""JSONata as Step Functions has it: what is evaluated, with which functions, and which expressions are harmless.

Imports nothing of this package, for `jsonata_process` runs it without. Source: Step Functions developer guide,
"Transforming data with JSONata in Step Functions".
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
import threading
import uuid
from typing import Any, Final

import orjson
from jsonata import Jsonata
from jsonata.jexception import JException
from jsonata.utils import Utils

NOTHING: Final = object()
"""What an expression that finds nothing gives (undefined)."""
_MOST_ITEMS: Final = 1_000_000
_HASHES: Final = {"MD5": "md5", "SHA-1": "sha1", "SHA-256": "sha256", "SHA-384": "sha384", "SHA-512": "sha512"}
_MILLISECONDS: Final = 2000
_DEEPEST: Final = 300
_MOST_NODES: Final = 60
_LONGEST: Final = 16_384
"""Characters of an expression: reading one takes time that grows faster than it does."""
_JOINS: Final = 20
_HARMLESS: Final = frozenset(
    {
        "sum", "count", "max", "min", "average", "number", "abs", "floor", "ceil", "round", "power", "sqrt", "boolean",
        "not", "exists", "string", "length", "uppercase", "lowercase", "trim", "type", "keys", "append", "merge",
        "uuid", "random", "hash", "now", "millis", "parse", "substring", "substringBefore", "substringAfter",
        "fromMillis", "toMillis", "partition", "lookup", "distinct", "reverse", "base64encode", "base64decode",
    }
)  # fmt: skip
"""Functions whose work and result are in proportion to what they are given."""
_SIGNS: Final = frozenset({"+", "-", "*", "/", "%", "=", "!=", "<", "<=", ">", ">=", "and", "or", "&", "in"})


class Wrong(Exception):  # noqa: N818
    """An expression cannot be read, or fails; the text is code and message."""


def _told(error: Exception) -> str:
    code = getattr(error, "error", "") or ""
    return f"{code}: {error}" if code and not str(error).startswith(code) else str(error)


# -- functions of Step Functions -----------------------------------------------------------------------------------------


def _partition(items: Any, size: Any) -> Any:
    step = int(size)
    if step < 1:
        raise Wrong("the partition size must be a positive number")
    held = list(items) if isinstance(items, list) else [items]
    return [held[at : at + step] for at in range(0, len(held), step)]


def _range(first: Any, last: Any, by: Any) -> Any:
    if not by:
        raise Wrong("the increment must not be 0")
    count = max(0, math.floor((last - first) / by) + 1)
    if count > _MOST_ITEMS:
        raise Wrong(f"an array has at most {_MOST_ITEMS} items")
    found = [first + by * place for place in range(count)]
    return found[0] if count == 1 else found  # a sequence of one is that one


def _hash(value: Any, algorithm: Any = "SHA-256") -> str:
    name = _HASHES.get(algorithm)
    if name is None:
        raise Wrong(f"the algorithm must be one of {', '.join(_HASHES)}")
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else orjson.dumps(value)
    return hashlib.new(name, raw, usedforsecurity=False).hexdigest()


def _random(seed: Any = None) -> float:
    return random.Random(seed).random()  # noqa: S311 - the language's, no secret


def _parse(text: Any) -> Any:
    try:
        return orjson.loads(text)
    except (orjson.JSONDecodeError, TypeError):
        raise Wrong("the argument of $parse is not valid JSON") from None


def _eval(*_: Any) -> Any:
    raise Wrong("the function $eval is not supported; $parse reads JSON")


_FUNCTIONS: Final = {
    "partition": _partition,
    "range": _range,
    "hash": _hash,
    "random": _random,
    "uuid": lambda: str(uuid.uuid4()),
    "parse": _parse,
    "eval": _eval,
}


# -- reading and evaluating ----------------------------------------------------------------------------------------------

_held = threading.local()


@functools.lru_cache(2048)
def wrong(text: str) -> str:
    """Why a text is no expression; empty if it is one."""
    if len(text) > _LONGEST:
        return f"an expression has at most {_LONGEST} characters"
    try:
        Jsonata(text)
    except JException as error:
        return _told(error)
    except RecursionError:
        return "the expression is nested too deeply"
    except Exception as error:
        return f"the expression cannot be read: {error}"
    return ""


def _parsed(text: str) -> Jsonata:
    known: dict[str, Jsonata] | None = getattr(_held, "known", None)
    if known is None:
        known = _held.known = {}
    found = known.get(text)
    if found is None:
        if len(text) > _LONGEST:
            raise Wrong(f"an expression has at most {_LONGEST} characters")
        try:
            found = Jsonata(text)
        except JException as error:
            raise Wrong(_told(error)) from None
        except Exception as error:
            raise Wrong(f"the expression cannot be read: {error}") from None
        found.set_output_convert_nulls(False)
        found.set_validate_input(False)
        for name, function in _FUNCTIONS.items():
            found.environment.bind(name, Jsonata.JLambda(function))
        if len(known) > 500:
            known.clear()
        known[text] = found
    return found


def evaluate(text: str, names: dict[str, Any]) -> Any:
    """What an expression gives with these variables, or NOTHING. Raises Wrong."""
    expression = _parsed(text)
    Jsonata.CURRENT.jsonata = expression
    frame = expression.create_frame(expression.environment)
    for name, value in names.items():
        frame.bind(name, value)
    if not harmless(text):
        frame.set_runtime_bounds(_MILLISECONDS, _DEEPEST)
    try:
        found = expression.evaluate(None, frame)
    except JException as error:
        raise Wrong(_told(error)) from None
    except (Wrong, MemoryError):
        raise
    except RecursionError:
        raise Wrong("the expression is nested too deeply") from None
    except Exception as error:
        raise Wrong(f"{error}") from None
    return NOTHING if found is None else plain(found, 0)


def plain(value: Any, deep: int) -> Any:
    """A result as JSON: whole numbers without a fraction, lists and objects of the plain kind."""
    if value is Utils.NULL_VALUE or value is None:
        return None
    if isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise Wrong("D1001: the result is a number out of range")
        return int(value) if value.is_integer() and abs(value) < 1 << 53 else value
    if deep > _DEEPEST:
        raise Wrong("the result is nested too deeply")
    if isinstance(value, dict):
        return {str(key): plain(one, deep + 1) for key, one in value.items()}
    if isinstance(value, (list, tuple, range)) or hasattr(value, "__getitem__"):
        return [plain(one, deep + 1) for one in value]
    raise Wrong("the result is a function, which is no JSON")


# -- what may be evaluated where it stands -------------------------------------------------------------------------------


@functools.lru_cache(4096)
def harmless(text: str) -> bool:
    """Whether an expression's work and result are in proportion to what it is given, whatever that is: paths, comparisons
    and the like, without functions of its own, patterns, or anything done for each of many."""
    try:
        return len(text) < 5000 and text.count("&") <= _JOINS and _flat(Jsonata(text).ast, [_MOST_NODES])
    except Exception:
        return False


def _flat(node: Any, left: list[int]) -> bool:
    left[0] -= 1
    if node is None:
        return True
    if left[0] < 0 or getattr(node, "group", None) or getattr(node, "predicate", None) or getattr(node, "stages", None):
        return False
    kind = node.type
    if kind in ("string", "number", "value", "variable"):
        return True
    if kind == "path":
        return all(_step(one, place == 0, left) for place, one in enumerate(node.steps))
    if kind == "binary":
        return node.value in _SIGNS and _flat(node.lhs, left) and _flat(node.rhs, left)
    if kind == "condition":
        return _flat(node.condition, left) and _flat(node.then, left) and _flat(getattr(node, "_else", None), left)
    if kind == "unary":
        if node.value == "[":
            return all(_flat(one, left) for one in node.expressions)
        if node.value == "{":
            return all(_flat(key, left) and _flat(one, left) for key, one in node.lhs_object)
        return node.value == "-" and _flat(getattr(node, "expression", None), left)
    if kind == "function":
        named = node.procedure.type == "variable" and node.procedure.value in _HARMLESS
        return named and all(_flat(one, left) for one in node.arguments)
    return False


def _step(node: Any, first: bool, left: list[int]) -> bool:
    stages = [*(getattr(node, "stages", None) or ()), *(getattr(node, "predicate", None) or ())]
    left[0] -= 1 + len(stages)
    if left[0] < 0 or any(one.type != "filter" or one.expr.type != "number" for one in stages):
        return False
    if getattr(node, "group", None) or getattr(node, "tuple", None):
        return False
    if node.type == "name":
        return True
    return first and (node.type in ("variable", "string") or (node.type == "function" and _flat(node, left)))
