"""Where PyInstaller finds netpoll's hook: the entry point `pyinstaller40` names get_hook_dirs."""

import os


def get_hook_dirs() -> list[str]:
    return [os.path.dirname(__file__)]
