"""Large files and git: find them, move them out, bring them back.

Rules: nothing here rewrites history or runs a git command that changes anything. Others may have written a record or a
placeholder; a path in it is checked before it is used.
"""
