"""The Triton back end: imported, but for ``deferred.py``, when a GPU tensor first needs it."""

NAMESPACE = "nalu_kernels_triton"
# That it has kernels of.
_LAYERS = ("nac", "nalu", "nau", "nmu", "inalu", "npu", "nru", "nmru")
_CELLS = ("nac", "nalu", "nau", "nmu", "inalu", "npu")
FUNCTIONS = (
    *_LAYERS,
    *(f"{layer}_unroll" for layer in _CELLS),
    *(f"{layer}_units" for layer in _LAYERS),
)
