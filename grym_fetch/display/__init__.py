"""What a person sees of a sync, on stderr: a live picture on a terminal, plain lines elsewhere, or nothing.

Rules: a display only reads events; it can neither slow nor end a transfer. Rich is imported only when a live picture is
actually drawn, and nothing that is slow to import for what is written once (`sheet`). Untrusted text is made harmless
before it is shown.
"""
