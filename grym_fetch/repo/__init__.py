"""Large files and git: find them, move them out, bring them back.

Rules: nothing here rewrites history or runs a git command that changes anything. What a record or a placeholder says is
foreign text; it is checked before a path of it is used.
"""
