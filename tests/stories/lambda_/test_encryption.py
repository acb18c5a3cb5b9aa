"""Environment variables under a key of one's own: for who may decrypt, and while the key is enabled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.platform import Account, allow
from tests.stories.lambda_.conftest import Bench

CODE = "import os\ndef handler(event, context): return os.environ['WORD']"


def _key(account: Account) -> str:
    return str(account.client("kms").create_key()["KeyMetadata"]["Arn"])


def _code(ask: Any, **given: Any) -> str:
    with pytest.raises(ClientError) as refused:
        ask(**given)
    return str(refused.value.response["Error"]["Code"])


@pytest.mark.control("ENC-08")
def test_variables_under_a_customers_key(bench: Bench) -> None:
    account, client, key = bench.account, bench.client, _key(bench.account)
    kms = account.client("kms")
    name = bench.make(CODE, KMSKeyArn=key, Environment={"Variables": {"WORD": "of mine"}})
    shown = client.get_function_configuration(FunctionName=name)
    assert (shown["KMSKeyArn"], shown["Environment"]["Variables"]) == (key, {"WORD": "of mine"})
    assert bench.invoke(name).payload == "of mine"
    [grant] = kms.list_grants(KeyId=key)["Grants"]
    context = {"aws:lambda:FunctionArn": shown["FunctionArn"]}
    assert grant["GranteePrincipal"] == bench.role and grant["Constraints"] == {"EncryptionContextEquals": context}

    # Who may not decrypt reads the configuration, and not the variables.
    account.role("reader", allow("lambda:*"))
    reader = account.client("lambda", account.as_role("reader"))
    found = reader.get_function_configuration(FunctionName=name)
    assert "Variables" not in found["Environment"] and found["KMSKeyArn"] == key
    assert found["Environment"]["Error"]["ErrorCode"] == "AccessDeniedException"
    assert "kms:Decrypt" in found["Environment"]["Error"]["Message"]
    assert _code(reader.update_function_configuration, FunctionName=name, KMSKeyArn="") == "AccessDeniedException"
    assert reader.invoke(FunctionName=name)["StatusCode"] == 200, "the function's role may decrypt, whoever invokes"

    # With the key disabled nothing runs with them, not even what is warm.
    kms.disable_key(KeyId=key)
    assert _code(client.invoke, FunctionName=name) == "KMSDisabledException"
    assert (
        client.get_function_configuration(FunctionName=name)["Environment"]["Error"]["ErrorCode"] == "DisabledException"
    )
    kms.enable_key(KeyId=key)
    assert bench.invoke(name).payload == "of mine"

    # Without the grant the role has nothing that lets it decrypt.
    kms.revoke_grant(KeyId=key, GrantId=grant["GrantId"])
    assert _code(client.invoke, FunctionName=name) == "KMSAccessDeniedException"

    # Back under the platform's own key.
    client.update_function_configuration(FunctionName=name, KMSKeyArn="")
    assert "KMSKeyArn" not in bench.settled(name) and bench.invoke(name).payload == "of mine"


@pytest.mark.control("ENC-08")
def test_a_key_that_cannot_be_used_is_refused_at_once(bench: Bench) -> None:
    key = _key(bench.account)
    variables = {"Variables": {"WORD": "x"}}
    statement = {"Effect": "Allow", "Action": ["lambda:*", "iam:PassRole"], "Resource": "*"}
    bench.account.role("maker", {"Version": "2012-10-17", "Statement": [statement]})
    maker = Bench(bench.account, bench.role, bench.account.client("lambda", bench.account.as_role("maker")))
    assert _code(maker.make, code=CODE, KMSKeyArn=key, Environment=variables) == "AccessDeniedException"
    bench.account.client("kms").disable_key(KeyId=key)
    assert _code(bench.make, code=CODE, KMSKeyArn=key, Environment=variables) == "InvalidParameterValueException"
    assert json.dumps(bench.client.list_functions()["Functions"]) == "[]"
