"""Load a pre-trained model: from the hub, from a local folder, or one of the demos."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from paredown import demos, shape_record
from paredown.errors import ParedownError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
_REMOTE_CODE = "pass trust_remote_code=True only after reading the code that the repository brings"


@dataclass(frozen=True)
class LoadedModel:
    """A model as everything else here takes it.

    Attributes:
        id: The name that it was loaded by.
        label: A short name to show.
        model: In evaluation mode, on the CPU, without gradients. Computes in float32 where the checkpoint is in half precision:
            what is measured is then the compression, not the rounding of the arithmetic.
        processor: Tokenizer, image processor or both, where the folder has one.
        digest: 16 hexadecimal digits of the SHA-256 of all weights, names sorted.
        dtype: Type that most of the checkpoint's numbers are stored in, such as ``float16``.
        bytes: Size of the checkpoint's tensors in that type; tied ones counted once.
        notice: Something that the user must know; may be empty.
    """

    id: str
    label: str
    model: nn.Module
    processor: Any | None
    digest: str
    dtype: str
    bytes: int
    notice: str = ""


def load(name: str, *, trust_remote_code: bool = False) -> LoadedModel:
    """Load a model and its processor.

    Args:
        name: ``demo:NAME`` (see `paredown.demos.names`), a local folder with ``config.json`` and ``model.safetensors``, one that
            `paredown.structure.save` has written, or an id of the Hugging Face hub, such as ``distilbert/distilbert-base-uncased-finetuned-sst-2-english``.
        trust_remote_code: Whether code that the model's repository brings may run.

    Raises:
        ParedownError: If there is no such model, it cannot be reached, its weights are not in safetensors, are incomplete or not
            finite, or it needs code of its own.
    """
    if name.startswith("demo:"):
        return _load_demo(name)
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        _check_folder(folder)
        source, label = str(folder), folder.resolve().name
    elif re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) is None or name.startswith(".") or folder.exists():
        raise ParedownError(
            f"expected a folder with config.json and model.safetensors, a hub id such as owner/name, or one of {_demo_names()}; there is no folder {name!r}"
        )
    else:
        source, label = name, name.split("/")[-1]
    with _quiet():
        config = _config(source, trust_remote_code)
        record = shape_record.read(folder) if source == str(folder) else None
        model = _build(source, config, trust_remote_code) if record is None else _build_shrunk(folder, config, record)
        processor = _processor(source, model, trust_remote_code)
        dtype = _stored_dtype(source)
    return described(name, label, model, processor, dtype)


def _load_demo(name: str) -> LoadedModel:
    if name.removeprefix("demo:") not in demos.names:
        raise ParedownError(f"expected one of the demos {_demo_names()}, got {name}")
    demo = demos.find(name)
    source = str(demos.fetch(name))
    with _quiet():
        config = _config(source, False)
        config.architectures = [demo.architecture]
        config.update(dict(demo.overrides))
        model = _build(source, config, False, supplied=demo.supplies)
        if demo.adapt is not None:
            demo.adapt(model)
        processor = _processor(source, model, False)
        dtype = _stored_dtype(source)
    return described(name, demo.label, model, processor, dtype, demo.notice)


def described(name: str, label: str, model: nn.Module, processor: Any, dtype: torch.dtype, notice: str = "") -> LoadedModel:
    """A model in memory as everything else here takes it, with the digest and the bytes that its weights have now.

    Args:
        name: Where it came from.
        label: To show.
        model: The model; put in evaluation mode, without gradients.
        processor: Tokenizer, image processor or both.
        dtype: Type that its weights are stored in.
        notice: Something that the user must know.

    Raises:
        ParedownError: If a weight is NaN or infinite.
    """
    model.eval().requires_grad_(False)
    tensors = distinct_tensors(model)
    check_finite(tensors)
    size = sum(tensor.numel() * (dtype.itemsize if tensor.is_floating_point() else tensor.itemsize) for tensor in tensors.values())
    return LoadedModel(name, label, model, processor, digest(tensors), str(dtype).removeprefix("torch."), size, notice)


def distinct_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Every tensor that a checkpoint of the model holds, names sorted; of tied ones only that of the first name."""
    seen: set[int] = set()
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if id(tensor) not in seen:
            seen.add(id(tensor))
            tensors[name] = tensor.detach()
    return tensors


def digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """The first 16 hexadecimal digits of the SHA-256 over name, type, shape and bytes of each tensor, names sorted."""
    sha = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        sha.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        sha.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()[:16]


def check_finite(tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse NaN and infinite weights.

    Raises:
        ParedownError: Naming the first tensors that hold one.
    """
    bad = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all())]
    if bad:
        raise ParedownError(
            f"expected finite weights, got NaN or infinite values in {_some(bad)}; the checkpoint is damaged or its training diverged: "
            "download it again or take an earlier one"
        )


def _check_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        raise ParedownError(f"expected config.json in {folder}, found none; save the model with model.save_pretrained(folder)")
    if any(folder.glob("*.safetensors")):
        return
    if any(folder.glob("*.bin")) or any(folder.glob("*.pt")):
        raise ParedownError(
            f"{folder} has its weights only as pickle files (.bin or .pt), which can run any code when they are opened; "
            "expected model.safetensors: load the model where you trust it and save it again with model.save_pretrained(folder)"
        )
    raise ParedownError(f"expected model.safetensors in {folder}, found no weights; save the model with model.save_pretrained(folder)")


def _config(source: str, trust_remote_code: bool) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(source, trust_remote_code=trust_remote_code)
    except OSError as error:
        raise _unreachable(source, error) from error
    except ValueError as error:  # an unknown model type, or code that the user has not allowed
        raise ParedownError(
            f"transformers {transformers.__version__} cannot read the configuration of {source}: {_first_line(error)}; upgrade transformers, or {_REMOTE_CODE}"
        ) from error


def _build(source: str, config: Any, trust_remote_code: bool, supplied: tuple[str, ...] = ()) -> nn.Module:
    cls = _class(source, config, trust_remote_code)
    options: dict[str, Any] = {"trust_remote_code": True} if trust_remote_code else {}
    try:
        model, info = cls.from_pretrained(
            source, config=config, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except OSError as error:
        raise _unreachable(source, error) from error
    except RuntimeError as error:  # shapes that do not match the configuration
        raise ParedownError(
            f"the weights of {source} do not fit {cls.__name__}: {_first_line(error)}; check that config.json belongs to them"
        ) from error
    except Exception as error:
        if type(error).__name__ != "SafetensorError":  # a class of the Rust extension, which derives from Exception directly
            raise
        raise ParedownError(
            f"the weights of {source} cannot be read ({_first_line(error)}): the file is cut off or damaged; download it again"
        ) from error
    missing = sorted(set(info["missing_keys"]) - set(supplied))
    if missing:
        raise ParedownError(
            f"expected the checkpoint of {source} to hold every tensor of {cls.__name__}, it lacks {_some(missing)}, which would be random; "
            "take a checkpoint that was trained for the task"
        )
    return model


def _build_shrunk(folder: Path, config: Any, record: shape_record.ShapeRecord) -> nn.Module:
    """The model of the config, changed to the record's shapes, with every weight of the folder in place.

    Raises:
        ParedownError: If the weights are not there, can't be read, or are not those of config and record.
    """
    model: Any = _class(str(folder), config, False)._from_config(config, dtype=torch.float32)
    shape_record.reshape_(model, record)
    try:
        tensors = load_file(folder / shape_record.WEIGHTS)
        missing, unexpected = model.load_state_dict(tensors, strict=False)
    except (OSError, SafetensorError) as error:
        raise ParedownError(
            f"expected the weights of a shrunk model in {folder / shape_record.WEIGHTS}, but they can't be read: {_first_line(error)}; shrink it again"
        ) from error
    except RuntimeError as error:
        raise ParedownError(
            f"the weights of {folder} have other shapes than {shape_record.FILE} and config.json say ({_some(str(error).splitlines()[1:])}); shrink the model again"
        ) from error
    missing = sorted(set(missing) - (model.state_dict().keys() - distinct_tensors(model).keys()))
    if missing or unexpected:
        raise ParedownError(
            f"{folder} does not hold the tensors of its config.json and {shape_record.FILE}: "
            f"missing {_some(missing) or 'none'}, unexpected {_some(unexpected) or 'none'}; shrink the model again"
        )
    return model


def _class(source: str, config: Any, trust_remote_code: bool) -> Any:
    architectures = config.architectures
    if not architectures:
        raise ParedownError(
            f'expected "architectures" in the config.json of {source}, found none; name the model\'s class there, such as ["BertForSequenceClassification"]'
        )
    name = architectures[0]
    if hasattr(transformers, name):
        return getattr(transformers, name)
    remote = [auto for auto, path in (getattr(config, "auto_map", None) or {}).items() if str(path).endswith("." + name)]
    if not remote:
        raise ParedownError(f"transformers {transformers.__version__} has no class {name}, which {source} asks for; upgrade transformers")
    if not trust_remote_code:
        raise ParedownError(f"{source} brings the code of its class {name}, which was not run; {_REMOTE_CODE}")
    return getattr(transformers, remote[0])


def _processor(source: str, model: nn.Module, trust_remote_code: bool) -> Any | None:
    """What prepares the model's inputs; None where the folder has none: data may well come ready-made."""
    by_input = {
        "input_ids": (transformers.AutoTokenizer,),
        "pixel_values": (transformers.AutoImageProcessor,),
        "input_features": (transformers.AutoFeatureExtractor, transformers.AutoTokenizer),
        "input_values": (transformers.AutoFeatureExtractor, transformers.AutoTokenizer),
    }
    parts: list[Any] = []
    for auto in by_input.get(getattr(model, "main_input_name", ""), ()):
        try:
            parts.append(auto.from_pretrained(source, trust_remote_code=trust_remote_code))
        except (
            OSError,
            ValueError,
            ImportError,
            KeyError,
            TypeError,
        ):  # what transformers raises for absent or incomplete files differs by model
            parts.append(None)
    if len(parts) == 1:
        return parts[0]
    return SpeechProcessor(*parts) if parts and parts[0] is not None else None


@dataclass(frozen=True)
class SpeechProcessor:
    """Feature extractor and tokenizer of a speech model, under the names that transformers' processors use."""

    feature_extractor: Any
    tokenizer: Any | None


def _stored_dtype(source: str) -> torch.dtype:
    """The type of most of the numbers in the checkpoint's files."""
    folder = Path(source)
    if not folder.is_dir():
        snapshot = huggingface_hub.try_to_load_from_cache(source, "config.json")
        if not isinstance(snapshot, str):
            return torch.float32
        folder = Path(snapshot).parent
    counts: Counter[torch.dtype] = Counter()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118  (not a mapping)
                tensor = file.get_slice(name)
                if tensor.get_dtype() in _DTYPES:
                    counts[_DTYPES[tensor.get_dtype()]] += math.prod(tensor.get_shape())
    return counts.most_common(1)[0][0] if counts else torch.float32


def _unreachable(source: str, error: OSError) -> ParedownError:
    if Path(source).is_dir():
        return ParedownError(f"transformers cannot load {source}: {_first_line(error)}")
    return ParedownError(
        f"expected a local folder or a model of the Hugging Face hub, cannot get {source}: {_first_line(error)}. "
        f"Check the name and the network (gated models need huggingface-cli login); offline, give a local folder or one of {_demo_names()}. "
        "Only safetensors weights are loaded"
    )


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__).rstrip(".")


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _demo_names() -> str:
    return ", ".join(f"demo:{name}" for name in demos.names)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and the log below errors of transformers and its hub client, and put them back."""
    logs = (transformers.utils.logging, huggingface_hub.logging)
    verbosities = [log.get_verbosity() for log in logs]
    bars = transformers.utils.logging.is_progress_bar_enabled()
    for log in logs:
        log.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        yield
    finally:
        for log, verbosity in zip(logs, verbosities, strict=True):
            log.set_verbosity(verbosity)
        if bars:
            transformers.utils.logging.enable_progress_bar()
