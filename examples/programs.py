"""The experiment ``programs`` alone: python examples/programs.py (--help has its options).

Its code is nalu_kernels/experiments/programs.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["programs", *sys.argv[1:]]))
