"""python -m dvaepp."""

from dvaepp.cli import main

raise SystemExit(main())
