from __future__ import annotations

import copy
import hashlib
import json
import os

import pytest
import torch
import transformers
from safetensors import safe_open

from paredown import sizes
from paredown.apply import Variants, compress_, stored_tensors
from paredown.errors import ParedownError
from paredown.export import best_format, compressed_tensors, load_plan, native, write
from paredown.layers import find_layers, weight_of
from paredown.methods import compress
from paredown.models import LoadedModel
from paredown.specs import BITS, KEEP, Plan, Scheme, WeightFormat, fused_groups
from seen_layers import seen
from some_schemes import FAMILIES
from tiny_models import CASES

PACKED = ["int2g32sym", "int3g64sym", "int4g16sym", "int5sym", "int6g128sym", "int8g64", "int8sym", "int3sym", "int4g64sym-mse", "keep"]
ANY = ["int2g32", "int3g64", "int4g16", "int5", "int6g128sym", "int8g64", "int8sym", "keep", "int3sym", "int4g64-mse"]
WIDEST = Scheme.parse("int8g32")
LOADABLE = sorted(CASES.keys() - {"dinov2"})  # transformers 5.23 loads no compressed DINOv2


def loaded(model, dtype="float32", processor=None):
    return LoadedModel("tiny", "Tiny", model, processor, "0" * 16, dtype, 0)


def plan_of(model, layers, texts, dtype="float32", refused=None):
    """A scheme after the other, fused groups alike; int8, or none, where one is refused."""
    refused, by_name, schemes = refused or {}, {layer.name: layer for layer in layers}, {}
    for index, group in enumerate(fused_groups(layers)):
        tried = [Scheme.parse(texts[index % len(texts)]), WIDEST, KEEP]
        chosen = next(scheme for scheme in tried if not any((name, scheme) in refused for name in group))
        schemes |= dict.fromkeys(group, chosen)
    assert by_name.keys() == schemes.keys()
    fixed = sizes.fixed_bytes(stored_tensors(model, dtype), layers)
    return Plan("tiny", "0" * 16, schemes, sizes.plan_bytes(fixed, layers, schemes))


def loadable_plan(model, layers, texts=PACKED, dtype="float32"):
    return plan_of(model, layers, texts, dtype, compressed_tensors.refusals(model, layers, [WIDEST, *map(Scheme.parse, texts)]))


def logits(model, inputs):
    with torch.no_grad():
        output = model(**inputs)
    return getattr(output, "logits", None) if getattr(output, "logits", None) is not None else output[0]


def compressed(model, layers, plan):
    twin = copy.deepcopy(model)
    compress_(twin, layers, plan.schemes)
    return twin


