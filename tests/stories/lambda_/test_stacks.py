"""A stack brings a function in its template and a resource that this function makes."""

from __future__ import annotations

from tests.moved import until
from tests.platform import Account

TEMPLATE = """
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Principal: {Service: lambda.amazonaws.com}, Action: "sts:AssumeRole"}]
  Function:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.12
      Handler: index.handler
      Role: !GetAtt Role.Arn
      Code:
        ZipFile: |
          import cfnresponse
          def handler(event, context):
              word = event["ResourceProperties"]["Word"]
              status = cfnresponse.FAILED if word == "never" else cfnresponse.SUCCESS
              cfnresponse.send(event, context, status, {"Made": word + "!"}, "the-thing", reason="it says no")
  Thing:
    Type: Custom::Thing
    Properties: {ServiceToken: !GetAtt Function.Arn, Word: WORD}
Outputs:
  Made: {Value: !GetAtt Thing.Made}
"""


def test_a_custom_resource_of_inline_code(account: Account) -> None:
    stacks = account.client("cloudformation")

    def ended(name: str) -> str:
        found: str = stacks.describe_stacks(StackName=name)["Stacks"][0]["StackStatus"]
        return "" if found.endswith("PROGRESS") else found

    for word, status in (("hello", "CREATE_COMPLETE"), ("never", "ROLLBACK_COMPLETE")):
        body = TEMPLATE.replace("WORD", word)
        stacks.create_stack(StackName=f"s-{word}", TemplateBody=body, Capabilities=["CAPABILITY_IAM"])
        until(lambda word=word: ended(f"s-{word}"), 30)
        assert ended(f"s-{word}") == status
    [made] = stacks.describe_stacks(StackName="s-hello")["Stacks"][0]["Outputs"]
    assert made["OutputValue"] == "hello!"
    reasons = [
        one.get("ResourceStatusReason", "") for one in stacks.describe_stack_events(StackName="s-never")["StackEvents"]
    ]
    assert any("it says no" in one for one in reasons), reasons
