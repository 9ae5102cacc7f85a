"""python -m flashpol"""

import sys

from flashpol.cli.main import main

sys.exit(main())
