# PyInstaller reads what Python modules import, and cannot read it in extensions. The harness is no
# part of a program.
from PyInstaller.utils.hooks import collect_submodules

APART = ("netpoll.bench", "netpoll._pyinstaller")

hiddenimports = collect_submodules("netpoll", filter=lambda name: not name.startswith(APART))
