"""ValidatePolicy: findings about a policy, with the place of each.

Source: Access Analyzer API reference; IAM User Guide, "Access Analyzer policy check reference", which has
the issue codes.
The checks that need AWS's list of all actions and keys of all services are not there.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from bastide.domain import Refused
from bastide.kernel import Ask, Authorised, Output, anything, pages
from bastide.policy import OPERATORS, Document, Form
from bastide.services.accessanalyzer.noun import POLICY
from bastide.services.accessanalyzer.places import Node, Path, Unreadable, position, read
from bastide.store import View

_FORMS: Final = {
    "IDENTITY_POLICY": Form.IDENTITY,
    "RESOURCE_POLICY": Form.RESOURCE,
    "SERVICE_CONTROL_POLICY": Form.SCP,
    "RESOURCE_CONTROL_POLICY": Form.RCP,
}
_LARGEST: Final = 64 * 1024
_LEARN: Final = (
    "https://docs.aws.amazon.com/IAM/latest/UserGuide/access-analyzer-reference-policy-checks.html"
    "#access-analyzer-reference-policy-checks-{kind}-{code}"
)
_KINDS: Final = {"ERROR": "error", "SECURITY_WARNING": "security-warning", "WARNING": "general-warning",
                 "SUGGESTION": "suggestion"}  # fmt: skip
_SERVICE_PRINCIPAL_KEYS: Final = ("aws:sourcearn", "aws:sourceaccount", "aws:sourceorgid", "aws:sourceorgpaths")
_MULTIVALUED: Final = re.compile(
    r"aws:(tagkeys|calledvia|.*orgpaths|principalservicenameslist)|(?!aws:).*", re.IGNORECASE
)
"""Keys that may have several values: of the global ones few, of services' own any that is not known better."""


@dataclass(frozen=True, slots=True)
class _Finding:
    kind: str
    code: str
    details: str
    node: Node | None
    start: int
    end: int
    path: Path


