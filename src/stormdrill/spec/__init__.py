"""From what people write, YAML and Markdown, to models; all problems at once, each with its place.

What lives here: readers, the grammar of expressions, the JSON Schema. What must not: defaults that hide a mistake.
Entry points: `load.read_experiment`, `system.read_system`, `profile.read_profile`, `policy.read_policy`,
`runbook.read_runbook`, `expression.parse_expression`, `schema.schema`, `catalogue`.
"""
