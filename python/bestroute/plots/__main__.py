"""python3 -m bestroute.plots is bestroute-plot."""

import sys

from bestroute.plots.main import main

sys.exit(main())
