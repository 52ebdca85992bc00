"""The experiment ``words`` alone: python examples/words.py (--help has its options).

Its code is nalu_kernels/experiments/words.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["words", *sys.argv[1:]]))
