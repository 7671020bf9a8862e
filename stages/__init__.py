"""The steps of a run, one file each; the line here registers it (imported only in a worker)."""

from typing import Final

STAGES: dict[str, str] = {
    "ingest": "stages.ingest:Ingest",
    "probe": "stages.probe:Probe",
    "curate": "stages.curate:Curate",
    "train": "stages.train:Train",
    "evaluate": "stages.evaluate:Evaluate",
    "promote": "stages.promote:Promote",
    "adopt": "stages.adopt:Adopt",
}
USUAL: Final = ("ingest", "probe", "train", "evaluate", "promote")
"""The stages of a run that trains; `adopt` is in a run that a person asks for, in the place of `train`.

`curate` goes before `train` in a run whose policy asks for it.
"""
