"""Rules that a stage's conditions can have.

Source: CodePipeline User Guide, "Rule structure reference".
"""

from __future__ import annotations

from typing import Final

from bastide.kernel import Ask, Authorised, Output, anything
from bastide.services.codepipeline.action_type import Setting
from bastide.services.codepipeline.noun import PIPELINE
from bastide.store import View

RULES: Final = {
    "CloudWatchAlarm": {"AlarmName": Setting(True, key=True), "AlarmStates": Setting(), "WaitTime": Setting()},
    "DeploymentWindow": {"Cron": Setting(True, key=True), "TimeZone": Setting()},
    "LambdaInvoke": {"FunctionName": Setting(True, key=True), "UserParameters": Setting()},
    "VariableCheck": {
        "Variable": Setting(True, key=True),
        "Value": Setting(True),
        "Operator": Setting(True, ("EQ", "NE", "CONTAINS", "MATCHES")),
    },
}
"""By provider. CodeBuild and Commands run builds of their own: they are not there."""


@PIPELINE.reads("ListRuleTypes", asks=[Ask("codepipeline:ListRuleTypes", anything)])
def list_rule_types(a: Authorised, view: View) -> Output:
    return {
        "ruleTypes": [
            {
                "id": {"category": "Rule", "owner": "AWS", "provider": provider, "version": "1"},
                "settings": {},
                "ruleConfigurationProperties": [
                    {"name": name, "required": held.required, "key": held.key, "secret": False, "type": "String"}
                    for name, held in settings.items()
                ],
                "inputArtifactDetails": {"minimumCount": 0, "maximumCount": 0},
            }
            for provider, settings in RULES.items()
        ]
    }
