"""The MLflow recorder's parts: what a record means for MLflow, and how it is sent so that twice is once."""
