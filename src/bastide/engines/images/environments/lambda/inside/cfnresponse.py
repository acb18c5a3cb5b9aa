"""How a function that CloudFormation calls for a custom resource answers it.

The interface is that of the module which AWS puts beside the code that a template brings itself (CloudFormation User Guide,
"cfn-response module"): ``send(event, context, responseStatus, responseData, ...)``.
"""

import json
import urllib.request

SUCCESS = "SUCCESS"
FAILED = "FAILED"


def send(
    event,
    context,
    responseStatus,  # noqa: N803
    responseData,  # noqa: N803
    physicalResourceId=None,  # noqa: N803
    noEcho=False,  # noqa: N803
    reason=None,
):
    """Puts the answer to the address that the event names. What goes wrong is printed and not raised, as AWS's does."""
    told = {
        "Status": responseStatus,
        "Reason": reason or f"See the details in CloudWatch Log Stream: {context.log_stream_name}",
        "PhysicalResourceId": physicalResourceId or context.log_stream_name,
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
        "NoEcho": noEcho,
        "Data": responseData,
    }
    body = json.dumps(told).encode()
    # The address is signed for a request without a type.
    asked = urllib.request.Request(event["ResponseURL"], body, {"Content-Type": ""}, method="PUT")  # noqa: S310
    try:
        with urllib.request.urlopen(asked, timeout=30) as answer:  # noqa: S310
            print("Status code:", answer.status)  # noqa: T201
    except Exception as error:
        print("send(..) failed executing the request:", error)  # noqa: T201
