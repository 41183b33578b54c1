"""`python -m aurefine` is the same as the command `aurefine`."""

from __future__ import annotations

import sys

from aurefine.cli.main import main

sys.exit(main())
