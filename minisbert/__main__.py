"""`python -m minisbert`."""

import sys

from .cli import main

sys.exit(main())
