"""The landing zone: a company's accounts, guardrails, networks, keys, buckets and roles, declared in one blueprint.

`blueprint` reads the file, `rendering` makes CloudFormation templates of it, `access` says who may do what once they stand,
`applying` deploys them as any client of AWS would. Nothing here knows the platform from within.
"""
