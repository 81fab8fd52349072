"""``python -m search``."""

import atexit
import gc

gc.set_threshold(50_000, 20, 20)  # the libraries that a command loads make millions of objects, all of which stay
atexit.register(gc.freeze)  # nor need they be looked at once more as the process ends

from search.cli.app import main  # noqa: E402

if __name__ == "__main__":
    main()
