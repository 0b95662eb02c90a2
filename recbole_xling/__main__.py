"""``python -m recbole_xling`` is the command ``recbole-xling``."""

from recbole_xling.cli.main import script_main

script_main()
