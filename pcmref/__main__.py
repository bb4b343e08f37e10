import sys

from pcmref.cli import main

sys.exit(main())
