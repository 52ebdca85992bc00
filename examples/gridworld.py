"""The experiment ``gridworld`` alone: python examples/gridworld.py (--help has its options).

Its code is nalu_kernels/experiments/gridworld.py.
"""

import sys

from nalu_kernels.__main__ import main

if __name__ == "__main__":
    sys.exit(main(["gridworld", *sys.argv[1:]]))
