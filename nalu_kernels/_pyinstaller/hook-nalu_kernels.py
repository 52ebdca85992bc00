"""What PyInstaller cannot see by reading imports: the compiled operators, which torch loads by
their paths, and the sources of the Triton kernels, which Triton compiles."""

from PyInstaller.utils.hooks import collect_dynamic_libs

_MODULES = [f"{name}.*{suffix}" for name in ("_cpu", "_cuda") for suffix in ("so", "pyd", "dylib")]

binaries = collect_dynamic_libs("nalu_kernels", search_patterns=_MODULES)
module_collection_mode = "pyz+py"
