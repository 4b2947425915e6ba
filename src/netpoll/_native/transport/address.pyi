from typing import final

NATIVE_FAMILIES: tuple[int, ...]

@final
class DatagramMemory:
    def __init__(self) -> None: ...
