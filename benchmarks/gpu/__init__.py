"""Everything that needs a GPU, in one run of at most nine minutes: ``python -m benchmarks.gpu``.

Three steps, each in processes of its own that a crash or a hang cannot take the others with:
``parity`` runs the tests marked gpu, ``sanitizer`` a small set under compute-sanitizer, and
``benchmarks`` measures speed, memory and error. The results file is written again after each step
and each case. ``--dry-run`` does all of it on a CPU, with small shapes and Triton's interpreter.
"""
