"""Tests of policies, written as cases in YAML: `bastide policy test`, and a pytest plugin that collects them.

`cases.read` reads and checks a file, `running.run` decides its cases by the engine that guards calls. The format is in
docs/policy-tools.md. Nothing is imported here: the plugin is loaded wherever pytest starts.
"""
