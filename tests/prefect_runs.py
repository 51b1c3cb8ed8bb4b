"""A flow's run as Prefect's server keeps it."""

from typing import Any

from prefect import State
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import Artifact, FlowRun, Log
from prefect.client.schemas.sorting import LogSort
from prefect.logging.handlers import APILogWorker


def run_flow(flow: Any, **parameters: Any) -> tuple[State[Any], FlowRun]:
    """Return the final state of a run, and what Prefect knows of the run."""
    state: State[Any] = flow(**parameters, return_state=True)
    assert state.state_details.flow_run_id is not None
    with get_client(sync_client=True) as client:
        return state, client.read_flow_run(state.state_details.flow_run_id)


def read_artifacts(run: FlowRun) -> dict[str, Any]:
    """Return the artifacts of a run by their type."""
    return {str(found.type): found for found in list_artifacts(run)}


def list_artifacts(run: FlowRun) -> list[Artifact]:
    """Return all artifacts of a run."""
    ours = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ours)


def read_log(run: FlowRun) -> list[Log]:
    """Return the log of a run that has ended, in order."""
    APILogWorker.drain_all(timeout=60)
    ours = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
    with get_client(sync_client=True) as client:
        return client.read_logs(log_filter=ours, sort=LogSort.TIMESTAMP_ASC)
