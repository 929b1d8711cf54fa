"""``python -m tabkit``."""

from tabkit.cli import main

main()
