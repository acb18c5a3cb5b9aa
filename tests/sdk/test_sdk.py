"""The short form of `make sdk`: both versions of the SageMaker SDK train, process, register, deploy and ask, and the data
science SDK of Step Functions builds a workflow of all that."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from bastide.main.catalogue import SERVICES
from tests.clients.program import run
from tests.platform import Account, Running
from tests.sdk.catalogue import FOLDER, PROGRAMS
from tests.sdk.harness import attempt_all, needed, workplace

_OPERATIONS = {one.name for service in SERVICES for kind in service.kinds for one in kind.operations}


@pytest.mark.control("EXP-19")
def test_programs_of_both_versions_run_unchanged(platform: Running, tmp_path: Path) -> None:
    short = [one for one in PROGRAMS if one.short]
    faults = {
        one.program.name: f"{one.fault}\n{one.told[-3000:]}"
        for one in attempt_all(platform, short, tmp_path, len(short))
        if one.fault
    }
    assert not faults, "\n".join(f"{name}: {fault}" for name, fault in faults.items())


def test_every_file_is_in_the_catalogue() -> None:
    assert {one.path for one in PROGRAMS} == set(FOLDER.glob("*/*.py"))


def test_no_program_waits_for_what_is_there() -> None:
    """Whoever brings the last operation that a program waits for takes the mark away, and sees it pass: `make sdk`."""
    over = [
        one.name
        for one in PROGRAMS
        if one.awaits and not any(":" in what for what in one.awaits) and _OPERATIONS.issuperset(one.awaits)
    ]
    assert not over, f"take `awaits` out of the catalogue: {over}"


def test_only_a_real_refusal_counts_as_waiting() -> None:
    refused = "botocore: An error occurred (UnknownOperationException) when calling the \n│ CreateTrial operation: no"
    assert needed(refused) == "CreateTrial"
    assert needed("An error occurred (AccessDeniedException) when calling the CreateTrial operation: no") == ""
    assert needed("AssertionError") == ""
    assert needed(
        "An error occurred (ValidationException) when calling the CreateModel operation: Mode is not supported by Bastide"
    ).startswith("CreateModel: Mode")


def test_a_default_bucket_of_somebody_else_is_not_used(
    platform: Running, account: Account, neighbour: Account, tmp_path: Path
) -> None:
    """Who guesses the name makes the bucket first; the SDK names its owner at every call, and S3 refuses."""
    name = f"sagemaker-us-east-1-{account.id}"
    neighbour.client("s3").create_bucket(Bucket=name)
    environment = workplace(platform, account, tmp_path / "home")
    for version, module, said in (
        ("v2", "sagemaker", "is not accessible as the default bucket. It may be owned by another account"),
        ("v3", "sagemaker.core.helper.session_helper", "(403) when calling the HeadBucket operation: Forbidden"),
    ):
        program = tmp_path / f"{version}.py"
        program.write_text(
            textwrap.dedent(
                f"""
                from {module} import Session
                Session().upload_string_as_file_body("mine", Session().default_bucket(), "secret")
                """
            )
        )
        ended = run(f"sagemaker-{version}", program, environment=environment)
        assert ended.returncode == 1
        told = " ".join((ended.stdout + ended.stderr).split())
        assert said in told, told
    assert "Contents" not in neighbour.client("s3").list_objects_v2(Bucket=name)