class _Seen:
    """Patterns already met; of those with wildcards as many as are worth comparing."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._wild: list[str] = []

    def covering(self, text: str) -> str | None:
        """An earlier pattern that includes this one, which is remembered."""
        found = text if text in self._texts else next((one for one in self._wild if _covers(one, text)), None)
        self._texts.add(text)
        if "*" in text and len(self._wild) < 100:
            self._wild.append(text)
        return found


class _Checks:
    """The findings of one document."""

    def __init__(self, text: str, form: Form) -> None:
        self.text = text
        self.form = form
        self.found: list[_Finding] = []
        self.version = "2008-10-17"

    def add(self, kind: str, code: str, details: str, node: Node) -> None:
        self.found.append(_Finding(kind, code, details, node, node.start, node.end, node.path))

    def run(self) -> list[_Finding]:
        try:
            whole = read(self.text)
        except Unreadable as fault:
            place = position(self.text, fault.at)
            details = f"Fix the JSON syntax error at index {fault.at} line {place['line']} column {place['column']}."
            self.found.append(_Finding("ERROR", "JSON_SYNTAX_ERROR", details, None, fault.at, fault.at, ()))
            return self.found
        if whole.kind != "object":
            self.add("ERROR", "DATA_TYPE_MISMATCH", "The policy must be a JSON object.", whole)
            return self.found
        self._members(whole, ("Version", "Id", "Statement"), "policy")
        version = whole.get("Version")
        if version is None:
            self.add(
                "WARNING",
                "MISSING_VERSION",
                "We recommend that you specify the Version element to help you with debugging permission issues.",
                whole,
            )
        elif version.value not in ("2012-10-17", "2008-10-17"):
            self.add("ERROR", "INVALID_VERSION", f"The version {version.value} is not valid. Use 2012-10-17.", version)
        else:
            self.version = version.value
        statements = whole.get("Statement")
        if statements is None or not list(statements.each()):
            self.add("ERROR", "MISSING_STATEMENT", "Add a statement to the policy.", whole)
            return self.found
        sids: dict[str, Node] = {}
        for statement in statements.each():
            if statement.kind != "object":
                self.add("ERROR", "DATA_TYPE_MISMATCH", "A statement must be a JSON object.", statement)
                continue
            self._statement(statement)
            sid = statement.get("Sid")
            if sid is not None and sid.value:
                if sid.value in sids and self.form is not Form.RESOURCE:
                    self.add("ERROR", "UNIQUE_SIDS_REQUIRED", "Duplicate statement IDs are not supported.", sid)
                elif sid.value in sids:
                    self.add("WARNING", "UNIQUE_SIDS_RECOMMENDED", "We recommend that statement IDs are unique.", sid)
                sids[sid.value] = sid
        if not any(one.kind == "ERROR" for one in self.found):
            self._parse(whole)
        return self.found

    def _parse(self, whole: Node) -> None:
        """What the platform itself would refuse when the policy is written, if no check above has said it."""
        try:
            Document.parse(self.text, self.form)
        except Refused as refused:
            self.add("ERROR", "POLICY_SYNTAX_ERROR", refused.message, whole)

    def _members(self, node: Node, known: tuple[str, ...], what: str) -> None:
        seen: set[str] = set()
        for key, place, value in node.members:
            if key.lower() in seen:
                self.add(
                    "ERROR",
                    "DUPLICATE_KEYS_WITH_DIFFERENT_CASE",
                    f"The key {key} appears more than once. Remove the duplicate.",
                    value,
                )
            seen.add(key.lower())
            if key not in known:
                path = (*node.path, key)
                self.found.append(
                    _Finding(
                        "ERROR",
                        "INVALID_POLICY_ELEMENT",
                        f"The {what} element {key} is not valid.",
                        value,
                        place,
                        value.end,
                        path,
                    )
                )

    # -- a statement -----------------------------------------------------------------------------------------------------

    def _statement(self, node: Node) -> None:
        self._members(
            node,
            (
                "Sid",
                "Effect",
                "Principal",
                "NotPrincipal",
                "Action",
                "NotAction",
                "Resource",
                "NotResource",
                "Condition",
            ),
            "statement",
        )
        sid = node.get("Sid")
        if sid is not None and sid.value == "":
            self.add("SUGGESTION", "EMPTY_SID_VALUE", "Add a value to the empty string in the Sid element.", sid)
        elif sid is not None and self.form is not Form.RESOURCE and not re.fullmatch(r"[0-9A-Za-z]+", sid.value):
            self.add("ERROR", "UNSUPPORTED_SID", "Update the characters in the Sid element to [0-9A-Za-z].", sid)
        effect = node.get("Effect")
        if effect is None:
            self.add("ERROR", "MISSING_EFFECT", "Add an Effect element with a value of Allow or Deny.", node)
        elif effect.value not in ("Allow", "Deny"):
            self.add("ERROR", "INVALID_EFFECT", f"The Effect {effect.value} is not valid. Use Allow or Deny.", effect)
        allow = effect is not None and effect.value == "Allow"
        for one, other in (("Action", "NotAction"), ("Resource", "NotResource"), ("Principal", "NotPrincipal")):
            both = node.get(other)
            if node.get(one) is not None and both is not None:
                self.add(
                    "ERROR",
                    "UNSUPPORTED_ELEMENT_COMBINATION",
                    f"The elements {one} and {other} exclude each other.",
                    both,
                )
        actions = node.get("Action") or node.get("NotAction")
        if actions is None:
            self.add("ERROR", "MISSING_ACTION", "Add an Action or NotAction element to the policy statement.", node)
        else:
            self._actions(actions)
        resources = node.get("Resource") or node.get("NotResource")
        if resources is None:
            if self.form not in (Form.RESOURCE, Form.TRUST):
                self.add(
                    "ERROR", "MISSING_RESOURCE", "Add a Resource or NotResource element to the policy statement.", node
                )
        elif self.form is Form.TRUST:
            self.add("ERROR", "UNSUPPORTED_ELEMENT", "A role trust policy takes no Resource element.", resources)
        else:
            self._resources(resources)
        self._principals(node, allow)
        if allow:
            self._pass_role(node)
        condition = node.get("Condition")
        if condition is not None:
            self._conditions(condition)
        if allow:
            self._service_principal(node)

    def _actions(self, actions: Node) -> None:
        if actions.kind == "array" and not actions.items:
            self.add("SUGGESTION", "EMPTY_ARRAY_ACTION", "This statement includes no actions and has no effect.",
                     actions)  # fmt: skip
        seen = _Seen()
        for one in actions.each():
            text = one.value
            if text != "*" and not re.fullmatch(r"[A-Za-z0-9-]+:[A-Za-z0-9*?]+", text):
                prefix, colon, _ = text.partition(":")
                if colon and ("*" in prefix or "?" in prefix):
                    self.add(
                        "SUGGESTION",
                        "WILDCARD_IN_SERVICE_NAME",
                        f"Avoid the wildcard in the service name of {text}: it includes services of the future.",
                        one,
                    )
                else:
                    self.add(
                        "ERROR",
                        "INVALID_ACTION",
                        f"The action {text} does not exist: the form is service:Action.",
                        one,
                    )
            other = seen.covering(text.lower())
            if other is not None:
                self.add("SUGGESTION", "REDUNDANT_ACTION", f"{text} is included in {other}.", one)

    def _resources(self, resources: Node) -> None:
        if resources.kind == "array" and not resources.items:
            self.add("SUGGESTION", "EMPTY_ARRAY_RESOURCE", "This statement includes no resources and does not affect the "
                     "policy.", resources)  # fmt: skip
        seen = _Seen()
        for one in resources.each():
            text = one.value
            if text != "*":
                if not text.startswith("arn:"):
                    self.add("ERROR", "INVALID_ARN_PREFIX", "Add the required prefix (arn) to the resource ARN.", one)
                elif "${" not in text:
                    self._arn(text, one)
            self._variables(text, one)
            other = seen.covering(text)
            if other is not None:
                self.add("SUGGESTION", "REDUNDANT_RESOURCE", f"{text} is included in {other}.", one)

    def _arn(self, text: str, node: Node) -> None:
        parts = text.split(":", 5)
        if len(parts) < 6 and "*" not in parts[-1]:
            self.add("ERROR", "MISSING_ARN_FIELD", "Resource ARNs must include at least 6 fields.", node)
            return
        if len(parts) > 1 and not re.fullmatch(r"aws(-[a-z-]+)?|\*", parts[1]):
            self.add("ERROR", "INVALID_PARTITION", f"The partition {parts[1]} is not valid.", node)
        if len(parts) > 2 and parts[2] != parts[2].lower():
            self.add("ERROR", "INVALID_ARN_SERVICE_CASE", f"Update the service name {parts[2]} to lower case.", node)
        account = parts[4] if len(parts) > 4 else ""
        wild = ("*" in account or "?" in account) and not set(account) - set("0123456789*?")
        if account and not (wild or account == "aws" or re.fullmatch(r"[0-9]{12}", account)):
            self.add(
                "ERROR", "INVALID_ARN_ACCOUNT", f"The account ID {account} in the resource ARN is not valid.", node
            )

    def _variables(self, text: str, node: Node) -> None:
        for found in re.finditer(r"\$\{([^}]*)(\}?)", text):
            inside, closed = found.groups()
            if not closed:
                self.add(
                    "ERROR", "MISSING_BRACE_IN_VARIABLE", f"The policy variable {text} has no closing brace.", node
                )
            elif not inside:
                self.add("ERROR", "EMPTY_VARIABLE", "Empty policy variable. Remove the ${ } structure.", node)
            elif self.version != "2012-10-17" and inside not in ("*", "?", "$"):
                self.add(
                    "ERROR",
                    "VARIABLE_UNSUPPORTED_IN_VERSION",
                    f"Include the version 2012-10-17 to use the policy variable ${{{inside}}}.",
                    node,
                )

    # -- principals --------------------------------------------------------------------------------------------------------

    def _principals(self, node: Node, allow: bool) -> None:
        principal, opposite = node.get("Principal"), node.get("NotPrincipal")
        given = principal or opposite
        if self.form in (Form.IDENTITY, Form.SCP):
            if given is not None:
                self.add(
                    "ERROR", "UNSUPPORTED_PRINCIPAL", "The policy type does not support a Principal element.", given
                )
            return
        if given is None:
            self.add("ERROR", "MISSING_PRINCIPAL", "Add a Principal element to the policy statement.", node)
            return
        if opposite is not None and allow:
            self.add(
                "SECURITY_WARNING",
                "ALLOW_WITH_NOT_PRINCIPAL",
                "Using Allow with NotPrincipal can be overly permissive. We recommend that you use Principal instead.",
                opposite,
            )
        if given.kind != "object":
            if given.value != "*":
                self.add(
                    "ERROR",
                    "INVALID_PRINCIPAL_FORMAT",
                    "The Principal is * or an object of kinds of principals.",
                    given,
                )
            return
        for key, _, value in given.members:
            if key not in ("AWS", "Service", "Federated", "CanonicalUser"):
                self.add("ERROR", "INVALID_PRINCIPAL_KEY", f"The principal key {key} is not valid.", value)
            for one in value.each():
                if one.value != "*" and "*" in one.value:
                    self.add(
                        "ERROR",
                        "UNSUPPORTED_WILDCARD_IN_PRINCIPAL",
                        "Wildcards (*) are not supported within a principal. Replace it with a valid principal value.",
                        one,
                    )

    def _service_principal(self, node: Node) -> None:
        principal = node.get("Principal")
        service = principal.get("Service") if principal is not None and principal.kind == "object" else None
        if service is None or self.form is Form.TRUST:
            return
        keys = {key.lower() for key, _ in _condition_keys(node)}
        if not keys.intersection(_SERVICE_PRINCIPAL_KEYS):
            self.add(
                "SECURITY_WARNING",
                "RESTRICT_ACCESS_TO_SERVICE_PRINCIPAL",
                "Granting access to a service principal without specifying a source is overly permissive. Use the "
                "aws:SourceArn, aws:SourceAccount, aws:SourceOrgID, or aws:SourceOrgPaths condition key.",
                service,
            )

    def _pass_role(self, node: Node) -> None:
        actions, opposite = node.get("Action"), node.get("NotResource")
        if actions is None or self.form is not Form.IDENTITY:
            return
        passing = [one for one in actions.each() if _covers(one.value.lower(), "iam:passrole")]
        if not passing or any(key.lower() == "iam:passedtoservice" for key, _ in _condition_keys(node)):
            return
        [first, *_] = passing
        star = "*" in first.value
        resources = node.get("Resource")
        wide = resources is not None and any(one.value == "*" for one in resources.each())
        if opposite is not None:
            code = "PASS_ROLE_WITH_STAR_IN_ACTION_AND_NOT_RESOURCE" if star else "PASS_ROLE_WITH_NOT_RESOURCE"
            details = "iam:PassRole with NotResource can be overly permissive. Specify resource ARNs instead."
        elif wide:
            code = "PASS_ROLE_WITH_STAR_IN_ACTION_AND_RESOURCE" if star else "PASS_ROLE_WITH_STAR_IN_RESOURCE"
            details = (
                "Using the iam:PassRole action with wildcards (*) in the resource can be overly permissive because it "
                "allows iam:PassRole permissions on multiple resources. We recommend that you specify resource ARNs or add "
                "the iam:PassedToService condition key to your statement."
            )
        else:
            return
        self.add("SECURITY_WARNING", code, details, first)

    # -- conditions --------------------------------------------------------------------------------------------------------

    def _conditions(self, condition: Node) -> None:
        if condition.kind != "object":
            self.add("ERROR", "DATA_TYPE_MISMATCH", "Condition must be a JSON object.", condition)
            return
        if not condition.members:
            self.add("SUGGESTION", "EMPTY_OBJECT_CONDITION", "This condition block is empty.", condition)
        for operator, place, block in condition.members:
            base, quantifier = operator, ""
            for prefix in ("ForAllValues:", "ForAnyValue:"):
                if base.startswith(prefix):
                    base, quantifier = base[len(prefix) :], prefix
            plain = base.removesuffix("IfExists")
            if plain == "Null" and base != plain:
                self._at(
                    "ERROR", "NULL_WITH_IF_EXISTS", "The Null operator cannot be used with IfExists.", block, place
                )
                continue
            if plain == "Null" and quantifier:
                self._at("SUGGESTION", "NULL_WITH_QUALIFIER", "The set operator of Null has no effect.", block, place)
                continue
            if plain not in OPERATORS:
                self._at("ERROR", "INVALID_CONDITION_OPERATOR", f"The condition operator {operator} is not valid.", block,
                         place)  # fmt: skip
                continue
            for key, _, value in block.members:
                self._condition(plain, quantifier, key, value)

    def _at(self, kind: str, code: str, details: str, node: Node, start: int) -> None:
        self.found.append(_Finding(kind, code, details, node, start, node.end, node.path))

    def _condition(self, operator: str, quantifier: str, key: str, value: Node) -> None:
        if ":" not in key:
            self.add("ERROR", "INVALID_CONDITION_KEY_FORMAT", f"The condition key {key} has no prefix.", value)
        if value.kind == "array" and not value.items:
            self.add("SUGGESTION", "EMPTY_ARRAY_CONDITION", "There are no values for this condition key.", value)
        if quantifier == "ForAllValues:" and not _MULTIVALUED.fullmatch(key):
            self.add(
                "SECURITY_WARNING",
                "FORALLVALUES_WITH_SINGLE_VALUED_KEY",
                f"Using the ForAllValues qualifier with the single-valued condition key {key} can be overly permissive. We "
                "recommend that you remove ForAllValues:.",
                value,
            )
        for one in value.each():
            self._value(operator, key, one)
            self._variables(one.value, one)

    def _value(self, operator: str, key: str, node: Node) -> None:
        text = node.value
        if "${" in text:
            return
        right: Callable[[str], object] | None = None
        if operator.startswith("Numeric"):
            right = float
        elif operator in ("IpAddress", "NotIpAddress"):
            right = _network
        elif operator in ("Bool", "Null"):
            right = _boolean
        if right is not None:
            try:
                right(text)
            except ValueError:
                self.add(
                    "ERROR",
                    "INVALID_CONDITION_DATA_TYPE",
                    f"The value {text} does not fit the operator {operator}.",
                    node,
                )
                return
        if right is _network and key.lower() == "aws:sourceip" and _is_private(text):
            code = "PRIVATE_IP_ADDRESS" if operator == "IpAddress" else "PRIVATE_NOT_IP_ADDRESS"
            self.add(
                "ERROR", code, "aws:SourceIp works only for public IP address ranges; aws:VpcSourceIp is for private ones.",
                node,
            )  # fmt: skip
        exact = operator in ("StringEquals", "StringNotEquals", "StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase")
        if exact and re.search(r"[*?]", text):
            self.add(
                "WARNING",
                "WILDCARD_WITHOUT_LIKE_OPERATOR",
                f"Your condition value {text} includes a * or ? character. If you meant to use a wildcard (*, ?), update "
                "the condition operator to include Like.",
                node,
            )


def _is_private(text: str) -> bool:
    """Whether nobody comes from an address of the network by way of the internet. Elastic IP addresses are of 240.0.0.0/8
    here."""
    return _network(text).is_private and "/0" not in text and not text.startswith("240.")


def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)
    return text.lower() == "true"


def _covers(pattern: str, text: str) -> bool:
    """Whether one pattern's texts include those of another that is no wider, `*` alone as wildcard."""
    if pattern == text or "?" in pattern:
        return pattern == text
    head, star, tail = pattern.partition("*")
    if not star or "*" in tail:
        return False
    return len(text) >= len(head) + len(tail) and text.startswith(head) and text.endswith(tail)


