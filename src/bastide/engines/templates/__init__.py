"""CloudFormation's template language: bodies in, checked templates and resolved values out. Knows no socket and no store.

Source: CloudFormation User Guide and Template Reference Guide.
"""

from bastide.engines.templates import includes, macros, parameters, rules, schema
from bastide.engines.templates.functions import FUNCTIONS, NO_VALUE, Scope, Unknown, resolve, text
from bastide.engines.templates.reading import MOST_BYTES, MOST_INLINE, STORED, parse, read, refused
from bastide.engines.templates.references import imports, references
from bastide.engines.templates.schema import LATER, preview
from bastide.engines.templates.template import (
    EXTENSIONS,
    INCLUDE,
    PSEUDO,
    SERVERLESS,
    Declared,
    Template,
    check_told,
    checked,
    policy,
    transforms_of,
    unrolled,
)

__all__ = [
    "EXTENSIONS",
    "FUNCTIONS",
    "INCLUDE",
    "LATER",
    "MOST_BYTES",
    "MOST_INLINE",
    "NO_VALUE",
    "PSEUDO",
    "SERVERLESS",
    "STORED",
    "Declared",
    "Scope",
    "Template",
    "Unknown",
    "check_told",
    "checked",
    "imports",
    "includes",
    "macros",
    "parameters",
    "parse",
    "policy",
    "preview",
    "read",
    "references",
    "refused",
    "resolve",
    "rules",
    "schema",
    "text",
    "transforms_of",
    "unrolled",
]
