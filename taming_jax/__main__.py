"""`python -m taming_jax VERB`: see `taming_jax.cli`."""

import sys

from taming_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
