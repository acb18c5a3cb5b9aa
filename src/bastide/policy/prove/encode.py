"""Statements, layers and the decision as formulas over a symbolic request.

The request's parts:

- the action, in lower case;
- the resource: ``*``, or an ARN as six segments of which the first five hold no colon, so that a pattern is matched
  segment by segment as the evaluator does;
- each condition key that a policy looks at: absent, a single value, or (where it may have several) a list. A list needs
  no more elements than there are conditions on the key, and two: of any longer list those elements that make a condition
  true or false are enough to make the same ones true and false, and two keep it from being empty or a single one.

A text that no policy variable touches is one of finitely many classes (`classes`, `cells`), and whether a value of a class
meets a condition is asked of the evaluator itself; a text that one touches is a string of the solver.

What cannot be encoded exactly becomes a variable of its own, free to be true or false, and is named in `inexact`: what
holds for both of its values holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bastide.policy.conditions import Condition
from bastide.policy.decide import Attached, Layers, Policies
from bastide.policy.documents import Document, Statement
from bastide.policy.explain import in_order, meets_alone, strength
from bastide.policy.principals import Named, Principal
from bastide.policy.prove import cells, classes, solver
from bastide.policy.prove.solver import Inexact, either, every, z3
from bastide.policy.variables import Template, Value, Variable, Wild, has_variables, literal_of, segments
from bastide.policy.variables import template as read_template

ARN_PARTS: Final = 6
SEVERAL: Final = frozenset(
    {
        "aws:tagkeys", "aws:calledvia", "aws:principalorgpaths", "aws:resourceorgpaths", "aws:sourceorgpaths",
        "aws:vpceorgpaths", "aws:principalservicenameslist", "sagemaker:instancetypes", "sagemaker:vpcsubnets",
        "sagemaker:vpcsecuritygroupids", "kms:grantoperations", "kms:resourcealiases", "kms:encryptioncontextkeys",
    }
)  # fmt: skip
"""Keys that have several values by themselves, beside those that a policy asks with a set operator."""
_TAGS: Final = ("tag/",)
"""Two tags whose keys differ in case only are one condition key with both values."""


def _parts(condition: Condition) -> tuple[str, str, bool]:
    """The operator without set operator and IfExists, the set operator, and whether IfExists is there."""
    base, quantifier = condition.operator, ""
    for prefix in ("ForAllValues:", "ForAnyValue:"):
        if base.startswith(prefix):
            base, quantifier = base[len(prefix) :], prefix
    if base.endswith("IfExists"):
        return base[: -len("IfExists")], quantifier, True
    return base, quantifier, False


@dataclass(frozen=True, slots=True)
class _Segment:
    """A segment of the resource: a string, or the number of a class of which `texts` has one each."""

    value: Any
    texts: list[str]
    matched: dict[Template, frozenset[int]]


def _arn_parts(atoms: Template) -> list[Template]:
    """The six segments of an ARN pattern without variables; those that are not there are ``*``."""
    parts: list[Template] = [] if atoms == (Wild.MANY,) else list(segments(atoms, ARN_PARTS))
    return parts + [(Wild.MANY,)] * (ARN_PARTS - len(parts))


@dataclass(slots=True)
class _Key:
    """What the policies do with a key. family: of `cells`, or "Text"."""

    name: str
    family: str = ""
    constants: list[str] = field(default_factory=list)
    tests: list[tuple[str, Template]] = field(default_factory=list)
    linked: bool = False
    """Whether a policy variable ties its value to other parts of the request."""
    several: bool = False
    conditions: int = 0
    mixed: bool = False
    # What stands for it in formulas:
    single: Any = None
    value: Any = None
    listed: Any = None
    slots: list[tuple[Any, Any]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


class Encoder:
    """Formulas of one proof; every policy that it will be asked about is given when it is made."""

    def __init__(self, documents: Iterable[Document]) -> None:
        z = z3()
        self.inexact: list[str] = []
        self._keys: dict[str, _Key] = {}
        self._known: dict[tuple[int, int], Any] = {}
        self._documents = list(documents)
        self._free = 0
        self.axioms: list[Any] = []
        self._actions: dict[str, frozenset[int]] = {}
        self._look()
        self.action, self._action_texts = self._action()
        self.everything = z.Bool("resource is *")
        self.segments = [self._segment(number) for number in range(ARN_PARTS)]
        for key in self._keys.values():
            self._declare(key)

    # -- keys ----------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        for document in self._documents:
            variables = document.version != "2008-10-17"
            for statement in document.statements:
                for text in statement.resources or ():
                    self._variables(text, variables)
                for condition in statement.conditions:
                    self._condition_key(condition, variables)

    def _action(self) -> tuple[Any, list[str]]:
        """What stands for the action, and one text of each class."""
        z = z3()
        texts = {text.lower() for document in self._documents for one in document.statements for text in one.actions}
        atoms = {text: read_template(text, "", variables=False, wildcards=True) for text in sorted(texts)}
        try:
            found = classes.classes([classes.pattern(one) for one in atoms.values()], classes.ACTION)
        except classes.TooMany:
            action = z.String("action")
            name, word = z.Union(z.Range("a", "z"), z.Range("0", "9")), z.Re("-")
            self.axioms.append(z.InRe(action, z.Concat(z.Plus(z.Union(name, word)), z.Re(":"), z.Plus(name))))
            return action, []
        for number, text in enumerate(atoms):
            self._actions[text] = frozenset(place for place, (_, matched) in enumerate(found) if number in matched)
        return self._one_of("action", len(found)), [text for text, _ in found]

    def _one_of(self, label: str, several: int) -> Any:
        found = z3().Int(label)
        self.axioms.append(z3().And(found >= 0, found < several))
        return found

    def _segment(self, number: int) -> _Segment:
        """What stands for a segment of the resource's ARN."""
        z = z3()
        parts: dict[Template, None] = {}
        for document in self._documents:
            variables = document.version != "2008-10-17"
            for statement in document.statements:
                for text in statement.resources or ():
                    split = segments(read_template(text, "", variables=variables, wildcards=True), ARN_PARTS)
                    if number < len(split) and split[number] != (Wild.MANY,):
                        parts[split[number]] = None
        label = f"resource {number}"
        if not any(has_variables(part) for part in parts):
            patterns = [classes.pattern(part) for part in parts]
            within = classes.pattern(("arn",) if number == 0 else (Wild.MANY,), segment=number < ARN_PARTS - 1)
            try:
                found = classes.classes(patterns, within)
            except classes.TooMany:
                pass
            else:
                matched = {
                    part: frozenset(place for place, (_, hit) in enumerate(found) if index in hit)
                    for index, part in enumerate(parts)
                }
                return _Segment(self._one_of(label, len(found)), [text for text, _ in found], matched)
        value = z.String(label)
        if number == 0:
            self.axioms.append(value == solver.text("arn"))
        elif number < ARN_PARTS - 1:
            self.axioms.append(z.InRe(value, solver.in_segment()))
        return _Segment(value, [], {})

    def _key(self, name: str) -> _Key:
        return self._keys.setdefault(name, _Key(name))

    def _variables(self, text: str, variables: bool) -> None:
        if variables:
            for atom in read_template(text, "", variables=True, wildcards=True):
                if isinstance(atom, Variable):
                    self._key(atom.key).linked = True

    def _condition_key(self, condition: Condition, variables: bool) -> None:
        base, quantifier, _ = _parts(condition)
        family = cells.family_of(base)
        key = self._key(condition.key.lower())
        key.conditions += 1
        key.several = key.several or bool(quantifier)
        if family == "Null":
            return
        if key.family and key.family != family:
            key.mixed = True
        key.family = key.family or family
        if family in cells.FAMILIES:
            key.constants += condition.wanted
            return
        for text in condition.wanted:
            self._variables(text, variables)
            atoms = read_template(text, "", variables=variables, wildcards=base.startswith("Arn") or "Like" in base)
            key.linked = key.linked or has_variables(atoms)
            key.tests.append((base, atoms))

    def _declare(self, key: _Key) -> None:
        z = z3()
        name = key.name
        key.several = key.several or name in SEVERAL or any(part in name for part in _TAGS)
        try:
            key.texts = self._texts(key)
        except (Inexact, classes.TooMany) as why:
            if isinstance(why, Inexact):
                self.inexact.append(f"{name}: {why}")
        key.single = z.Bool(f"{name} single")
        key.listed = z.Bool(f"{name} list") if key.several else z.BoolVal(False)

        def variable(label: str) -> Any:
            return self._one_of(label, len(key.texts)) if key.texts else z.String(label)

        key.value = variable(name)
        if key.several:
            self.axioms.append(z.Not(z.And(key.single, key.listed)))
            key.slots = [
                (z.Bool(f"{name} has {number}"), variable(f"{name} {number}")) for number in range(key.conditions + 2)
            ]

    @staticmethod
    def _texts(key: _Key) -> list[str]:
        """One text of each class of the key's values; none if a policy variable ties it to others. Raises TooMany."""
        if key.mixed or (key.linked and key.family in cells.FAMILIES):
            raise Inexact("compared as a text and as something else")
        if key.family in cells.FAMILIES:
            return cells.representatives(key.family, key.constants)
        if key.linked:
            return []
        if any(base == "Bool" for base, _ in key.tests) and not any(part in key.name for part in _TAGS):
            # A key of this type is filled with these two alone.
            return ["true", "false"]
        patterns: list[classes.Pattern] = [()]
        for base, atoms in key.tests:
            if "IgnoreCase" in base or base == "Bool":
                literal = literal_of(atoms) or ""
                if not literal.isascii():
                    raise Inexact(f"letters beyond ASCII compared without regard to case: {literal!a}")
                patterns.append(classes.in_any_case(literal))
            elif base.startswith("Arn"):
                patterns.append(classes.arn(_arn_parts(atoms)))
            else:
                patterns.append(classes.pattern(atoms))
        return [text for text, _ in classes.classes(patterns)]

    # -- conditions ----------------------------------------------------------------------------------------------------

    def holds(self, version: str, deny: bool, condition: Condition) -> Any:
        """Whether a condition holds."""
        base, quantifier, if_exists = _parts(condition)
        key = self._keys[condition.key.lower()]
        z = z3()
        active = [slot for slot, _ in key.slots]
        if base == "Null":
            missing = z.And(z.Not(key.single), z.Not(z.And(key.listed, either(active))))
            wanted = {text.lower() == "true" for text in condition.wanted}
            return z.BoolVal(True) if len(wanted) == 2 else missing if True in wanted else z.Not(missing)
        try:
            met = self._met(version, deny, base, condition, key)
        except Inexact as inexact:
            return self.open(str(inexact))
        missing = z.BoolVal(if_exists or "Not" in base)
        there = z.Or(key.single, key.listed)
        values = [(slot, met(value)) for slot, value in key.slots]
        any_of = either([z.And(slot, held) for slot, held in values])
        all_of = every([z.Implies(slot, held) for slot, held in values])
        if not quantifier:
            of_list = z.If(either(active), any_of if deny else all_of, missing)
            return z.If(key.single, met(key.value), z.If(key.listed, of_list, missing))
        empty = [self._is_empty(key, value) for _, value in key.slots]
        null = either(
            [
                z.And(slot, empty[number], *(z.Not(other) for place, other in enumerate(active) if place != number))
                for number, slot in enumerate(active)
            ]
        )
        single_null = self._is_empty(key, key.value)
        if quantifier == "ForAllValues:":
            of_single = z.Or(single_null, met(key.value))
            return z.If(key.single, of_single, z.Implies(key.listed, z.Or(null, all_of)))
        of_single = z.And(z.Not(single_null), met(key.value))
        of_list = z.And(z.Not(null), any_of)
        return z.If(there, z.If(key.single, of_single, of_list), z.BoolVal(if_exists))

    @staticmethod
    def _is_empty(key: _Key, value: Any) -> Any:
        if not key.texts:
            return value == solver.text("")
        return value == key.texts.index("") if "" in key.texts else z3().BoolVal(False)

    def _met(self, version: str, deny: bool, base: str, condition: Condition, key: _Key) -> Any:
        """A function that says of one value whether it meets the condition. Raises Inexact."""
        z = z3()
        if not key.texts and cells.family_of(base) in cells.FAMILIES:
            raise Inexact(f"{key.name} is compared as a text and under {condition.operator}")
        if key.texts:
            good = [
                number
                for number, text in enumerate(key.texts)
                if meets_alone(version, (base, condition.key, condition.wanted), {key.name: text})
            ]
            return lambda value: either([value == number for number in good])
        negated = "Not" in base
        variables = version != "2008-10-17"
        tests = [self._text_test(base, text, variables, condition) for text in condition.wanted]

        def met(value: Any) -> Any:
            found = either([test(value) for test in tests])
            return z.Not(found) if negated else found

        return met

    def _text_test(self, base: str, text: str, variables: bool, condition: Condition) -> Any:
        z = z3()
        arn = base.startswith("Arn")
        atoms = read_template(text, "", variables=variables, wildcards=arn or "Like" in base)
        if "IgnoreCase" in base or base == "Bool":
            literal = literal_of(atoms)
            if literal is None:
                raise Inexact(f"a policy variable compared without regard to case ({condition.operator})")
            folded = solver.in_any_case(literal)
            return lambda value: z.InRe(value, folded)
        if not arn:
            return lambda value: self.matches(atoms, value)
        if has_variables(atoms):
            parts = segments(atoms, ARN_PARTS)
            if len(parts) < ARN_PARTS or any(literal_of(part) is None for part in parts[:-1]):
                raise Inexact(f"a policy variable in an ARN's first segments ({condition.operator})")
            return lambda value: self.matches(atoms, value)
        whole = self._arn_regex(atoms)
        return lambda value: z.InRe(value, whole)

    @staticmethod
    def _arn_regex(atoms: Template) -> Any:
        z = z3()
        found: list[Any] = []
        for number, part in enumerate(_arn_parts(atoms)):
            if number:
                found.append(z.Re(":"))
            found.append(solver.regex(part, segment=number < ARN_PARTS - 1))
        return z.Concat(*found)

    # -- texts ---------------------------------------------------------------------------------------------------------

    def matches(self, atoms: Template, value: Any) -> Any:
        """Whether a string matches a template. Raises Inexact."""
        z = z3()
        if not has_variables(atoms):
            literal = literal_of(atoms)
            if literal is not None:
                return value == solver.text(literal)
            return z.BoolVal(True) if atoms == (Wild.MANY,) else z.InRe(value, solver.regex(atoms))
        if Wild.ONE in atoms:
            raise Inexact("the wildcard ? beside a policy variable")
        needed: list[Any] = []
        runs: list[list[Any]] = [[]]
        for atom in atoms:
            if atom is Wild.MANY:
                runs.append([])
            elif isinstance(atom, Variable):
                key = self._keys[atom.key]
                if key.texts:
                    raise Inexact(f"the policy variable {atom.key}")
                if atom.default is None:
                    needed.append(key.single)
                    runs[-1].append(key.value)
                else:
                    runs[-1].append(z.If(key.single, key.value, solver.text(atom.default)))
            else:
                runs[-1].append(solver.text(str(atom)))
        pieces = [
            solver.text("") if not run else run[0] if len(run) == 1 else z.Concat(*run) for run in runs
        ]  # fmt: skip
        if len(pieces) == 1:
            return every([*needed, value == pieces[0]])
        # Between the first and the last piece each of the others stands as early as it can, as the evaluator has it.
        head, *middle, tail = pieces
        terms = [z.PrefixOf(head, value), z.SuffixOf(tail, value)]
        end: Any = z.Length(head)
        for piece in middle:
            at = z.IndexOf(value, piece, end)
            terms.append(at >= 0)
            end = at + z.Length(piece)
        terms.append(end + z.Length(tail) <= z.Length(value))
        return every([*needed, *terms])

    def action_is(self, texts: Iterable[str]) -> Any:
        """Whether the action matches one of several patterns."""
        if self._action_texts:
            places = sorted({place for text in texts for place in self._actions[text.lower()]})
            if len(places) == len(self._action_texts):
                return z3().BoolVal(True)
            return either([self.action == place for place in places])
        return either(
            [
                self.matches(read_template(text.lower(), "", variables=False, wildcards=True), self.action)
                for text in texts
            ]
        )

    def resource_is(self, texts: Iterable[str], variables: bool) -> Any:
        """Whether the resource matches one of several patterns."""
        return either([self._resource(text, variables) for text in texts])

    def _resource(self, text: str, variables: bool) -> Any:
        z = z3()
        atoms = read_template(text, "", variables=variables, wildcards=True)
        if atoms == (Wild.MANY,):
            return z.BoolVal(True)
        parts = segments(atoms, ARN_PARTS)
        if len(parts) < ARN_PARTS:
            if has_variables(atoms):
                return self.open(f"a policy variable that may stand for several segments of an ARN: {text}")
            parts = parts + [(Wild.MANY,)] * (ARN_PARTS - len(parts))
        try:
            terms = [
                either([segment.value == place for place in sorted(segment.matched[part])])
                if segment.texts
                else self.matches(part, segment.value)
                for part, segment in zip(parts, self.segments, strict=True)
                if part != (Wild.MANY,)
            ]
        except Inexact as inexact:
            return self.open(str(inexact))
        return every([z.Not(self.everything), *terms])

    def open(self, why: str) -> Any:
        """A variable for what cannot be encoded."""
        if why not in self.inexact:
            self.inexact.append(why)
        self._free += 1
        return z3().Bool(f"open {self._free}")

    # -- statements and layers -----------------------------------------------------------------------------------------

    def applies(self, document: Document, statement: Statement) -> Any:
        """Whether action, resource and conditions match."""
        known = self._known.get((id(document), statement.index))
        if known is None:
            known = self._known[id(document), statement.index] = self._applies(document, statement)
        return known

    def _applies(self, document: Document, statement: Statement) -> Any:
        z = z3()
        action = self.action_is(statement.actions)
        terms = [z.Not(action) if statement.not_action else action]
        if statement.resources is not None:
            resource = self.resource_is(statement.resources, document.version != "2008-10-17")
            terms.append(z.Not(resource) if statement.not_resource else resource)
        terms += [self.holds(document.version, statement.deny, one) for one in statement.conditions]
        return every(terms)

    def _any(self, policies: Policies, deny: bool, who: Principal, bounded: bool, least: Named = Named.ACCOUNT) -> Any:
        return either(
            [
                self.applies(attached.document, statement)
                for attached in policies
                for statement in attached.document.statements
                if statement.deny is deny and strength(attached.document, statement, who, bounded) >= least
            ]
        )

    def allowed(self, who: Principal, layers: Layers, resource_account: str | None) -> Any:
        """Whether the layers allow the request of a principal; the formula of `policy.decide`."""
        z = z3()
        bounded = layers.boundary is not None
        everywhere = [attached for _, _, attached in in_order(replace(layers, grants=()))]
        terms = [z.Not(self._any(everywhere, True, who, bounded))]
        terms += [self._any(level, False, who, bounded) for level in layers.scps]
        if layers.endpoint is not None:
            terms.append(self._any((layers.endpoint,), False, who, bounded))
        terms.append(self._granted(who, layers, resource_account))
        return every(terms)

    def _granted(self, who: Principal, layers: Layers, resource_account: str | None) -> Any:
        z = z3()
        of_resource: list[Attached] = [*([layers.resource] if layers.resource is not None else []), *layers.grants]
        named = {
            least: self._any(of_resource, False, who, False, least)
            for least in (Named.ACCOUNT, Named.ROLE, Named.DIRECT)
        }
        if who.kind in ("Service", "Federated", "Anonymous"):
            if who.kind == "Anonymous" and layers.resource_kind in ("key", "trust"):
                return z.BoolVal(False)
            return named[Named.ACCOUNT]
        identity = z.BoolVal(True) if who.kind == "Root" else self._any(layers.identity, False, who, False)
        within = []
        if layers.boundary is not None:
            within.append(self._any((layers.boundary,), False, who, False))
        if layers.session is not None or who.kind == "FederatedUser":
            within.append(self._any(layers.session or (), False, who, False))
        if not (resource_account is None or resource_account == who.account):
            # Both sides have to allow, but a grant of a key is enough by itself.
            direct, role = (self._any(layers.grants, False, who, False, least) for least in (Named.DIRECT, Named.ROLE))
            return either([direct, every([role, *within]), every([identity, named[Named.ACCOUNT], *within])])
        by_identity = every([identity, *within])
        if layers.resource_kind in ("key", "trust"):
            by_identity = z.And(named[Named.ACCOUNT], by_identity)
        return either([named[Named.DIRECT], z.And(named[Named.ROLE], every(within)), by_identity])

    # -- known values, and models --------------------------------------------------------------------------------------

    def fixed(self, context: Mapping[str, Value | None]) -> list[Any]:
        """That keys have these values, None for absent ones; keys that no policy looks at do not matter."""
        z = z3()
        found: list[Any] = []
        for name, wanted in context.items():
            key = self._keys.get(name)
            if key is None:
                continue
            if wanted is None:
                found += [z.Not(key.single), z.Not(key.listed)]
            elif isinstance(wanted, str):
                found += [key.single, self._is(key, key.value, wanted)]
            elif len(wanted) <= len(key.slots):
                found.append(key.listed)
                for number, (slot, value) in enumerate(key.slots):
                    found.append(slot if number < len(wanted) else z.Not(slot))
                    if number < len(wanted):
                        found.append(self._is(key, value, wanted[number]))
        return found

    def _is(self, key: _Key, value: Any, text: str) -> Any:
        if not key.texts:
            return value == solver.text(text)
        return either([value == number for number, one in enumerate(key.texts) if self._alike(key, one, text)])

    def _alike(self, key: _Key, text: str, other: str) -> bool:
        """Whether no condition tells two values of a key apart."""
        for document in self._documents:
            for statement in document.statements:
                for one in statement.conditions:
                    base, _, _ = _parts(one)
                    if one.key.lower() == key.name and base != "Null":
                        part = (base, one.key, one.wanted)
                        first, second = (
                            meets_alone(document.version, part, {key.name: value}) for value in (text, other)
                        )
                        if first is not second:
                            return False
        return (text == "") is (other == "")

    def context(self, model: Any) -> dict[str, Value]:
        """The request context of a model."""
        z = z3()
        found: dict[str, Value] = {}

        def shown(key: _Key, value: Any) -> str:
            value = model.eval(value, model_completion=True)
            return key.texts[value.as_long()] if key.texts else solver.shown(value)

        for key in self._keys.values():
            if z.is_true(model.eval(key.single, model_completion=True)):
                found[key.name] = shown(key, key.value)
            elif key.several and z.is_true(model.eval(key.listed, model_completion=True)):
                found[key.name] = tuple(
                    shown(key, value) for slot, value in key.slots if z.is_true(model.eval(slot, model_completion=True))
                )
        return found

    def resource(self, model: Any) -> str:
        """The resource of a model."""
        if z3().is_true(model.eval(self.everything, model_completion=True)):
            return "*"
        found = []
        for segment in self.segments:
            value = model.eval(segment.value, model_completion=True)
            found.append(segment.texts[value.as_long()] if segment.texts else solver.shown(value))
        return ":".join(found)

    def action_of(self, model: Any) -> str:
        """The action of a model, in lower case."""
        value = model.eval(self.action, model_completion=True)
        return self._action_texts[value.as_long()] if self._action_texts else solver.shown(value)
