"""The command line: ``avalanche-ad``, one file a command.

Heavy imports happen inside the commands.
"""

from avalanche_ad.cli.commands import app
from avalanche_ad.cli.entry import main

__all__ = ["app", "main"]