def _condition_keys(statement: Node) -> Iterator[tuple[str, Node]]:
    condition = statement.get("Condition")
    if condition is not None:
        for _, _, block in condition.members:
            for key, _, value in block.members:
                yield key, value


def _path(path: Path) -> list[dict[str, Any]]:
    return [{"index": one} if isinstance(one, int) else {"value": one} for one in path]


def _told(text: str, finding: _Finding) -> Output:
    kind, code = _KINDS[finding.kind], finding.code.lower().replace("_", "-")
    return {
        "findingType": finding.kind,
        "issueCode": finding.code,
        "findingDetails": finding.details,
        "learnMoreLink": _LEARN.format(kind=kind, code=code),
        "locations": [
            {
                "path": _path(finding.path),
                "span": {"start": position(text, finding.start), "end": position(text, finding.end)},
            }
        ],
    }


@POLICY.reads("ValidatePolicy", asks=[Ask("access-analyzer:ValidatePolicy", anything)])
def validate(a: Authorised, view: View) -> Output:
    text = str(a.input["policyDocument"])
    if len(text) > _LARGEST:
        raise Refused(
            "ValidationException",
            f"The policy document is longer than {_LARGEST} characters.",
            members={"reason": "fieldValidationFailed"},
        )
    form = _FORMS[a.input["policyType"]]
    if a.input.get("validatePolicyResourceType") == "AWS::IAM::AssumeRolePolicyDocument":
        form = Form.TRUST
    found = _Checks(text, form).run()
    limit = min(int(a.input.get("maxResults") or 100), 1000)
    if limit < 1:
        raise Refused("ValidationException", "maxResults is at least 1.", members={"reason": "fieldValidationFailed"})
    start = int(pages.position(a, a.input.get("nextToken")) or 0)
    output: Output = {"findings": [_told(text, one) for one in found[start : start + limit]]}
    if len(found) > start + limit:
        output["nextToken"] = pages.seal(a, start + limit)
    return output
