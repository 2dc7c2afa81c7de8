"""Run the command line with `python -m msem`."""

from msem.cli import main

raise SystemExit(main())
