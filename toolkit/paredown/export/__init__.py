from paredown.export import compressed_tensors, native
from paredown.export.plan_json import check_plan, load_plan, save_plan
from paredown.export.refusals import Refusal

__all__ = ["Refusal", "check_plan", "compressed_tensors", "load_plan", "native", "save_plan"]
