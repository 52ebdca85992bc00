"""The Triton back end: imported by ``dispatch`` when a GPU tensor first needs it."""
