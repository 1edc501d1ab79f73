from paredown.export import compressed_tensors, native
from paredown.export.formats import Format, best_format, write
from paredown.export.plan_json import check_plan, load_plan, save_plan
from paredown.export.refusals import Refusal

__all__ = ["Format", "Refusal", "best_format", "check_plan", "compressed_tensors", "load_plan", "native", "save_plan", "write"]
