"""State machines under the customer's own key."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow, lies_in, on_disk
from tests.stories.states.conftest import STATES, Machines

SECRET = "a-very-particular-secret-0815"


def _code(call: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**given)
    return str(caught.value.response["Error"]["Code"])


@pytest.mark.control("ENC-08")
def test_a_customers_key_is_needed_for_everything(account: Account) -> None:
    kms, states = account.client("kms"), account.client("stepfunctions")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    use = allow("kms:Decrypt", "kms:GenerateDataKey", resource=key)
    role = account.role("Machine", use, trust=STATES)
    definition = json.dumps(
        {"StartAt": "A", "States": {"A": {"Type": "Pass", "Result": SECRET, "End": True}}},
    )
    configuration = {"type": "CUSTOMER_MANAGED_KMS_KEY", "kmsKeyId": key, "kmsDataKeyReusePeriodSeconds": 60}
    machine = states.create_state_machine(
        name="sealed", definition=definition, roleArn=role, encryptionConfiguration=configuration
    )["stateMachineArn"]
    assert states.describe_state_machine(stateMachineArn=machine)["encryptionConfiguration"] == configuration
    made = Machines(account, states)
    found = made.ended(made.started(machine, {"given": SECRET + "-input"}))
    assert (found["status"], found["output"]) == ("SUCCEEDED", SECRET)
    # Nothing of it lies readable on the disk.
    for path in on_disk(account.platform.data):
        assert not lies_in(path, SECRET.encode()), path
    # Who may not use the key sees that there is something, and not what.
    account.role("Reader", allow("states:*"))
    reader = account.client("stepfunctions", account.as_role("Reader"))
    assert _code(reader.describe_state_machine, stateMachineArn=machine) == "KmsAccessDeniedException"
    assert _code(reader.describe_execution, executionArn=found["executionArn"]) == "KmsAccessDeniedException"
    assert _code(reader.get_execution_history, executionArn=found["executionArn"]) == "KmsAccessDeniedException"
    seen = reader.describe_execution(executionArn=found["executionArn"], includedData="METADATA_ONLY")
    assert seen["status"] == "SUCCEEDED" and "output" not in seen
    # A role that may not use it starts nothing.
    other = account.role("Keyless", allow("s3:*"), trust=STATES)
    lame = states.create_state_machine(
        name="lame", definition=definition, roleArn=other, encryptionConfiguration=configuration
    )["stateMachineArn"]
    assert _code(states.start_execution, stateMachineArn=lame) == "KmsAccessDeniedException"
    # With the key disabled nothing starts and nothing is read.
    kms.disable_key(KeyId=key)
    with pytest.raises(ClientError) as caught:
        states.start_execution(stateMachineArn=machine)
    assert caught.value.response["Error"]["Code"] == "KmsInvalidStateException"
    assert caught.value.response.get("kmsKeyState") == "DISABLED"
    assert _code(states.describe_execution, executionArn=found["executionArn"]) == "KmsInvalidStateException"
    kms.enable_key(KeyId=key)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        try:
            arn = states.start_execution(stateMachineArn=machine)["executionArn"]
            break
        except ClientError:
            time.sleep(0.1)
    assert made.ended(arn)["status"] == "SUCCEEDED"
