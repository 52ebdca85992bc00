"""Tells PyInstaller, by the entry point ``pyinstaller40``, where the hook for this package is."""

from pathlib import Path


def get_hook_dirs() -> list[str]:
    """The folders of hooks."""
    return [str(Path(__file__).parent)]