def relative_error(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", LOADABLE)
def test_plain_transformers_computes_what_our_compressed_model_does(name, tmp_path):
    case = CASES[name]
    model = case.build()
    layers = find_layers(model)
    plan = loadable_plan(model, layers)
    folder = compressed_tensors.write(loaded(model), layers, plan, tmp_path / "out")
    reloaded = type(model).from_pretrained(folder)
    expected = logits(compressed(model, layers, plan), case.inputs())
    assert relative_error(logits(reloaded, case.inputs()), expected) < 1e-5
    assert relative_error(logits(model, case.inputs()), expected) > 1e-4  # or the plan did nothing


@pytest.mark.parametrize("name", CASES)
def test_our_own_format_holds_every_plan(name, tmp_path):
    case = CASES[name]
    model = case.build()
    layers = find_layers(model)
    plan = plan_of(model, layers, ANY)
    folder = native.write(loaded(model), layers, plan, tmp_path / "out")
    reloaded = native.load(folder)
    expected = logits(compressed(model, layers, plan), case.inputs())
    assert relative_error(logits(reloaded, case.inputs()), expected) < 1e-5
    with Variants(model, layers).applied(plan.schemes):
        assert relative_error(logits(reloaded, case.inputs()), logits(model, case.inputs())) < 1e-5


@pytest.mark.parametrize(
    ("texts", "dtype"),
    [(["int4g64sym"], "float32"), (["int3g32sym", "keep"], "bfloat16"), (PACKED, "float16")],
    ids=["uniform", "half-kept", "mixed"],
)
@pytest.mark.parametrize("name", ["bert", "qwen2", "vit", "whisper"])
def test_the_size_model_is_the_files_size(name, texts, dtype, tmp_path):
    model = CASES[name].build()
    model = model.to(getattr(torch, dtype)).float()
    layers = find_layers(model, dtype=dtype)
    plan = loadable_plan(model, layers, texts, dtype)
    for format, weights in (("compressed-tensors", compressed_tensors.WEIGHTS), ("paredown", native.WEIGHTS)):
        folder = write(loaded(model, dtype), layers, plan, tmp_path / format, format)
        assert (folder / weights).stat().st_size == plan.bytes


def with_inputs(model):
    """Weights that need their inputs, of inputs that are random and correlated."""

    def kept(layer, scheme):
        x = torch.randn(50, layer.shape[1], generator=torch.Generator().manual_seed(len(layer.name))).cumsum(1)
        return compress(weight_of(model, layer), scheme, seen(*layer.shape, x=x), dtype=getattr(torch, layer.dtype))

    return kept


@pytest.mark.parametrize(("dtype", "first"), [("float32", 0), ("bfloat16", 1)])
@pytest.mark.parametrize("name", ["bert", "gpt2", "qwen2", "whisper"])
def test_our_own_format_holds_every_scheme_of_the_grammar_to_the_byte(name, dtype, first, tmp_path):
    case = CASES[name]
    model = case.build().to(getattr(torch, dtype)).float()
    layers = find_layers(model, dtype=dtype)
    plan = plan_of(model, layers, [*FAMILIES[first::2], "keep"], dtype)
    kept = with_inputs(model)
    folder = native.write(loaded(model, dtype), layers, plan, tmp_path / "out", kept)
    assert (folder / native.WEIGHTS).stat().st_size == plan.bytes
    reloaded = native.load(folder)
    with Variants(model, layers, kept=kept).applied(plan.schemes):
        expected = logits(model, case.inputs())
    assert relative_error(logits(reloaded, case.inputs()), expected) < 1e-5
    twin = copy.deepcopy(model)
    compress_(twin, layers, plan.schemes, kept)
    assert relative_error(logits(twin, case.inputs()), expected) < 1e-5


@pytest.mark.parametrize("bits", BITS)
def test_word_and_position_embeddings_take_bits_of_their_own(bits, tmp_path):
    case = CASES["bert"]
    model = case.build()
    layers = find_layers(model)
    words, positions = ([layer.name for layer in layers if layer.role == role] for role in ("embedding", "position"))
    assert (len(words), len(positions)) == (1, 1)
    others = {2: "int8", 3: "int6n32", 4: "nf4+50%-mfac", 5: "mxfp4", 6: "int4-gptq+2:4", 8: "int2g64sym"}
    schemes = {words[0]: Scheme(WeightFormat(bits, 32)), positions[0]: Scheme.parse(others[bits])}
    fixed = sizes.fixed_bytes(stored_tensors(model), layers)
    plan = Plan("tiny", "0" * 16, schemes, sizes.plan_bytes(fixed, layers, schemes))
    folder = native.write(loaded(model), layers, plan, tmp_path / "out")
    assert (folder / native.WEIGHTS).stat().st_size == plan.bytes
    with Variants(model, layers).applied(schemes):
        assert relative_error(logits(native.load(folder), case.inputs()), logits(model, case.inputs())) < 1e-5


def test_what_gptq_found_is_plain_integers_for_transformers(tmp_path):
    case = CASES["bert"]
    model = case.build()
    layers = find_layers(model)
    plan = loadable_plan(model, layers, ["int3g64sym-gptq"])
    kept = with_inputs(model)
    folder = write(loaded(model), layers, plan, tmp_path / "out", "compressed-tensors", kept)
    with Variants(model, layers, kept=kept).applied(plan.schemes):
        expected = logits(model, case.inputs())
    assert relative_error(logits(type(model).from_pretrained(folder), case.inputs()), expected) < 1e-5


def test_what_needs_calibration_that_nobody_kept_is_refused(model, layers, tmp_path):
    name = "bert.pooler.dense"
    with pytest.raises(ParedownError, match=rf"{name} by int4g64-gptq: .*what calibration sees of the layer, which is not at hand"):
        native.write(loaded(model), layers, Plan("tiny", "0" * 16, {name: Scheme.parse("int4g64-gptq")}, 0), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_half_precision_is_widened_exactly(tmp_path):
    case = CASES["llama"]
    model = case.build().to(torch.bfloat16).float()
    layers = find_layers(model, dtype="bfloat16")
    plan = loadable_plan(model, layers, dtype="bfloat16")
    folder = compressed_tensors.write(loaded(model, "bfloat16"), layers, plan, tmp_path / "out")
    reloaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
    expected = logits(compressed(model, layers, plan), case.inputs())
    assert relative_error(logits(reloaded, case.inputs()), expected) < 1e-5


def test_the_parts_of_a_processor_are_written(model, layers, plan, tmp_path):
    class Part:
        def save_pretrained(self, folder):
            (folder / "vocab.txt").write_text("a")

    class Both:
        feature_extractor = None
        tokenizer = Part()

    for processor in (Part(), Both()):
        folder = compressed_tensors.write(loaded(model, processor=processor), layers, plan, tmp_path / "out")
        assert (folder / "vocab.txt").read_text() == "a"


class TestPretrained:
    """Real checkpoints, through the Auto classes: a decoder with shared embeddings and a vision model."""

    def test_decoder(self, tiny_llama, tmp_path):
        layers = find_layers(tiny_llama.model, dtype=tiny_llama.dtype)
        [table] = [layer for layer in layers if layer.kind == "embedding"]
        assert table.tied_to == ("lm_head",)
        plan = self.plan(tiny_llama, layers)
        assert plan.schemes[table.name] == WIDEST
        folder = compressed_tensors.write(tiny_llama, layers, plan, tmp_path / "out")
        inputs = transformers.AutoTokenizer.from_pretrained(folder)("It is a truth universally acknowledged", return_tensors="pt")
        inputs.pop("token_type_ids", None)
        reloaded = transformers.AutoModelForCausalLM.from_pretrained(folder)
        self.agree(tiny_llama, layers, plan, reloaded, inputs)
        assert (folder / "model.safetensors").stat().st_size == plan.bytes

    def test_vision(self, tiny_vit, tmp_path):
        layers = find_layers(tiny_vit.model, dtype=tiny_vit.dtype)
        plan = self.plan(tiny_vit, layers)
        folder = compressed_tensors.write(tiny_vit, layers, plan, tmp_path / "out")
        config = tiny_vit.model.config
        reloaded = transformers.AutoModelForImageClassification.from_pretrained(folder)
        inputs = {"pixel_values": torch.randn(2, config.num_channels, config.image_size, config.image_size)}
        self.agree(tiny_vit, layers, plan, reloaded, inputs)
        assert (folder / "model.safetensors").stat().st_size == plan.bytes

    def plan(self, model, layers):
        plan = loadable_plan(model.model, layers, dtype=model.dtype)
        return Plan(model.id, model.digest, plan.schemes, plan.bytes)

    def agree(self, model, layers, plan, reloaded, inputs):
        expected = logits(compressed(model.model, layers, plan), inputs)
        assert relative_error(logits(reloaded, inputs), expected) < 1e-5
        assert relative_error(logits(model.model, inputs), expected) > 1e-3


@pytest.fixture
def model():
    return CASES["bert"].build()


@pytest.fixture
def layers(model):
    return find_layers(model)


@pytest.fixture
def plan(model, layers):
    return loadable_plan(model, layers)


def test_groups_name_every_layer_exactly_and_once(model, layers, plan, tmp_path):
    folder = compressed_tensors.write(loaded(model), layers, plan, tmp_path / "out")
    description = json.loads((folder / "config.json").read_text())["quantization_config"]
    targets = [target for group in description["config_groups"].values() for target in group["targets"]]
    assert len(description["config_groups"]) > 5
    assert len(targets) == len(set(targets))
    assert not any(target.startswith("re:") for target in targets)
    assert set(targets) == {name for name, scheme in plan.schemes.items() if scheme != KEEP}
    assert set(description["ignore"]) == {name for name, scheme in plan.schemes.items() if scheme == KEEP}
    assert description["format"] == "mixed-precision"


def test_the_plan_and_nothing_else_lies_beside_the_weights(model, layers, plan, tmp_path):
    folder = compressed_tensors.write(loaded(model), layers, plan, tmp_path / "out")
    assert load_plan(folder, model_digest="0" * 16, layers=layers) == plan
    assert {file.name for file in folder.iterdir()} == {"config.json", "model.safetensors", "paredown.json"}
    assert list(tmp_path.iterdir()) == [folder]
    assert json.loads((folder / "config.json").read_text())["architectures"] == ["BertForSequenceClassification"]


def test_the_model_is_left_as_it_was(model, layers, plan, tmp_path):
    before = copy.deepcopy(model.state_dict())
    compressed_tensors.write(loaded(model), layers, plan, tmp_path / "out")
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not hasattr(model.config, "quantization_config")


def test_tensors_start_at_multiples_of_their_width(model, layers, plan, tmp_path):
    folder = native.write(loaded(model), layers, plan_of(model, layers, ANY), tmp_path / "out")
    data = (folder / native.WEIGHTS).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    widths = {"I64": 8, "F32": 4, "I32": 4, "F16": 2, "I8": 1}
    assert length % 8 == 0
    assert all(entry["data_offsets"][0] % widths[entry["dtype"]] == 0 for name, entry in header.items() if name != "__metadata__")
    with safe_open(folder / native.WEIGHTS, framework="pt") as file:
        assert file.metadata() == {"format": "pt"}


REFUSALS = [
    ("bert", "bert.embeddings.word_embeddings", "int4g64sym", "embeddings of 8 bits alone, not of 4"),
    ("qwen2", "model.embed_tokens", "int3", "embeddings of 8 bits alone, not of 3"),
    ("bert", "bert.encoder.layer.0.output.dense", "int4g64", "packed zero points; use the symmetric int4g64sym"),
    ("bert", "bert.encoder.layer.0.output.dense", "nf4g64", "no NormalFloat, as nf4g64 has"),
    ("bert", "bert.encoder.layer.0.output.dense", "int4g64sym+2:4", "no pruned weights"),
    ("bert", "bert.encoder.layer.0.output.dense", "int4g64sym+svd4", "no low-rank factors"),
    ("bert", "bert.encoder.layer.0.output.dense", "int8a8", "no rounded inputs"),
    ("gpt2", "transformer.h.0.mlp.c_fc", "int8", "no compressed Conv1D"),
    ("t5", "encoder.block.0.layer.0.SelfAttention.o", "int4sym", "initialisation of T5Stack fails on packed layers"),
    ("wav2vec2", "wav2vec2.feature_projection.projection", "int4sym", "initialisation of Wav2Vec2Model fails on packed layers"),
    ("dinov2", "", "", "this version of transformers can't load it compressed at all"),
]


@pytest.mark.parametrize(("family", "name", "scheme", "reason"), REFUSALS, ids=[f"{family}-{scheme}" for family, _, scheme, _ in REFUSALS])
def test_what_the_format_can_not_hold_is_refused_before_anything_is_written(family, name, scheme, reason, tmp_path):
    model = CASES[family].build()
    layers = find_layers(model)
    if not scheme:  # the whole class
        linear = next(layer for layer in layers if layer.kind == "linear" and not layer.fused_with)
        name, schemes = type(model).__name__, {linear.name: Scheme.parse("int8g64sym")}
    else:
        schemes = {name: Scheme.parse(scheme)}
    plan = Plan("tiny", "0" * 16, schemes, 0)
    [refused] = compressed_tensors.check(model, layers, plan)
    assert refused.layer == name
    with pytest.raises(ParedownError, match=rf"nothing was written:\n  {name}: .*{reason}"):
        compressed_tensors.write(loaded(model), layers, plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert best_format(loaded(model), layers, plan) == "paredown"
    native.write(loaded(model), layers, plan, tmp_path / "out")


def test_fused_layers_that_differ_are_refused(model, layers, tmp_path):
    attention = "bert.encoder.layer.1.attention.self"
    plan = Plan("tiny", "0" * 16, {f"{attention}.query": Scheme.parse("int4g64sym"), f"{attention}.key": Scheme.parse("int4g64sym")}, 0)
    with pytest.raises(ParedownError, match=rf"{attention}\.value: runtimes fuse it with {attention}\.query"):
        compressed_tensors.write(loaded(model), layers, plan, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_keeps_everything_is_refused(model, layers, tmp_path):
    with pytest.raises(ParedownError, match="the plan keeps every layer"):
        compressed_tensors.write(loaded(model), layers, Plan("tiny", "0" * 16, {layers[0].name: KEEP}, 0), tmp_path / "out")


WRITERS = pytest.mark.parametrize("writer", [compressed_tensors, native], ids=["compressed-tensors", "paredown"])


@WRITERS
class TestNothingIsLost:
    def test_a_plan_for_another_model(self, writer, model, layers, plan, tmp_path):
        other = Plan("tiny", "f" * 16, plan.schemes, 0)
        with pytest.raises(ParedownError, match="with digest ffffffffffffffff, the model that was loaded has digest 0000000000000000"):
            writer.write(loaded(model), layers, other, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_plan_with_an_unknown_layer(self, writer, model, layers, tmp_path):
        plan = Plan("tiny", "0" * 16, {"bert.pooler.dens": WIDEST, "bert.pooler.dense": WIDEST}, 0)
        with pytest.raises(ParedownError, match=r"got 'bert\.pooler\.dens'; did you mean bert\.pooler\.dense"):
            writer.write(loaded(model), layers, plan, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_weight_that_is_not_finite(self, writer, model, layers, plan, tmp_path):
        with torch.no_grad():
            model.bert.pooler.dense.weight[0, 0] = float("inf")
        plan = Plan("tiny", "0" * 16, {**plan.schemes, "bert.pooler.dense": Scheme.parse("int4g64sym")}, 0)
        with pytest.raises(ParedownError, match=r"bert\.pooler\.dense by int4g64sym: the weight holds NaN"):
            writer.write(loaded(model), layers, plan, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_while_writing(self, writer, model, layers, plan, tmp_path, monkeypatch):
        folder = writer.write(loaded(model), layers, plan, tmp_path / "out")
        before = {file.name: file.read_bytes() for file in folder.iterdir()}

        def full(path, tensors):
            path.write_bytes(b"half of the fi")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("paredown.export.checkpoint.write_weights", full)
        with pytest.raises(ParedownError, match="could not be written: No space left on device; nothing was left there"):
            writer.write(loaded(model), layers, plan, folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        assert list(tmp_path.iterdir()) == [folder]

    def test_a_disk_that_is_too_small(self, writer, model, layers, plan, tmp_path, monkeypatch):
        usage = type("Usage", (), {"free": 1000})
        monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
        with pytest.raises(ParedownError, match=rf"takes {plan.bytes:,} bytes, .* has 1,000 free"):
            writer.write(loaded(model), layers, plan, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_can_not_be_written_to(self, writer, model, layers, plan, tmp_path, monkeypatch):
        def read_only(**_):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("tempfile.mkdtemp", read_only)
        with pytest.raises(ParedownError, match="could not be written: Permission denied"):
            writer.write(loaded(model), layers, plan, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_folder_that_is_read_only(self, writer, model, layers, plan, tmp_path):
        tmp_path.chmod(0o555)
        with pytest.raises(ParedownError, match="could not be written: Permission denied"):
            writer.write(loaded(model), layers, plan, tmp_path / "out")

    def test_a_file_in_the_way(self, writer, model, layers, plan, tmp_path):
        (tmp_path / "out").write_text("mine")
        with pytest.raises(ParedownError, match="out is a file"):
            writer.write(loaded(model), layers, plan, tmp_path / "out")
        assert (tmp_path / "out").read_text() == "mine"

    def test_a_folder_with_files_of_somebody_else(self, writer, model, layers, plan, tmp_path):
        (tmp_path / "thesis.tex").write_text("mine")
        with pytest.raises(ParedownError, match="holds files that are no export of Paredown"):
            writer.write(loaded(model), layers, plan, tmp_path)
        assert (tmp_path / "thesis.tex").read_text() == "mine"

    def test_an_earlier_export_is_replaced(self, writer, model, layers, plan, tmp_path):
        writer.write(loaded(model), layers, plan, tmp_path / "out")
        other = Plan("tiny", "0" * 16, {"bert.pooler.dense": WIDEST}, 0)
        folder = writer.write(loaded(model), layers, other, tmp_path / "out")
        assert load_plan(folder) == other


def test_what_does_not_load_again_is_not_kept(model, layers, plan, tmp_path, monkeypatch):
    from paredown.export import checkpoint

    right = checkpoint.layer_state

    def wrong(layer, made):
        state = right(layer, made)
        return {name: tensor + 1 if name == "bert.pooler.dense.weight_scale" else tensor for name, tensor in state.items()}

    monkeypatch.setattr("paredown.export.checkpoint.layer_state", wrong)
    everything = Plan("tiny", "0" * 16, {**plan.schemes, "bert.pooler.dense": WIDEST}, 0)
    with pytest.raises(ParedownError, match=r"loaded other numbers for bert\.pooler\.dense\.weight"):
        compressed_tensors.write(loaded(model), layers, everything, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_plain_transformers_refuses_our_own_format(model, layers, plan, tmp_path):
    folder = native.write(loaded(model), layers, plan, tmp_path / "out")
    with pytest.raises(OSError, match=r"model\.safetensors"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder)


@pytest.mark.parametrize("broken", ["config.json", "paredown.safetensors", "paredown.json"])
def test_a_broken_folder_is_refused(broken, model, layers, plan, tmp_path):
    folder = native.write(loaded(model), layers, plan, tmp_path / "out")
    (folder / broken).write_bytes(b"{")
    with pytest.raises(ParedownError, match="expected"):
        native.load(folder)


def test_weights_with_one_wrong_bit_are_refused_by_their_digest(model, layers, plan, tmp_path):
    folder = native.write(loaded(model), layers, plan, tmp_path / "out")
    data = bytearray((folder / native.WEIGHTS).read_bytes())
    written = hashlib.sha256(data).hexdigest()
    assert (folder / native.DIGEST).read_text() == f"{written}  {native.WEIGHTS}\n"
    data[-1] ^= 1
    (folder / native.WEIGHTS).write_bytes(data)
    with pytest.raises(
        ParedownError, match=f"SHA-256 '{written[:16]}' .*, got '{hashlib.sha256(data).hexdigest()[:16]}': the file is damaged"
    ):
        native.load(folder)
    (folder / native.DIGEST).write_bytes(b"")
    with pytest.raises(ParedownError, match=r"SHA-256 '' .* the file is damaged"):
        native.load(folder)
    (folder / native.DIGEST).unlink()  # as an earlier version wrote it
    native.load(folder)


def test_a_plan_that_is_not_the_files_is_refused(model, layers, plan, tmp_path):
    folder = native.write(loaded(model), layers, plan, tmp_path / "out")
    text = (folder / "paredown.json").read_text()
    (folder / "paredown.json").write_text(text.replace('"int2g32sym"', '"int4g16sym"'))
    with pytest.raises(ParedownError, match=r"the file does not hold .* as int4g16sym, as its plan says"):
        native.load(folder)


def test_an_unknown_format_is_refused(model, layers, plan, tmp_path):
    with pytest.raises(ParedownError, match="expected the format compressed-tensors or paredown, got 'gguf'"):
        write(loaded(model), layers, plan, tmp_path / "out", "gguf")
