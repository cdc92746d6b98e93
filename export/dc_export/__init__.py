"""From DepthCrafter's checkpoint to engine sets; `dc-export` on the command line."""

from typing import TYPE_CHECKING

from dc_rt.on_demand import on_demand

if TYPE_CHECKING:
    from dc_export.build import build_engines
    from dc_export.export import export_onnx
    from dc_export.profiles import load_profile
    from dc_export.verify import GraphError, verify_engines

__all__ = ["GraphError", "build_engines", "export_onnx", "load_profile", "verify_engines"]

# So that `dc-export --help` does not wait for PyTorch.
__getattr__ = on_demand(
    __name__,
    build="build_engines",
    export="export_onnx",
    profiles="load_profile",
    verify="GraphError verify_engines",
)
