"""What a decision costs: `python -m tests.bench.policy_decide`.

A principal with 200 statements of two conditions each under three levels of service control policies, a boundary and
a resource policy, and beside it, in the same process, what else decides in Python: moto's evaluator, pycasbin and
Cedar through cedarpy. Every call of a row asks about another resource under other condition values.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bastide.policy import Attached, Document, Form, Layers, Principal, Request, context, decide

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/Scientist"
SESSION = Principal("AssumedRole", ACCOUNT, f"arn:aws:sts::{ACCOUNT}:assumed-role/Scientist/ann", ROLE)
ASKED = "sagemaker:CreateTrainingJob"
STATEMENTS = 200
TIMES = 4000
ROOT = Path(__file__).resolve().parents[2]

Json = dict[str, Any]


def statement(index: int, action: str) -> Json:
    """One of the 200; every tenth denies."""
    return {
        "Effect": "Deny" if index % 10 == 9 else "Allow",
        "Action": [action, f"sagemaker:Describe{index}"],
        "Resource": f"arn:aws:sagemaker:*:{ACCOUNT}:training-job/team-{index}-*",
        "Condition": {
            "StringEquals": {"aws:PrincipalTag/team": f"team{index}"},
            "Bool": {"aws:SecureTransport": "true"},
        },
    }


def easy() -> list[Json]:
    """Each statement about an action of its own but for two that concern the one asked."""
    return [statement(index, ASKED if index in (150, 159) else f"sagemaker:A{index}") for index in range(STATEMENTS)]


def bad() -> list[Json]:
    """All statements about the action that is asked."""
    return [statement(index, ASKED) for index in range(STATEMENTS)]


def worst() -> list[Json]:
    """The same with any resource and conditions that no value can be looked up for: each has to be tried."""

    def conditions(index: int) -> Json:
        secure = {"Bool": {"aws:SecureTransport": "true"}}
        return [
            {"StringLike": {"aws:PrincipalTag/team": f"*m{index}"}, **secure},
            {"NumericEquals": {"sagemaker:VolumeSize": str(index)}, **secure},
            {"IpAddress": {"aws:SourceIp": f"10.{index}.0.0/16"}, "StringNotEquals": {"aws:PrincipalTag/team": "x"}},
            {"DateEquals": {"aws:CurrentTime": f"2026-01-01T00:{index % 60:02}:01Z"}, **secure},
            {"ArnLike": {"aws:SourceArn": f"arn:*:sagemaker:*:*:x/*{index}"}, **secure},
            {"StringNotEqualsIfExists": {"aws:PrincipalTag/team": [f"team{one}" for one in range(STATEMENTS)
             if one != index]}, "StringNotLike": {"aws:PrincipalTag/team": "*q*"}},
        ][index % 6]  # fmt: skip

    return [
        {
            "Effect": "Deny" if index % 10 == 9 else "Allow",
            "Action": ASKED,
            "Resource": "*",
            "Condition": conditions(index),
        }
        for index in range(STATEMENTS)
    ]


def text(statements: Sequence[Json]) -> str:
    """A document."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
GUARD = {
    "Effect": "Deny",
    "Action": ["sagemaker:CreateTrainingJob", "sagemaker:CreateProcessingJob"],
    "Resource": "*",
    "Condition": {"Null": {"sagemaker:VolumeKmsKey": "true"}},
}
BOUNDARY = {"Effect": "Allow", "Action": "sagemaker:*", "Resource": "*"}
SEALED = {
    "Effect": "Deny",
    "Principal": "*",
    "Action": "sagemaker:*",
    "Resource": "*",
    "Condition": {"Bool": {"aws:SecureTransport": "false"}},
}
OWN = {"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sagemaker:*", "Resource": "*"}


