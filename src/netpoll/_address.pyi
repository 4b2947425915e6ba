NATIVE_FAMILIES: tuple[int, ...]

class DatagramMemory:
    def __init__(self) -> None: ...
