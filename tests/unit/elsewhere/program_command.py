"""The command line."""

import sys

from swarmcg.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