def layers(identity: Sequence[str]) -> Layers:
    """As the platform makes them for each call, from texts."""

    def attached(source: str, form: Form) -> Attached:
        return Attached(Document.parse_cached(source, form), "bench")

    return Layers(
        identity=[attached(one, Form.IDENTITY) for one in identity],
        boundary=attached(text([BOUNDARY]), Form.BOUNDARY),
        session=None,
        resource=attached(text([OWN, SEALED]), Form.RESOURCE),
        scps=[[attached(text(level), Form.SCP)] for level in ([EVERYTHING], [EVERYTHING, GUARD], [EVERYTHING])],
        rcps=[],
    )


def asked(team: int, number: int) -> Request:
    """A CreateTrainingJob for a team; no two numbers are the same request."""
    keys = {
        "aws:PrincipalTag/team": f"team{team}",
        "aws:SecureTransport": "true",
        "aws:SourceIp": f"192.0.2.{number % 250}",
        "aws:CurrentTime": f"2026-02-01T00:{number % 60:02}:{number // 60 % 60:02}Z",
        "aws:SourceArn": f"arn:aws:sagemaker:eu-central-1:{ACCOUNT}:training-job/{number}y",
        "sagemaker:VolumeSize": str(1000 + number),
        "sagemaker:VolumeKmsKey": f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/{number}",
    }
    job = f"arn:aws:sagemaker:eu-central-1:{ACCOUNT}:training-job/team-{team}-{number}"
    return Request(SESSION, ASKED, job, ACCOUNT, context(keys))


def requests(teams: Sequence[int]) -> list[Request]:
    """Requests of these teams by turns, none twice, in an order that is always the same."""
    order = random.Random(1)
    return [asked(order.choice(teams), number) for number in range(TIMES)]


