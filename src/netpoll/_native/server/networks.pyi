"""Types of server/networks.pyx."""

class Networks:
    def __init__(self, words: str) -> None: ...
