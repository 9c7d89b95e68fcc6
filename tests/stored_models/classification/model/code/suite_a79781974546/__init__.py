"""The library that the scripts share; docs/ARCHITECTURE.md says which module does what and who may import whom."""

import os

# MLflow reads these once, while it is imported, which accelerate does before any module here.
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# An unreachable server would otherwise hold a script for four minutes.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
