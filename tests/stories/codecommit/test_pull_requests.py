"""Pull requests: what they follow, who approves them, how they are merged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.platform import Account, Keys, allow
from tests.stories.codecommit.remote import Remote
from tests.stories.codecommit.test_git import code

NAME = {"repositoryName": "code"}


def rule(count: int, *members: str, **more: Any) -> str:
    statement = {"Type": "Approvers", "NumberOfApprovalsNeeded": count, "ApprovalPoolMembers": list(members)}
    return json.dumps({"Version": "2018-11-08", **more, "Statements": [statement]})


def commit(client: Any, branch: str, path: str, raw: bytes) -> str:
    tip = client.get_branch(**NAME, branchName=branch)["branch"]["commitId"]
    made = client.put_file(**NAME, branchName=branch, filePath=path, fileContent=raw, parentCommitId=tip)
    return str(made["commitId"])


@pytest.fixture
def begun(remote: Remote) -> Remote:
    """A repository with a file on main, and a branch `work` that changes it and adds another."""
    client = remote.client
    first = client.put_file(**NAME, branchName="main", filePath="a", fileContent=b"1\n2\n3\n4\n5\n6\n7\n")["commitId"]
    client.create_branch(**NAME, branchName="work", commitId=first)
    commit(client, "work", "a", b"one\n2\n3\n4\n5\n6\n7\n")
    commit(client, "work", "b", b"new\n")
    return remote


def people(account: Account) -> tuple[Keys, Keys, Keys]:
    account.role("Developer", allow("codecommit:*"))
    account.role("Reviewer", allow("codecommit:*"))
    return (
        account.as_role("Developer", "ann"), account.as_role("Reviewer", "bob"), account.as_role("Developer", "cleo"),
    )  # fmt: skip


@pytest.mark.control("EXP-20")
def test_nobody_approves_their_own_and_too_few_do_not_merge(begun: Remote) -> None:
    account = begun.account
    ann, bob, cleo = (account.client("codecommit", keys) for keys in people(account))
    admin = begun.client
    pool = f"CodeCommitApprovers:{account.id}:assumed-role/Reviewer/*"
    content = rule(1, pool, DestinationReferences=["refs/heads/main"])
    admin.create_approval_rule_template(approvalRuleTemplateName="review", approvalRuleTemplateContent=content)
    admin.associate_approval_rule_template_with_repository(approvalRuleTemplateName="review", **NAME)
    assert code(admin.delete_approval_rule_template, approvalRuleTemplateName="review") == (
        "ApprovalRuleTemplateInUseException"
    )
    targets = [{**NAME, "sourceReference": "work", "destinationReference": "main"}]
    made = ann.create_pull_request(title="better", targets=targets, clientRequestToken="t")["pullRequest"]
    again = ann.create_pull_request(title="better", targets=targets, clientRequestToken="t")["pullRequest"]
    assert again["pullRequestId"] == made["pullRequestId"] == "1"
    assert made["approvalRules"][0]["originApprovalRuleTemplate"]["approvalRuleTemplateName"] == "review"
    id = {"pullRequestId": made["pullRequestId"]}
    now = {**id, "revisionId": made["revisionId"]}
    assert code(ann.update_pull_request_approval_state, **now, approvalState="APPROVE") == (
        "PullRequestCannotBeApprovedByAuthorException"
    )
    assert code(ann.merge_pull_request_by_fast_forward, **id, **NAME) == "PullRequestApprovalRulesNotSatisfiedException"
    cleo.update_pull_request_approval_state(**now, approvalState="APPROVE")
    assert bob.evaluate_pull_request_approval_rules(**now)["evaluation"]["approvalRulesNotSatisfied"] == ["review"]
    assert code(
        ann.update_pull_request_approval_rule_content, **id, approvalRuleName="review", newRuleContent=rule(1)
    ) == "CannotModifyApprovalRuleFromTemplateException"  # fmt: skip
    bob.update_pull_request_approval_state(**now, approvalState="APPROVE")
    assert bob.evaluate_pull_request_approval_rules(**now)["evaluation"]["approved"]

    # What is pushed afterwards nobody has approved.
    commit(ann, "work", "b", b"worse\n")
    later = ann.get_pull_request(**id)["pullRequest"]
    assert later["revisionId"] != made["revisionId"]
    assert code(bob.update_pull_request_approval_state, **now, approvalState="APPROVE") == "RevisionNotCurrentException"
    assert code(ann.merge_pull_request_by_squash, **id, **NAME) == "PullRequestApprovalRulesNotSatisfiedException"
    now["revisionId"] = later["revisionId"]
    assert not ann.get_pull_request_approval_states(**now)["approvals"]
    bob.update_pull_request_approval_state(**now, approvalState="APPROVE")
    bob.update_pull_request_approval_state(**now, approvalState="REVOKE")
    assert code(ann.merge_pull_request_by_squash, **id, **NAME) == "PullRequestApprovalRulesNotSatisfiedException"
    bob.override_pull_request_approval_rules(**now, overrideStatus="OVERRIDE")
    assert ann.get_pull_request_override_state(**now)["overridden"]
    tip = later["pullRequestTargets"][0]["sourceCommit"]
    assert code(ann.merge_pull_request_by_squash, **id, **NAME, sourceCommitId="0" * 40) == (
        "TipOfSourceReferenceIsDifferentException"
    )
    merged = ann.merge_pull_request_by_squash(**id, **NAME, sourceCommitId=tip, authorName="Ann")["pullRequest"]
    metadata = merged["pullRequestTargets"][0]["mergeMetadata"]
    assert merged["pullRequestStatus"] == "CLOSED" and metadata["mergeOption"] == "SQUASH_MERGE"
    main = admin.get_branch(**NAME, branchName="main")["branch"]["commitId"]
    assert metadata["mergeCommitId"] == main
    assert len(admin.get_commit(**NAME, commitId=main)["commit"]["parents"]) == 1
    assert admin.get_file(**NAME, filePath="b")["fileContent"] == b"worse\n"
    assert (
        code(bob.update_pull_request_approval_state, **now, approvalState="APPROVE")
        == "PullRequestAlreadyClosedException"
    )
    kinds = [one["pullRequestEventType"] for one in admin.describe_pull_request_events(**id)["pullRequestEvents"]]
    assert kinds == [
        "PULL_REQUEST_CREATED", "PULL_REQUEST_APPROVAL_RULE_CREATED", "PULL_REQUEST_APPROVAL_STATE_CHANGED",
        "PULL_REQUEST_APPROVAL_STATE_CHANGED", "PULL_REQUEST_SOURCE_REFERENCE_UPDATED",
        "PULL_REQUEST_APPROVAL_STATE_CHANGED", "PULL_REQUEST_APPROVAL_STATE_CHANGED",
        "PULL_REQUEST_APPROVAL_RULE_OVERRIDDEN", "PULL_REQUEST_MERGE_STATE_CHANGED", "PULL_REQUEST_STATUS_CHANGED",
    ]  # fmt: skip


def test_the_author_is_known_again_in_another_session(begun: Remote) -> None:
    account = begun.account
    trust = [
        {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{account.id}:root"}, "Action": one}
        for one in ("sts:AssumeRole", "sts:SetSourceIdentity")
    ]
    account.client("iam").create_role(
        RoleName="Dev", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": trust})
    )
    account.client("iam").put_role_policy(
        RoleName="Dev", PolicyName="p", PolicyDocument=json.dumps(allow("codecommit:*"))
    )
    arn = f"arn:aws:iam::{account.id}:role/Dev"
    one, other, third = (
        account.client("codecommit", account.platform.assume(arn, account.keys, session, SourceIdentity=who))
        for session, who in (("one", "ann"), ("another", "ann"), ("third", "bob"))
    )
    made = one.create_pull_request(title="t", targets=[{**NAME, "sourceReference": "work"}])["pullRequest"]
    now = {"pullRequestId": made["pullRequestId"], "revisionId": made["revisionId"], "approvalState": "APPROVE"}
    assert code(other.update_pull_request_approval_state, **now) == "PullRequestCannotBeApprovedByAuthorException"
    third.update_pull_request_approval_state(**now)


def test_merges_of_every_kind_and_conflicts(begun: Remote) -> None:
    client = begun.client
    sides = {"sourceCommitSpecifier": "work", "destinationCommitSpecifier": "main"}
    assert client.get_merge_options(**NAME, **sides)["mergeOptions"] == [
        "FAST_FORWARD_MERGE", "SQUASH_MERGE", "THREE_WAY_MERGE",
    ]  # fmt: skip
    commit(client, "main", "a", b"1\n2\n3\n4\n5\n6\nseven\n")
    assert client.get_merge_options(**NAME, **sides)["mergeOptions"] == []
    lines = {**sides, "conflictDetailLevel": "LINE_LEVEL"}
    assert client.get_merge_options(**NAME, **lines)["mergeOptions"] == ["SQUASH_MERGE", "THREE_WAY_MERGE"]
    told = client.get_merge_conflicts(**NAME, **sides, mergeOption="THREE_WAY_MERGE")
    assert not told["mergeable"] and [one["filePath"] for one in told["conflictMetadataList"]] == ["a"]
    assert code(client.merge_branches_by_fast_forward, **NAME, **sides) == "ManualMergeRequiredException"
    assert code(client.merge_branches_by_three_way, **NAME, **sides) == "ManualMergeRequiredException"
    merged = client.merge_branches_by_three_way(**NAME, **lines)["commitId"]
    assert client.get_file(**NAME, filePath="a")["fileContent"] == b"one\n2\n3\n4\n5\n6\nseven\n"
    parents = client.get_commit(**NAME, commitId=merged)["commit"]["parents"]
    assert len(parents) == 2
    found = client.get_merge_commit(**NAME, sourceCommitSpecifier="work", destinationCommitSpecifier=parents[0])
    assert found["mergedCommitId"] == merged

    commit(client, "main", "a", b"mine\n")
    commit(client, "work", "a", b"theirs\n")
    assert not client.get_merge_conflicts(**NAME, **lines, mergeOption="SQUASH_MERGE")["mergeable"]
    by_hand = {"replaceContents": [{"filePath": "a", "replacementType": "USE_NEW_CONTENT", "content": b"both\n"}]}
    assert code(client.merge_branches_by_squash, **NAME, **lines, conflictResolution=by_hand) == (
        "InvalidConflictResolutionException"
    )
    client.merge_branches_by_squash(**NAME, **lines, conflictResolutionStrategy="AUTOMERGE", conflictResolution=by_hand)
    assert client.get_file(**NAME, filePath="a")["fileContent"] == b"both\n"
    commit(client, "work", "a", b"theirs again\n")
    client.merge_branches_by_squash(**NAME, **sides, conflictResolutionStrategy="ACCEPT_SOURCE")
    assert client.get_file(**NAME, filePath="a")["fileContent"] == b"theirs again\n"
    client.create_branch(**NAME, branchName="next", commitId=commit(client, "main", "c", b"c"))
    moved = commit(client, "next", "c", b"d")
    forward = {"sourceCommitSpecifier": "next", "destinationCommitSpecifier": "main"}
    assert client.merge_branches_by_fast_forward(**NAME, **forward)["commitId"] == moved


def test_rules_comments_lists_and_closing(begun: Remote) -> None:
    client = begun.client
    target = {**NAME, "sourceReference": "work"}
    assert code(client.create_pull_request, title="t", targets=[{**target, "destinationReference": "work"}]) == (
        "SourceAndDestinationAreSameException"
    )
    assert code(client.create_pull_request, title="t", targets=[{**target, "sourceReference": "no"}]) == (
        "ReferenceDoesNotExistException"
    )
    made = client.create_pull_request(title="t", description="d", targets=[target])["pullRequest"]
    id = {"pullRequestId": made["pullRequestId"]}
    for bad in ("{}", rule(0), rule(1, "nobody"), rule(1, DestinationReferences=["refs/heads/main"]), "x" * 3000):
        assert code(
            client.create_pull_request_approval_rule, **id, approvalRuleName="r", approvalRuleContent=bad
        ) == "InvalidApprovalRuleContentException"  # fmt: skip
    one = client.create_pull_request_approval_rule(**id, approvalRuleName="r", approvalRuleContent=rule(2))[
        "approvalRule"
    ]
    assert code(
        client.update_pull_request_approval_rule_content, **id, approvalRuleName="r", newRuleContent=rule(1),
        existingRuleContentSha256="0" * 64,
    ) == "InvalidRuleContentSha256Exception"  # fmt: skip
    client.update_pull_request_approval_rule_content(
        **id, approvalRuleName="r", newRuleContent=rule(1), existingRuleContentSha256=one["ruleContentSha256"]
    )
    client.delete_pull_request_approval_rule(**id, approvalRuleName="r")
    assert client.update_pull_request_title(**id, title="u")["pullRequest"]["title"] == "u"
    client.update_pull_request_description(**id, description="e")
    commits = {
        "beforeCommitId": made["pullRequestTargets"][0]["destinationCommit"],
        "afterCommitId": made["pullRequestTargets"][0]["sourceCommit"],
    }
    where = {"filePath": "a", "filePosition": 1, "relativeFileVersion": "AFTER"}
    posted = client.post_comment_for_pull_request(**id, **NAME, **commits, location=where, content="why?")["comment"]
    answer = client.post_comment_reply(inReplyTo=posted["commentId"], content="because")["comment"]
    assert answer["inReplyTo"] == posted["commentId"]
    data = client.get_comments_for_pull_request(**id)["commentsForPullRequestData"]
    assert [one["comments"][0]["content"] for one in data] == ["why?", "because"]
    client.update_comment(commentId=posted["commentId"], content="why then?")
    client.delete_comment_content(commentId=answer["commentId"])
    assert code(client.get_comment, commentId=answer["commentId"]) == "CommentDeletedException"
    assert client.get_comment(commentId=posted["commentId"])["comment"]["content"] == "why then?"
    other = client.create_pull_request(title="2", targets=[target])["pullRequest"]["pullRequestId"]
    assert client.list_pull_requests(**NAME)["pullRequestIds"] == [other, made["pullRequestId"]]
    client.update_pull_request_status(**id, pullRequestStatus="CLOSED")
    assert client.list_pull_requests(**NAME, pullRequestStatus="OPEN")["pullRequestIds"] == [other]
    assert code(client.update_pull_request_status, **id, pullRequestStatus="OPEN") == (
        "InvalidPullRequestStatusUpdateException"
    )
    client.delete_repository(**NAME)
    assert code(client.get_pull_request, pullRequestId=other) == "PullRequestDoesNotExistException"
