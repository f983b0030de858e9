"""From what people write, YAML and Markdown, to models; all problems at once, each with its place.

What lives here: readers, the grammar of expressions, the JSON Schema. What must not: defaults that hide a mistake.
"""
