"""``python -m avalanche_ad.cli``."""

from avalanche_ad.cli.entry import main

main()
