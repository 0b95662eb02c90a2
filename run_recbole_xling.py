"""Train and test a model: ``python run_recbole_xling.py [--model NAME] [--dataset NAME] [--key=value ...]``."""

import sys
from pathlib import Path

# The folder datasets/ beside this file must not pass for the package of that name, which some libraries look for.
sys.path = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).resolve().parent]

try:
    from recbole_xling.cli.main import main
except ModuleNotFoundError as error:
    sys.exit(f"{error}. Install the project first: pip install -e '.[offline]'  (or type: make demo)")

if __name__ == "__main__":
    sys.exit(main())
