"""Models in the configuration: what of a pipeline must fit the kind of its model."""

import pytest
from pydantic import ValidationError

from daemon.settings import PipelineConfiguration


def pipeline(kind: dict[str, str], **training: int) -> PipelineConfiguration:
    """Return a pipeline of this model with two policies that train."""
    weekly = {"kind": "periodic_retraining", "cron": "0 3 * * sun", "training": training}
    starting = [{"kind": "rewarm_replay", "training": training}, weekly]
    return PipelineConfiguration.model_validate({"model": kind, "policies": starting})


def test_a_module_is_trained_on_whole_examples() -> None:
    """Any other context is refused, the default too; a language model has the context that it is given."""
    module = {"kind": "module", "factory": "digits:make"}
    assert pipeline(module, context=1).model.kind == "module"
    assert pipeline({"kind": "llama"}, context=64).model.kind == "llama"
    for training in ({}, {"context": 2}):
        with pytest.raises(ValidationError, match=r"policy 'rewarm_replay'.*set `training: \{context: 1\}`"):
            pipeline(module, **training)
