"""Other tools that are Python libraries: each a script that fetches ``URL`` to ``FILE`` and expects ``SHA256``."""
