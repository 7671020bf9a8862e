"""Models that were not born here: one of Hugging Face's is continued through a daemon, with the real stages."""

import json
from pathlib import Path

import pytest
import torch

from daemon.core.events import ModelEvaluated, ModelPromoted, RunStarted, StageSucceeded
from stages.training.data.encoding import BYTES
from tests.acceptance.home import RECOVERY, Home, event

pytestmark = pytest.mark.slow

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
TEXT = "The model reads the same old words. "


def hugging_face(folder: Path) -> torch.nn.Module:
    """Write a model of an architecture that rewarm has nothing of, as save_pretrained does; return it."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("gpt_neox", vocab_size=264, max_position_embeddings=64, **SIZES)
    config.bos_token_id = config.eos_token_id = BYTES.end
    model: torch.nn.Module = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)  # type: ignore[operator]
    (folder / "tokenizer.json").write_bytes(BYTES.json)
    return model


def test_a_hugging_face_model_is_continued(home: Home) -> None:
    """Adopted as the first champion, it is gone on from when data arrives; transformers loads what comes of it."""
    original = hugging_face(home.inbox / "original")
    home.configure("ingest", "train", "evaluate", "promote", warm=True)
    content = json.loads(home.configuration.read_text(encoding="utf-8"))
    training = {"batch": 2, "context": 32, "max_tokens": 4 * 2 * 32}
    content["pipelines"]["one"] |= {
        "model": {"kind": "hf", "path": "inbox/original"},
        "policies": [
            {"kind": "rewarm_replay", "after_tokens": 1, "replay": 0.25, "training": training},
            RECOVERY,
            {"kind": "promotion", "max_forgetting": 9.0, "min_gain": -9.0},
        ],
    }
    home.configuration.write_text(json.dumps(content), encoding="utf-8")
    home.start()
    home.request("adopt", model="original", trained_on="nothing")
    adopted = home.wait_for(ModelPromoted)
    lines = "".join(json.dumps({"text": TEXT * repeats}) + "\n" for repeats in range(1, 30))
    home.send(event("data.arrived", {"uri": home.data(lines), "domain": "prose"}, "prose"))
    promoted = home.wait_for(ModelPromoted, 2)

    assert [started.plan.kind for started in home.events(RunStarted)] == ["adopt", "increment"]
    trained = home.wait_for(StageSucceeded, condition=lambda stage: stage.stage == "train")
    assert trained.metrics["steps"] == 4.0
    (evaluated,) = home.events(ModelEvaluated)
    assert evaluated.domains["prose"].candidate.mean < evaluated.domains["prose"].champion.mean  # type: ignore[union-attr]
    loader = pytest.importorskip("transformers").AutoModelForCausalLM
    for version, moved in ((adopted, False), (promoted, True)):
        model, found = loader.from_pretrained(home.state / version.path, output_loading_info=True)
        assert not any(found.values())
        assert type(model) is type(original)
        pairs = zip(model.parameters(), original.parameters(), strict=True)
        assert any(not torch.equal(one, other) for one, other in pairs) is moved
