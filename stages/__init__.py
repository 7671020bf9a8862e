"""The steps of a run, one file each; the line here registers it (imported only in a worker)."""

STAGES: dict[str, str] = {
    "ingest": "stages.ingest:Ingest",
    "probe": "stages.probe:Probe",
    "train": "stages.train:Train",
    "evaluate": "stages.evaluate:Evaluate",
    "promote": "stages.promote:Promote",
}