def median(ask: Callable[[Request], object], questions: Sequence[Request]) -> float:
    """Microseconds; warmed up with a quarter of the questions."""
    for question in questions[: len(questions) // 4]:
        ask(question)
    taken = []
    for question in questions:
        before = time.perf_counter_ns()
        ask(question)
        taken.append(time.perf_counter_ns() - before)
    return statistics.median(taken) / 1000


def split(statements: Sequence[Json], documents: int) -> list[str]:
    """The statements in so many documents."""
    size = len(statements) // documents
    return [text(statements[at : at + size]) for at in range(0, len(statements), size)]


def changed(identity: Sequence[str]) -> float:
    """Microseconds of a decision after another principal's policy changed: everything is read again, in fresh texts."""
    questions = requests(range(STATEMENTS))[:300]
    decide(questions[0], layers(identity))
    taken = []
    for number, question in enumerate(questions):
        other = layers([text([{**BOUNDARY, "Action": f"sagemaker:Other{number}"}])])
        decide(question, other)
        again = ["".join((one[:1], one[1:])) for one in identity]
        before = time.perf_counter_ns()
        decide(question, layers(again))
        taken.append(time.perf_counter_ns() - before)
    return statistics.median(taken) / 1000


def cold(statements: Callable[[], list[Json]]) -> float:
    """Milliseconds from a document nobody has seen to the first decision under it."""
    question = asked(150, 0)
    taken = []
    for number in range(15):
        fresh = text([{**one, "Sid": f"S{number}x{at}"} for at, one in enumerate(statements())])
        fresh = fresh.replace("team", f"team{number}x").replace("10.", f"{number + 11}.")
        before = time.perf_counter_ns()
        decide(question, layers([fresh]))
        taken.append(time.perf_counter_ns() - before)
    return statistics.median(taken) / 1e6


def memory(statements: int, each: int) -> Json:
    """10,000 principals drawing on 2,000 documents of so many statements, `each` drawing so many of them."""
    before = _resident()
    texts = [
        text(
            [
                {**statement(index, ASKED if index % 2 else f"sagemaker:A{index}"), "Sid": f"D{document}S{index}"}
                for index in range(statements)
            ]
        ).replace("team", f"t{document}-")
        for document in range(2000)
    ]
    held = _resident()
    draw = random.Random(2)
    principals = [draw.sample(range(2000), each) for _ in range(10_000)]
    taken = []
    for number, mine in enumerate(principals):
        question = asked(number % statements, number)
        began = time.perf_counter_ns()
        decide(question, layers([texts[one] for one in mine]))
        taken.append(time.perf_counter_ns() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    taken = sorted(taken[5000:])
    return {
        "texts": held - before,
        "peak": peak,
        "median": taken[len(taken) // 2] / 1000,
        "p99": taken[len(taken) * 99 // 100] / 1000,
    }


def _resident() -> float:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * resource.getpagesize() / 2**20


# The others

_KEYS = ("aws:PrincipalTag/team", "aws:SecureTransport", "sagemaker:VolumeKmsKey")
"""moto finds condition keys only as they are spelled in the policy."""


def moto(statements: list[Json]) -> Callable[[Request], object]:
    """moto's IAMPolicy over the same documents, as its IAMRequest goes over them; it knows no SCPs and no boundaries."""
    from moto.iam.access_control import IAMPolicy, PermissionResult

    policies = [IAMPolicy(text(statements))]

    def ask(question: Request) -> bool:
        permitted = False
        keys = {name: question.context[name.lower()] for name in _KEYS}
        for policy in policies:
            result = policy.is_action_permitted(question.action, question.resource, None, keys)
            if result is PermissionResult.DENIED:
                return False
            permitted = permitted or result is PermissionResult.PERMITTED
        return permitted

    return ask


_CASBIN = """
[request_definition]
r = act, obj, team, secure, volume
[policy_definition]
p = act, obj, team, secure, eft
[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))
[matchers]
m = r.act == p.act && r.team == p.team && r.secure == p.secure && keyMatch(r.obj, p.obj) && r.volume != ""
"""


def casbin(statements: list[Json]) -> Callable[[Request], object]:
    """pycasbin: a line a statement; the guardrail stands in the matcher."""
    import casbin as pycasbin

    model = pycasbin.Model()
    model.load_model_from_text(_CASBIN)
    enforcer = pycasbin.Enforcer(model)
    enforcer.add_policies(
        [
            [
                one["Action"][0],
                one["Resource"].split(":", 5)[5],
                one["Condition"]["StringEquals"]["aws:PrincipalTag/team"],
                "true",
                one["Effect"].lower(),
            ]
            for one in statements
        ]
    )

    def ask(question: Request) -> bool:
        keys = question.context
        return bool(
            enforcer.enforce(
                question.action,
                question.resource.split(":", 5)[5],
                keys["aws:principaltag/team"],
                keys["aws:securetransport"],
                keys.get("sagemaker:volumekmskey", ""),
            )
        )

    return ask


def cedar(statements: list[Json]) -> Callable[[Request], object]:
    """Cedar through cedarpy, the policies parsed beforehand where it can."""
    import cedarpy

    def policy(one: Json) -> str:
        effect = "permit" if one["Effect"] == "Allow" else "forbid"
        team = one["Condition"]["StringEquals"]["aws:PrincipalTag/team"]
        return (
            f'{effect}(principal, action == Action::"{one["Action"][0]}", resource) when {{ context.job like '
            f'"{one["Resource"].split(":", 5)[5]}" && context.team == "{team}" && context.secure }};'
        )

    source = "\n".join(policy(one) for one in statements)
    source += "\nforbid(principal, action, resource) when { !(context has volume) || !context.secure };"
    policies = cedarpy.PolicySet.from_str(source)
    entities = cedarpy.Entities.from_json_str("[]")

    def ask(question: Request) -> bool:
        keys = question.context
        asked = {
            "principal": 'Role::"Scientist"',
            "action": f'Action::"{question.action}"',
            "resource": 'Job::"x"',
            "context": {
                "job": question.resource.split(":", 5)[5],
                "team": keys["aws:principaltag/team"],
                "secure": keys["aws:securetransport"] == "true",
                "volume": keys["sagemaker:volumekmskey"],
            },
        }
        return bool(cedarpy.is_authorized(asked, policies, entities).allowed)

    return ask


def measure(peers: bool) -> Json:
    """Everything, as numbers."""
    everybody = range(STATEMENTS)
    found: Json = {"python": platform.python_version(), "load": os.getloadavg()[0], "ours": {}, "peers": {}}
    for name, made, teams in (("easy", easy(), [150]), ("bad", bad(), everybody), ("worst", worst(), everybody)):
        for documents in (1, 10):
            policies = layers(split(made, documents))
            questions = requests(teams)
            verdicts = {decide(question, policies).verdict for question in questions}
            found["ours"][f"{name} {documents}"] = median(
                lambda one, policies=policies: decide(one, policies), questions
            )
            found["ours"][f"{name} verdicts"] = sorted(verdicts)
        found["ours"][f"{name} cold ms"] = cold({"easy": easy, "bad": bad, "worst": worst}[name])
    found["ours"]["changed 1"] = changed(split(bad(), 1))
    found["ours"]["changed 10"] = changed(split(bad(), 10))
    if peers:
        for package, make in (("moto", moto), ("pycasbin", casbin), ("cedarpy", cedar)):
            row: Json = {"version": importlib.metadata.version(package)}
            for name, made, teams in (("easy", easy(), [150]), ("bad", bad(), everybody)):
                ask, questions, truth = make(made), requests(teams)[:300], layers([text(made)])
                row[name] = median(ask, questions)
                row[f"{name} right"] = sum(bool(ask(one)) == decide(one, truth).allowed for one in questions) / len(
                    questions
                )
            found["peers"][package] = row
    return found


def show(found: Json, memories: dict[str, Json]) -> None:
    """Prints the figures."""
    ours = found["ours"]
    print(f"Python {found['python']}, load average {found['load']:.1f}; medians; microseconds where nothing is said")
    print("200 statements of two conditions, three SCP levels, boundary, resource policy; never the same request twice")
    for name, what in (
        ("easy", "two of them concern the action"),
        ("bad", "all concern the action"),
        ("worst", "all concern the action, none can be looked up"),
    ):
        print(
            f"  {what:46} {ours[name + ' 1']:7.1f} in one document {ours[name + ' 10']:7.1f} in ten"
            f"   new document {ours[name + ' cold ms']:.1f} ms"
        )
    print(
        f"  {'after another policy changed':46} {ours['changed 1']:7.1f} in one document {ours['changed 10']:7.1f} in ten"
    )
    for package, row in found["peers"].items():
        print(
            f"  {package + ' ' + row['version']:46} {row['easy']:7.1f} two of 200  {row['bad']:9.1f} all of 200"
            f"   right in {100 * row['easy right']:.0f} % and {100 * row['bad right']:.0f} %"
        )
    for name, row in memories.items():
        print(
            f"  10,000 principals, 2,000 documents {name:>32}: {row['peak']:.0f} MiB at most "
            f"(texts {row['texts']:.0f} MiB), "
            f"a decision {row['median']:.1f}, p99 {row['p99']:.0f}"
        )


MEMORIES = {"of 20 statements, ten each": (20, 10), "of 200 statements, one each": (200, 1)}


def run(*arguments: str, python: str = sys.executable) -> Json:
    """This module in a process of its own."""
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}", "PYTHONHASHSEED": "1"}
    done = subprocess.run(
        [python, "-m", "tests.bench.policy_decide", *arguments],
        cwd=ROOT, env=environment, check=True, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    found: Json = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Installs the others, measures, prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policy_decide", description=__doc__)
    parser.add_argument("--alone", action="store_true", help="without the others")
    parser.add_argument("--json", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--memory", nargs=2, type=int, help=argparse.SUPPRESS)
    chose = parser.parse_args()
    if chose.memory:
        print(json.dumps(memory(*chose.memory)))
    elif chose.json:
        print(json.dumps(measure(not chose.alone)))
    else:
        python = sys.executable
        if not chose.alone:
            from .servers import install

            python = str(install("policy") / "python")
        found = run("--json", *(["--alone"] if chose.alone else []), python=python)
        show(found, {name: run("--memory", *map(str, sizes)) for name, sizes in MEMORIES.items()})


if __name__ == "__main__":
    main()
