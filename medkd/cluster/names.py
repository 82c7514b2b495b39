"""Names, labels, annotations and keys that the chart and the program both use. A test renders the chart and compares."""

from __future__ import annotations

STAGES = ("plan", "generate", "prepare", "train", "evaluate")
DRIVER = "driver"

LABEL_RUN = "medkd.io/run"
LABEL_STAGE = "medkd.io/stage"
LABEL_JOB = "batch.kubernetes.io/job-name"
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"

ANNOTATION_GATE = "kueue.x-k8s.io/admission-gated-by"
"""While it stands, Kueue leaves a suspended Job alone; taking it away is how the driver releases a stage."""
GATE = "medkd.io/pipeline"
ANNOTATION_QUEUE = "medkd.io/queue-name"
"""With `kueue.releaseMode: label`: the queue whose label the driver sets at release, for a Kueue that knows no gate."""
ANNOTATION_PROGRESS = "medkd.io/progress"
ANNOTATION_APPROVED = "medkd.io/approved"
"""Set on stage generate's Job by `kubectl medkd approve`; the driver then lifts a hold."""
ANNOTATION_INDEX = "batch.kubernetes.io/job-completion-index"

CONTAINER = "main"
FIELD_MANAGER = "medkd-driver"
STATUS_KEY = "status.json"
SUMMARY_KEY = "summary"


def job_name(full_name: str, stage: str) -> str:
    """The Job of a stage, or of the driver."""
    return f"{full_name}-{stage}"


def status_config_map(full_name: str) -> str:
    """The ConfigMap that holds what the driver publishes."""
    return f"{full_name}-status"
