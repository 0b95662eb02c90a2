"""``python run_recbole_xling.py`` is the demonstration; with ``--model=... --dataset=... --key=value``, any run.

With other words it is the command ``recbole-xling``.
"""

import sys
from pathlib import Path

# The folder datasets/ beside this file must not pass for the package of that name, which some libraries look for.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

try:
    from recbole_xling.cli.main import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Install the project first: pip install -e '.[offline]'  (or type: make demo)")

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["demo"]))
