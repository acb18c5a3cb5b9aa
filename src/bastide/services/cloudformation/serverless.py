"""``AWS::Serverless-2016-10-31``: what the AWS Serverless Application Model's own translator makes of a template."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from bastide.domain import Refused
from bastide.engines.templates import SERVERLESS
from bastide.services.cloudformation.macros import Untransformed


def translated(raw: dict[str, Any], parameters: Mapping[str, Any], region: str) -> dict[str, Any]:
    """The template without the transform; raises Refused for what the translator refuses, or if it is not installed."""
    try:
        from boto3.session import Session  # noqa: PLC0415 - both are slow to load, and few templates want them
        from samtranslator.model.exceptions import InvalidDocumentException  # noqa: PLC0415
        from samtranslator.parser.parser import Parser  # noqa: PLC0415
        from samtranslator.translator.translator import Translator  # noqa: PLC0415
    except ImportError:
        raise Refused(
            "ValidationError",
            f"No transform named {SERVERLESS} found: it needs the extra `sam` (pip install 'bastide[sam]').",
        ) from None
    given = copy.deepcopy(raw)
    told = {name: value for name, value in parameters.items() if isinstance(value, str)}
    try:
        session = Session(region_name=region)
        made: dict[str, Any] = Translator({}, Parser(), boto_session=session).translate(given, parameter_values=told)
    except InvalidDocumentException as error:
        causes = "; ".join(str(one.message) for one in error.causes)
        raise Untransformed(f"Transform {SERVERLESS} failed with: {causes[:1000]}") from None
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
        raise Untransformed(f"Transform {SERVERLESS} failed with: the template is not understood.") from None
    left = made.get("Transform")
    if left == SERVERLESS:
        made.pop("Transform")
    elif isinstance(left, list):
        made["Transform"] = [one for one in left if one != SERVERLESS]
    made.pop("Globals", None)
    return made
